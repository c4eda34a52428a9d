"""Kullback-Leibler divergence of softmax rows, block by block."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen


class _Rows(NamedTuple):
    over: str
    temperature: float
    scale: float


def divergence_block(student: Tensor, teacher: Tensor, dim: int, temperature: float) -> tuple[Tensor, Tensor]:
    """(sum of KL(p_t || p_s), p_s - p_t) of rows along `dim`; the second is T times the gradient. Detached inputs."""
    log_s = torch.log_softmax(widen(student) / temperature, dim)
    log_t = torch.log_softmax(widen(teacher) / temperature, dim)
    p_t = log_t.exp()
    value = log_t.sub_(log_s).mul_(p_t).sum()
    return value, log_s.exp_().sub_(p_t)


def _kernel(student: Tensor, teacher: Tensor, rows: _Rows, wanted: bool) -> tuple[Tensor, Gradients]:
    s, t = student.detach().flatten(2), teacher.detach().flatten(2)
    images, channels, positions = s.shape
    gradient, total = gradient_like(student, wanted), accumulator(s)
    inner = rows.over == "channels"
    count, length = (positions, channels) if inner else (channels, positions)
    for image in range(images):
        for start, stop in spans(count, length, s.device):
            part = (image, slice(None), slice(start, stop)) if inner else (image, slice(start, stop))
            value, slope = divergence_block(s[part], t[part], 0 if inner else 1, rows.temperature)
            total += value
            if gradient is not None:
                gradient.flatten(2)[part] = slope.mul_(rows.scale / rows.temperature)
    return (total * rows.scale).to(widen(student).dtype), None if gradient is None else (gradient,)


def _projected(student: Tensor, weight: Tensor, teacher: Tensor, rows: _Rows, wanted: bool) -> tuple[Tensor, Gradients]:
    s, t, matrix = student.detach().flatten(2), teacher.detach().flatten(2), widen(weight.detach()).flatten(1)
    total, into = accumulator(s), gradient_like(student, wanted)
    of_weight = torch.zeros_like(matrix) if wanted else None
    for image in range(s.shape[0]):
        x = widen(s[image])
        of_student = torch.zeros_like(x) if wanted else None
        for start, stop in spans(t.shape[1], t.shape[2], s.device, PRODUCT):
            value, slope = divergence_block(matrix[start:stop] @ x, t[image, start:stop], 1, rows.temperature)
            total += value
            if of_student is not None and of_weight is not None:
                slope.mul_(rows.scale / rows.temperature)
                of_student.addmm_(matrix[start:stop].T, slope)
                of_weight[start:stop].addmm_(slope, x.T)
        if into is not None and of_student is not None:
            into.flatten(2)[image] = of_student
    gradients = None if into is None or of_weight is None else (into, of_weight.view_as(weight).to(weight.dtype))
    return (total * rows.scale).to(widen(student).dtype), gradients


_divergence = gradient_in_forward(_kernel)
_projected_divergence = gradient_in_forward(_projected, inputs=2)


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


def projected_divergence(
    student: Float[Tensor, "b c ..."],
    weight: Float[Tensor, "d c 1 1"],
    teacher: Float[Tensor, "b d ..."],
    *,
    temperature: float = 1.0,
    scale: float = 1.0,
) -> Float[Tensor, ""]:
    """softmax_divergence(conv1x1(student; weight), teacher, over="positions"), never holding the projected map.

    Differentiable in student and weight. Kept for backward: one tensor of the size of each.
    """
    return _projected_divergence(student, weight, teacher, _Rows("positions", temperature, scale))
