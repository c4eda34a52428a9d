"""One minus Pearson's correlation of class probabilities: per position over classes, per class over positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen

EPSILON = 1e-8  # a centred vector shorter than that has no direction: correlation 0 with anything, no gradient
ROUNDING = 8  # nor has one shorter than so many roundings of what was centred: it is noise of something constant


class _How(NamedTuple):
    temperature: float
    classes: float
    positions: float


def _centred(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """(unit vectors of x minus its mean along dims, or 0 where it has no direction; 1 / length or 0; 1 or 0)."""
    noise = torch.linalg.vector_norm(x, dim=dims, keepdim=True) * (ROUNDING * torch.finfo(x.dtype).eps)
    x = x - x.mean(dims, keepdim=True)
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True)
    live = (norm >= noise.clamp_min_(EPSILON)).to(x.dtype)
    inverse = norm.clamp_min(EPSILON).reciprocal() * live
    return x.mul_(inverse), inverse, live


def _add(p: Tensor, q: Tensor, dims: tuple[int, ...], weight: float, total: Tensor, slope: Tensor | None) -> None:
    """Add weight * sum of (1 - corr(p, q)) to `total`, and its gradient by p to `slope`.

    1 - u.v = |u - v|^2 / 2 for two directions: nothing cancels where the student is close to the teacher.
    """
    u, inverse, live = _centred(p, dims)
    v, _, other = _centred(q, dims)
    error = u - v
    apart = 0.5 * error.square().sum(dims, keepdim=True, dtype=torch.float64) + 0.5 * (1 - live) + 0.5 * (1 - other)
    total += weight * apart.sum()
    if slope is not None:
        error.sub_(u * (u * error).sum(dims, keepdim=True)).mul_(inverse * weight)
        slope += error


def _kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    p, q = (torch.softmax(widen(x.detach()).flatten(2) / how.temperature, 1) for x in (student, teacher))
    total, slope = accumulator(p), torch.zeros_like(p) if wanted else None
    if how.classes:
        _add(p, q, (1,), how.classes, total, slope)
    if how.positions:
        _add(p, q, (0, 2), how.positions, total, slope)
    gradient = gradient_like(student, wanted)
    if slope is not None and gradient is not None:
        slope.sub_((p * slope).sum(1, keepdim=True)).mul_(p).div_(how.temperature)
        gradient.flatten(2).copy_(slope)
    return total.to(p.dtype), None if gradient is None else (gradient,)


_distance = gradient_in_forward(_kernel)


def correlation_distance(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c h w"],
    *,
    temperature: float,
    classes: float,
    positions: float,
) -> Float[Tensor, ""]:
    """classes * sum over positions of (1 - corr over classes) + positions * sum over classes of (1 - corr over b h w).

    corr = Pearson's correlation of softmax_c(s / T) and softmax_c(t / T); 0 with something constant. A weight of 0
    leaves its part out. Kept for backward: one tensor of the student's size.
    """
    return _distance(student, teacher, _How(temperature, classes, positions))
