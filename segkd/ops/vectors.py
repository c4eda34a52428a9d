"""Distances between the directions of two feature vectors at the same position."""

from __future__ import annotations

from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import pull_back, split


class _Distance(NamedTuple):
    power: int
    scale: float


def _kernel(student: Tensor, teacher: Tensor, how: _Distance, wanted: bool) -> tuple[Tensor, Gradients]:
    s, t = student.detach().flatten(2), teacher.detach().flatten(2)
    images, channels, positions = s.shape
    gradient, total = gradient_like(student, wanted), accumulator(s)
    for image in range(images):
        for start, stop in spans(positions, channels, s.device):
            part = (image, slice(None), slice(start, stop))
            u, inverse = split(s[part], 0)
            difference = u - split(t[part], 0)[0]
            total += (difference.abs() if how.power == 1 else difference.square()).sum()
            if gradient is not None:
                slope = difference.sign_() if how.power == 1 else difference.mul_(2)
                gradient.flatten(2)[part] = pull_back(slope, u, inverse, 0).mul_(how.scale)
    return (total * how.scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_distance = gradient_in_forward(_kernel)


def direction_distance(
    student: Float[Tensor, "b c ..."], teacher: Float[Tensor, "b c ..."], *, power: Literal[1, 2], scale: float
) -> Float[Tensor, ""]:
    """scale * sum over images, positions and channels of |norm_c(s) - norm_c(t)|^power, norm = L2 over the channels.

    Kept for backward: one tensor of the student's size. No gradient to the teacher, none where ||s|| < 1e-12.
    """
    return _distance(student, teacher, _Distance(power, scale))
