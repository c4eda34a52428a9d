"""IFVD."""

from __future__ import annotations

from torch import Tensor

from segkd.methods.ifvd import ifvd_loss

Tensors = dict[str, Tensor]


def ifvd(tensors: Tensors, *, classes: int) -> Tensor:
    return ifvd_loss(tensors["student"], tensors["teacher"], tensors["labels"], classes=classes)


LOSSES = {"ifvd": ifvd, "cirkd.ifvd": ifvd}
