"""One minus Pearson's correlation of class probabilities: per position over classes, per class over positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen

EPSILON = 1e-8  # a centred vector shorter than that has no direction: correlation 0 with anything, no gradient
ROUNDING = 8  # nor has one shorter than so many roundings of what was centred: it is noise of something constant


class _How(NamedTuple):
    temperature: float
    classes: float
    positions: float


def _along(length: int, root: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """(1 / root or 0, 1 or 0) where root is the length of a centred vector of `length` entries of about `size`."""
    noise = size * (length**0.5 * ROUNDING * torch.finfo(size.dtype).eps)
    live = (root >= noise.clamp_min(EPSILON)).to(root.dtype)
    return root.clamp_min(EPSILON).reciprocal() * live, live


def _over_classes(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over columns of 1 - corr of the columns of p and q (c, n), whose mean is 1 / c; its gradient by p.

    1 - u.v = |u - v|^2 / 2 for two directions: nothing cancels where the student is close to the teacher.
    """
    classes = p.shape[0]
    typical = p.new_tensor(1 / classes)
    p, q = p - 1 / classes, q - 1 / classes
    inverse, live = _along(classes, torch.linalg.vector_norm(p, dim=0), typical)
    other, alive = _along(classes, torch.linalg.vector_norm(q, dim=0), typical)
    u, error = p.mul_(inverse), q.mul_(-other)
    error += u
    square = error.square().sum(0)
    value = (square + (2 - live - alive)).sum(dtype=torch.float64) / 2
    along = (square + (1 - alive)) / 2 * live  # u.(u - v) where u is a direction
    return value, error.addcmul_(u, along, value=-1).mul_(inverse)


def _over_positions(p: Tensor, q: Tensor, slope: Tensor | None, weight: float) -> Tensor:
    """weight * sum over classes of 1 - corr over (b, n) of p and q (b, c, n); its gradient by p is added to `slope`.

    With x, y centred: 1 - corr = (|x - y|^2 - (|x| - |y|)^2) / (2 |x| |y|), which does not cancel where x is near y.
    """
    count, means = p.shape[0] * p.shape[2], [x.mean((0, 2))[:, None] for x in (p, q)]
    squares = torch.zeros(3, p.shape[1], 1, dtype=torch.float64, device=p.device)
    for image in range(len(p)):
        x, y = (z[image] - mean for z, mean in zip((p, q), means, strict=True))
        for k, z in enumerate((x, y, x - y)):
            squares[k] += z.square_().sum(1, keepdim=True, dtype=torch.float64)
    long, short, apart = squares.sqrt_()[0], squares[1], squares[2]
    (ours, live), (theirs, alive) = (_along(count, x, mean) for x, mean in zip((long, short), means, strict=True))
    distance = torch.where(live * alive > 0, (apart.square() - (long - short).square()) * ours * theirs / 2, 1.0)
    if slope is not None:
        second = -weight * ours * theirs
        both = weight * ours * ours * (1 - distance) + second
        for image in range(len(p)):
            x, y = (z[image] - mean for z, mean in zip((p, q), means, strict=True))
            slope[image].addcmul_(x, both.to(x.dtype)).addcmul_(y.sub_(x), second.to(x.dtype))
    return weight * distance.sum()


def _kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    s, t = student.detach().flatten(2), teacher.detach().flatten(2)
    p, q = (torch.empty(s.shape, dtype=widen(s[:0]).dtype, device=s.device) for _ in range(2))
    total, slope = accumulator(p), torch.zeros_like(p) if wanted else None
    parts = [(i, slice(None), slice(*span)) for i in range(len(s)) for span in spans(s.shape[2], s.shape[1], s.device)]
    for part in parts:
        p[part], q[part] = (torch.softmax(widen(x[part]) / how.temperature, 0) for x in (s, t))
        if how.classes:
            value, of_part = _over_classes(p[part], q[part])
            total += how.classes * value
            if slope is not None:
                slope[part] = of_part.mul_(how.classes)
    if how.positions:
        total += _over_positions(p, q, slope, how.positions)
    gradient = gradient_like(student, wanted)
    if slope is None or gradient is None:
        return total.to(p.dtype), None
    for part in parts:
        block = slope[part].sub_((p[part] * slope[part]).sum(0)).mul_(p[part])
        gradient.flatten(2)[part] = block.div_(how.temperature)
    return total.to(p.dtype), (gradient,)


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
