"""Squared distance of two class-by-class correlation matrices, of class probabilities over positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import EPSILON


class _How(NamedTuple):
    temperature: float
    scale: float


def _directions(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(U, lengths (c, 1)): rows of U = softmax over classes of (c, n) logits / temperature, each over its length."""
    u = torch.empty(logits.shape, dtype=widen(logits[:0]).dtype, device=logits.device)
    squares = torch.zeros(len(u), 1, dtype=torch.float64, device=u.device)
    for start, stop in spans(u.shape[1], len(u), u.device):
        part = torch.softmax(widen(logits[:, start:stop]) / temperature, 0)
        squares += part.square().sum(1, keepdim=True)
        u[:, start:stop] = part
    lengths = squares.sqrt().to(u.dtype)
    return u.div_(lengths.clamp_min(EPSILON)), lengths


def _product(x: Tensor) -> Tensor:
    """x x' of (c, n), float64: products by blocks of columns, added up where long sums lose nothing."""
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    for start, stop in spans(x.shape[1], len(x), x.device, PRODUCT):
        total += x[:, start:stop] @ x[:, start:stop].T
    return total


def _between(u: Tensor, v: Tensor) -> Tensor:
    """u u' - v v' of equal shapes, by differences: nothing cancels where u is close to v."""
    half = torch.zeros(len(u), len(u), dtype=torch.float64, device=u.device)
    for start, stop in spans(u.shape[1], len(u), u.device, PRODUCT):
        x, y = u[:, start:stop], v[:, start:stop]
        half += (x - y) @ (x + y).T
    return (half + half.T) / 2


def _difference(u: Tensor, v: Tensor) -> Tensor:
    """Correlations of the rows of u minus those of v, float64; rows of length 1 but for rounding, or 0.

    The rounding of the lengths, which is the same for all positions and so adds up, is taken out again.
    """
    second = _product(v)
    between = _between(u, v) if u.shape == v.shape else _product(u) - second
    of_u, of_v = (torch.outer(x, x) for x in (_shorter(second + between), _shorter(second)))
    return between * of_u + second * (of_u - of_v)


def _shorter(gram: Tensor) -> Tensor:
    """1 / length of each row, from their products; 1 for rows that are 0."""
    return gram.diagonal().clamp_min(0.5).rsqrt()


def _slope(u: Tensor, lengths: Tensor, through: Tensor, into: Tensor) -> None:
    """d loss / d logits (c, n) from d loss / d U = through U, through (c, c); temperature is in `through` already."""
    parts = list(spans(u.shape[1], len(u), u.device))
    along = torch.zeros_like(lengths)
    for start, stop in parts:
        x = u[:, start:stop]
        along += (through @ x).mul_(x).sum(1, keepdim=True)
    inverse = lengths.reciprocal().masked_fill_(lengths < EPSILON, 0.0)
    for start, stop in parts:
        x = u[:, start:stop]
        of_p, p = (through @ x).addcmul_(x, along, value=-1).mul_(inverse), x * lengths
        into[:, start:stop] = of_p.sub_((p * of_p).sum(0)).mul_(p)


def _kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(student, wanted), accumulator(student)
    for image in range(student.shape[0]):
        u, lengths = _directions(student.detach()[image].flatten(1), how.temperature)
        error = _difference(u, _directions(teacher.detach()[image].flatten(1), how.temperature)[0])
        total += error.square().sum()
        if gradient is not None:
            through = (error * (4 * how.scale / how.temperature)).to(u.dtype)
            _slope(u, lengths, through, gradient[image].flatten(1))
    return (total * how.scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_distance = gradient_in_forward(_kernel)


def category_distance(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c i j"], *, temperature: float, scale: float
) -> Float[Tensor, ""]:
    """scale * sum over images and class pairs of (M_s - M_t)^2, M = U U', U = norm_N(softmax over classes of z / T).

    M is classes x classes, so the maps may differ in size. Kept for backward: one tensor of the student's size.
    """
    return _distance(student, teacher, _How(temperature, scale))


def _pooled_map(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(1, c, h, w) logits in full precision, and softmax over positions of their 2 x 2 averages / T, (c, n)."""
    x = widen(logits)[None]
    pooled = functional.avg_pool2d(x, 2, 2, ceil_mode=True)[0].flatten(1)
    return x, torch.softmax(pooled.div_(temperature), 1)


def _pooled_kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(student, wanted), accumulator(student)
    for image in range(student.shape[0]):
        x, p = _pooled_map(student.detach()[image], how.temperature)
        error = p @ p.T
        of_teacher = _pooled_map(teacher.detach()[image], how.temperature)[1]
        error -= of_teacher @ of_teacher.T
        del of_teacher
        total += error.double().square().sum()
        if gradient is not None:
            of_p = (error * (4 * how.scale / how.temperature)) @ p
            of_p.sub_((of_p * p).sum(1, keepdim=True)).mul_(p)
            small = of_p.view(1, len(p), -(-x.shape[-2] // 2), -(-x.shape[-1] // 2))
            step = torch.ops.aten.avg_pool2d_backward(small, x, [2, 2], [2, 2], [0, 0], True, True, None)
            gradient[image] = step[0]
    return (total * how.scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_pooled_distance = gradient_in_forward(_pooled_kernel)


def pooled_category_distance(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"], *, temperature: float, scale: float
) -> Float[Tensor, ""]:
    """scale * sum over images and class pairs of (M_s - M_t)^2, M = P P'.

    P = softmax over POSITIONS of 2 x 2 average-pooled (ceil) z / T. Kept for backward: a tensor of the student's size.
    """
    return _pooled_distance(student, teacher, _How(temperature, scale))
