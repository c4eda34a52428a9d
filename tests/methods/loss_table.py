"""The loss functions of the first methods, each with the width that its teacher map may have."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional

from segkd.methods import cirkd_channel
from segkd.methods.at import at_loss
from segkd.methods.cirkd import memory_loss, minibatch_loss
from segkd.methods.cwd import cwd_loss
from segkd.methods.fitnet import fitnet_loss
from segkd.methods.ifvd import ifvd_loss
from segkd.methods.ka import adaptation_loss, affinity_loss
from segkd.methods.kd import kd_loss
from segkd.methods.skd import pairwise_cirkd_loss, pairwise_loss, pixelwise_released_loss

CLASSES = 19
LABELS = torch.randint(0, CLASSES, (2, 32, 48))
CONTRAST = functional.normalize(torch.randn(3000, 16), dim=1)
WEIGHT = torch.randn(64, 16, 1, 1, requires_grad=True)  # of a 1x1 convolution from the student to the teacher
LOSSES = {
    "kd": (kd_loss, 16),
    "at": (at_loss, 64),
    "fitnet": (lambda s, t: fitnet_loss(s, t, WEIGHT), 64),
    "cwd-logits": (cwd_loss, 16),
    "cwd-feature": (lambda s, t: cwd_loss(s, t, WEIGHT), 64),
    "ka-adaptation": (adaptation_loss, 16),
    "ka-affinity": (affinity_loss, 16),
    "skd-pixel": (pixelwise_released_loss, 16),
    "skd-pairwise": (pairwise_loss, 64),
    "skd-pairwise-cirkd": (pairwise_cirkd_loss, 64),
    "skd-nodes": (partial(pairwise_loss, scale=None), 64),
    "ifvd": (lambda s, t: ifvd_loss(s, t, LABELS, classes=CLASSES), 64),
    "cirkd-minibatch": (minibatch_loss, 64),
    "cirkd-memory": (lambda s, t: memory_loss(s, t, LABELS, CONTRAST), 16),
    "cirkd-channel": (cirkd_channel.channel_batch_loss, 16),
}
