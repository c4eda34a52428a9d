"""ICSD, adaptive weights, and the task loss of the released code."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from adapters import Result
from segkd.methods.aicsd import alw_loss, alw_released_share, alw_share
from segkd.methods.base import Progress
from segkd.methods.icsd import icsd_loss, icsd_released_loss, released_task_loss
from segkd.ops.labelled import labelled_cross_entropy

Tensors = dict[str, Tensor]


def icsd(tensors: Tensors) -> Tensor:
    return icsd_loss(tensors["student"], tensors["teacher"])


def icsd_released(tensors: Tensors, *, lo_lambda: float) -> Result:
    return Result({"lo": lo_lambda * icsd_released_loss(tensors["student"], tensors["teacher"])})


def alw(tensors: Tensors, *, iteration: int, iterations: int) -> Tensor:
    share = alw_share(Progress(iteration, iterations, epoch=0, epochs=1))
    return alw_loss(tensors["ce"], tensors["icsd"], tensors["kd"], share)


def alw_released(tensors: Tensors, *, epoch: int) -> Tensor:
    share = alw_released_share(Progress(iteration=0, iterations=1, epoch=epoch, epochs=200))
    return alw_loss(tensors["seg"], tensors["lo"], tensors["pi"], share)


def task_released(tensors: Tensors, *, mode: Literal["ce", "focal"]) -> Tensor:
    assert mode in {"ce", "focal"}
    return released_task_loss(tensors["student"], tensors["labels"], focal=mode == "focal")


def task(tensors: Tensors) -> Tensor:
    return labelled_cross_entropy(tensors["student"], tensors["labels"])


LOSSES = {
    "aicsd.icsd@paper": icsd,
    "aicsd.icsd@released": icsd_released,
    "aicsd.alw@paper": alw,
    "aicsd.alw@released": alw_released,
    "aicsd.segce": task_released,
    "cirkd.ce": task,
}
