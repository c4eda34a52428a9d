"""Squared distance of two class-by-class correlation matrices, of class probabilities over positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import pull_back, split


class _How(NamedTuple):
    temperature: float
    scale: float


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b' of (c, n), float64: products by blocks of columns, added up where long sums lose nothing."""
    total = torch.zeros(a.shape[0], a.shape[0], dtype=torch.float64, device=a.device)
    for start, stop in spans(a.shape[1], a.shape[0], a.device, PRODUCT):
        total += a[:, start:stop] @ b[:, start:stop].T
    return total


def _difference(u: Tensor, v: Tensor) -> Tensor:
    """Correlations of the rows of u minus those of v, float64; rows of length 1 but for rounding, or 0.

    Where the maps have equal size U U' - V V' is taken by differences, so that nothing cancels where U is close to V;
    the rounding of the lengths, which is the same for all positions and so adds up, is taken out again.
    """
    second = _product(v, v)
    if u.shape == v.shape:
        half = _product(u - v, u + v) / 2
        between = half + half.T
    else:
        between = _product(u, u) - second
    of_u, of_v = (torch.outer(x, x) for x in (_shorter(second + between), _shorter(second)))
    return between * of_u + second * (of_u - of_v)


def _shorter(gram: Tensor) -> Tensor:
    """1 / length of each row, from their products; 1 for rows that are 0."""
    return gram.diagonal().clamp_min(0.5).rsqrt()


def _kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(student, wanted), accumulator(student)
    for image in range(student.shape[0]):
        z_s, z_t = (widen(x.detach()[image].flatten(1)) / how.temperature for x in (student, teacher))
        p = z_s.softmax(0)
        u, inverse = split(p, 1)
        error = _difference(u, split(z_t.softmax(0), 1)[0])
        total += error.square().sum()
        if gradient is not None:
            through = (error * (4 * how.scale / how.temperature)).to(u.dtype)
            slope = pull_back(through @ u, u, inverse, 1)
            slope.sub_((p * slope).sum(0)).mul_(p)
            gradient[image] = slope.view_as(gradient[image])
    return (total * how.scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_distance = gradient_in_forward(_kernel)


def category_distance(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c i j"], *, temperature: float, scale: float
) -> Float[Tensor, ""]:
    """scale * sum over images and class pairs of (M_s - M_t)^2, M = U U', U = norm_N(softmax over classes of z / T).

    M is classes x classes, so the maps may differ in size. Kept for backward: one tensor of the student's size.
    """
    return _distance(student, teacher, _How(temperature, scale))
