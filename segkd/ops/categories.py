"""Squared distance of two class-by-class correlation matrices, of class probabilities over positions."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import pull_back, split


class _How(NamedTuple):
    temperature: float
    scale: float


def _difference(u: Tensor, v: Tensor) -> Tensor:
    """U U' - V V'; by differences where the maps have equal size, so that nothing cancels where U is close to V."""
    if u.shape != v.shape:
        return u @ u.T - v @ v.T
    half = (u - v) @ (u + v).T / 2
    return half + half.T


def _kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(student, wanted), accumulator(student)
    for image in range(student.shape[0]):
        z_s, z_t = (widen(x.detach()[image].flatten(1)) / how.temperature for x in (student, teacher))
        p = z_s.softmax(0)
        u, inverse = split(p, 1)
        error = _difference(u, split(z_t.softmax(0), 1)[0])
        total += error.square().sum()
        if gradient is not None:
            slope = pull_back(error.mul_(4 * how.scale / how.temperature) @ u, u, inverse, 1)
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
