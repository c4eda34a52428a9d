"""A short look at a network in mid-training: mIoU only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from segkd import crash
from segkd.config.recipe import Recipe
from segkd.data.prepared import Split
from segkd.evaluation.confusion import confusion, scores
from segkd.evaluation.evaluate import decide, evaluating, logits, require_labels
from segkd.evaluation.inputs import Device, batches


def miou(
    network: nn.Module,
    split: Split,
    recipe: Recipe,
    classes: int,
    device: Device,
    stopping: Callable[[], bool] = lambda: False,
) -> float | None:
    """mIoU (fraction) of a network over a split by the recipe's rule; equals `evaluate_network`'s.

    stopping: asked after every batch; None where it answers yes, since a long look must not outlast a grace time.

    Changes nothing about the network: modes, gradients and statistics stay, and so do torch's generators.
    """
    total = torch.zeros(classes, classes, dtype=torch.int64)
    with evaluating(network):
        for batch in batches(split, recipe, device):
            prediction, _ = decide(logits(network, batch, recipe))
            total += confusion(prediction, batch.labels, classes).cpu()
            crash.point("validating")
            if stopping():
                return None
    require_labels(int(total.sum()), split)
    return scores(total, recipe.evaluation.absent).miou
