"""ICKD on logits, AICSD's variant."""

from __future__ import annotations

from torch import Tensor

from adapters import Result
from segkd.methods.ickd import ickd_loss


def aicsd_ic(tensors: dict[str, Tensor], *, ic_lambda: float) -> Result:
    return Result({"ic": ic_lambda * ickd_loss(tensors["student"], tensors["teacher"])})


LOSSES = {"aicsd.ic": aicsd_ic}
