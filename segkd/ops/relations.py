"""Divergence between rows of cosine similarities: with other images of the batch, or with a memory. Rows by blocks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import ROWS, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import pull_back, split

LARGEST_EXPONENT = 40.0  # exp of it, summed over any row, is far from overflow in float32


def rows_divergence(
    s: Float[Tensor, "n k"],
    t: Float[Tensor, "n k"],
    weight: Float[Tensor, "n 1"] | float,
    bound: float,
    live: Float[Tensor, " k"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n k"]]:
    """(sum of weight * KL(softmax(t) || softmax(s)), d of that / d s), rows along dim 1; s and t are overwritten.

    bound: no |entry| is above it. live: 0 takes a column out, 1 keeps it; no live column: 0 and zeros.
    KL = sum p_t (t - s) + log(Z_s / Z_t): the differences are taken before anything can cancel.
    """
    if bound > LARGEST_EXPONENT:
        if live is not None:
            s, t = (x.masked_fill_(live == 0, -bound) for x in (s, t))
        s, t = (x.sub_(x.amax(1, keepdim=True)) for x in (s, t))
    e_t = t.exp()
    difference, e_s = t.sub_(s), s.exp_()
    if live is not None:
        e_t.mul_(live)
        e_s.mul_(live)
    tiny = torch.finfo(s.dtype).tiny
    z_t, z_s = (e.sum(1, keepdim=True).clamp_min_(tiny) for e in (e_t, e_s))
    rows = difference.mul_(e_t).sum(1, keepdim=True) / z_t + (z_s / z_t).log_()
    return (rows * weight).sum(), e_s.mul_(weight / z_s).addcmul_(e_t, weight / z_t, value=-1)


class _Memory(NamedTuple):
    temperature: float
    scale: float


def _memory_kernel(
    student: Tensor,
    teacher: Tensor,
    contrast: Tensor,
    weight: Tensor,
    live: Tensor | None,
    how: _Memory,
    wanted: bool,
) -> tuple[Tensor, Gradients]:
    s, t = student.detach().flatten(2), teacher.detach().flatten(2)
    total, gradient = accumulator(s), gradient_like(student, wanted)
    memory = contrast.detach().to(widen(s[:0]).dtype)
    for image in range(s.shape[0]):
        for start, stop in spans(s.shape[2], max(memory.shape), s.device, ROWS):
            u, inverse = split(s[image, :, start:stop], 0)
            v, _ = split(t[image, :, start:stop], 0)
            share = weight[image, start:stop, None] * how.scale
            logits = ((x.T @ memory.T).div_(how.temperature) for x in (u, v))
            value, slope = rows_divergence(next(logits), next(logits), share, 1 / how.temperature, live)
            total += value
            if gradient is not None:
                of_unit = (memory.T @ slope.T).div_(how.temperature)
                gradient.flatten(2)[image, :, start:stop] = pull_back(of_unit, u, inverse, 0)
    return total.to(widen(student).dtype), None if gradient is None else (gradient,)


_memory = gradient_in_forward(_memory_kernel)


def memory_divergence(
    student: Float[Tensor, "b d h w"],
    teacher: Float[Tensor, "b d h w"],
    contrast: Float[Tensor, "k d"],
    weight: Float[Tensor, "b n"],
    live: Float[Tensor, " k"] | None = None,
    *,
    temperature: float,
    scale: float = 1.0,
) -> Float[Tensor, ""]:
    """scale * sum over positions of weight * KL(rows of norm(t) contrast' / T || rows of norm(s) contrast' / T), nats.

    norm = L2 over channels; contrast: unit rows; weight: per image and position, n = h * w; live: 0 takes a row of the
    contrast out. An empty contrast gives 0 with zero gradient. Kept for backward: one tensor of the student's size.
    """
    if contrast.shape[0] == 0:
        return (student * 0.0).sum()
    return _memory(student, teacher, contrast, weight, live, _Memory(temperature, scale))


def _group(s: Tensor, t: Tensor, temperature: float, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Sum over ordered pairs of images and rows of the divergence of a group (g, d, n), and its gradient."""
    u, inverse = split(s, 1)
    v, _ = split(t, 1)
    total = accumulator(u)
    gradient = torch.zeros_like(u) if wanted else None
    images, _, positions = u.shape
    for i in range(images):
        for start, stop in spans(positions, positions, u.device, ROWS):
            for j in range(images):
                rows = ((x[i, :, start:stop].T @ x[j]).div_(temperature) for x in (u, v))
                value, slope = rows_divergence(next(rows), next(rows), 1.0, 1 / temperature)
                total += value
                if gradient is not None:
                    gradient[i, :, start:stop].addmm_(u[j], slope.T, alpha=1 / temperature)
                    gradient[j].addmm_(u[i, :, start:stop], slope, alpha=1 / temperature)
    return total, None if gradient is None else pull_back(gradient, u, inverse, 1)


def _pairs_kernel(
    student: Tensor, teacher: Tensor, temperature: float, groups: tuple[int, ...], wanted: bool
) -> tuple[Tensor, Gradients]:
    s, t = student.detach().flatten(2), teacher.detach().flatten(2)
    total, gradient = accumulator(s), gradient_like(student, wanted)
    first = 0
    for size in groups:
        part = slice(first, first + size)
        first += size
        value, slope = _group(widen(s[part]), widen(t[part]), temperature, wanted)
        scale = 1 / (len(groups) * size**2 * s.shape[2])
        total += value * scale
        if gradient is not None and slope is not None:
            gradient.flatten(2)[part] = slope.mul_(scale)
    return total.to(widen(student).dtype), None if gradient is None else (gradient,)


_pairs = gradient_in_forward(_pairs_kernel)


def pairs_divergence(
    student: Float[Tensor, "b d h w"],
    teacher: Float[Tensor, "b e h w"],
    *,
    temperature: float,
    groups: tuple[int, ...],
) -> Float[Tensor, ""]:
    """Mean over groups of the mean over their ordered pairs of images (i, j) and rows of KL(t rows || s rows), nats.

    Rows: norm(f_i)' norm(f_j) / T, norm = L2 over channels. groups: numbers of consecutive images, adding up to b.
    No n x n matrix outlives a block of its rows. Kept for backward: one tensor of the student's size.
    """
    return _pairs(student, teacher, temperature, groups)
