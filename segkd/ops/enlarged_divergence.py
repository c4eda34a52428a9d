"""Kullback-Leibler divergence of class probabilities at the image's size, with gradients at the map's size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import spans
from segkd.ops.divergence import divergence_block
from segkd.ops.enlarge import enlarged, reduced
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen


class _How(NamedTuple):
    size: tuple[int, int]
    scale: float


def _kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(student, wanted), accumulator(student)
    small = (student.shape[-2], student.shape[-1])
    for image in range(student.shape[0]):
        s, t = (enlarged(x[image], how.size).flatten(1) for x in (student, teacher))
        slope = torch.empty_like(s) if gradient is not None else None
        for start, stop in spans(s.shape[1], s.shape[0], s.device):
            value, block = divergence_block(s[:, start:stop], t[:, start:stop], 0, 1.0)
            total += value
            if slope is not None:
                slope[:, start:stop] = block
        if gradient is not None and slope is not None:
            gradient[image] = reduced(slope.mul_(how.scale).view(-1, *how.size), small)
    return (total * how.scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_divergence = gradient_in_forward(_kernel)


def enlarged_divergence(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c i j"], *, size: tuple[int, int], scale: float
) -> Float[Tensor, ""]:
    """scale * sum over images and pixels of KL(softmax_c(t) || softmax_c(s)), both maps enlarged to `size` first.

    The maps may differ in size. Kept for backward: one tensor of the student's own size, not of `size`.
    """
    return _divergence(student, teacher, _How(size, scale))
