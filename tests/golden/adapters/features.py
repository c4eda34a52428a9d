"""at and fitnet."""

from __future__ import annotations

from torch import Tensor

from segkd.methods.at import at_loss
from segkd.methods.fitnet import fitnet_loss

Tensors = dict[str, Tensor]


def at(tensors: Tensors) -> Tensor:
    return at_loss(tensors["student"], tensors["teacher"])


def fitnet(tensors: Tensors) -> Tensor:
    return fitnet_loss(tensors["student"], tensors["teacher"], tensors["weight"])


LOSSES = {"at": at, "cirkd.at": at, "fitnet": fitnet, "cirkd.fitnet": fitnet}
