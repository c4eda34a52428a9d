"""Kullback-Leibler divergence of softmax rows, block by block."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import spans
from segkd.ops.formed import gradient_in_forward
from segkd.ops.precision import widen


class _Rows(NamedTuple):
    over: str
    temperature: float
    scale: float


def _kernel(student: Tensor, teacher: Tensor, rows: _Rows, wanted: bool) -> tuple[Tensor, Tensor | None]:
    over, temperature, scale = rows
    s, t = student.detach().flatten(2), teacher.detach().flatten(2)
    images, channels, positions = s.shape
    gradient = torch.empty_like(student, memory_format=torch.contiguous_format) if wanted else None
    total = torch.zeros((), dtype=torch.float64, device=s.device)
    inner = (
        over == "channels"
    )  # rows run over the channels: blocks are cut along the positions; else along the channels
    for image in range(images):
        for start, stop in spans(positions if inner else channels, channels if inner else positions, s.device):
            part = (image, slice(None), slice(start, stop)) if inner else (image, slice(start, stop))
            log_s = torch.log_softmax(widen(s[part]) / temperature, 0 if inner else 1)
            log_t = torch.log_softmax(widen(t[part]) / temperature, 0 if inner else 1)
            p_t = log_t.exp()
            total += log_t.sub_(log_s).mul_(p_t).sum()
            if gradient is not None:
                gradient.flatten(2)[part] = log_s.exp_().sub_(p_t).mul_(scale / temperature)
    return (total * scale).to(widen(student).dtype), gradient


_divergence = gradient_in_forward(_kernel)


def softmax_divergence(
    student: Float[Tensor, "b c ..."],
    teacher: Float[Tensor, "b c ..."],
    *,
    over: Literal["channels", "positions"],
    temperature: float = 1.0,
    scale: float = 1.0,
) -> Float[Tensor, ""]:
    """scale * sum over rows of KL(softmax(t / T) || softmax(s / T)), nats; no gradient to the teacher.

    `over` is what a row runs over: "channels" (one row per position) or "positions" (one row per channel).
    Kept for backward: one tensor of the student's size.
    """
    return _divergence(student, teacher, _Rows(over, temperature, scale))
