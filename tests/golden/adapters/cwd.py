"""CWD: the paper's form, and the settings of three released implementations."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from segkd.methods.cwd import Norm, cwd_loss, cwd_variant_loss

Tensors = dict[str, Tensor]


def cwd(tensors: Tensors, *, temperature: float) -> Tensor:
    return cwd_loss(tensors["student"], tensors["teacher"], tensors.get("weight"), temperature=temperature)


def released(tensors: Tensors, *, norm_type: Norm, divergence: Literal["kl", "mse"], temperature: float) -> Tensor:
    student, teacher = tensors["student"], tensors["teacher"]
    others = [x for name, x in tensors.items() if name not in ("student", "teacher")]  # the 1x1 convolution, if any
    (weight,) = others or [None]
    return cwd_variant_loss(student, teacher, weight, norm=norm_type, divergence=divergence, temperature=temperature)


def mmrazor(tensors: Tensors, *, tau: float) -> Tensor:
    return cwd_loss(tensors["student"], tensors["teacher"], temperature=tau)


LOSSES = {"cwd": cwd, "cirkd.cwd": released, "torchdistiller.cwd": released, "mmrazor.cwd": mmrazor}
