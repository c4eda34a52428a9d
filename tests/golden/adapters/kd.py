"""kd, its element form and SKD's pixel-wise cross-entropy."""

from __future__ import annotations

from torch import Tensor

from adapters import Result
from segkd.methods.kd import kd_loss

Tensors = dict[str, Tensor]


def kd(tensors: Tensors, *, temperature: float) -> Tensor:
    return kd_loss(tensors["student"], tensors["teacher"], temperature=temperature)


def kd_element(tensors: Tensors, *, temperature: float) -> Tensor:
    return kd_loss(tensors["student"], tensors["teacher"], temperature=temperature, reduction="element")


def aicsd_pi(tensors: Tensors, *, pi_lambda: float) -> Result:
    return Result({"pi": pi_lambda * kd_loss(tensors["student"], tensors["teacher"], reduction="element")})


LOSSES = {"kd": kd, "kd_element": kd_element, "cirkd.kd": kd, "aicsd.pi": aicsd_pi}
