"""Squared distance to a target clipped from below, where it matters."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen


def _kernel(student: Tensor, teacher: Tensor, floor: Tensor, scale: float, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(student, wanted), accumulator(student)
    for image in range(student.shape[0]):
        s, t = (widen(x.detach()[image].flatten(1)) for x in (student, teacher))
        error = s - torch.maximum(t, floor[:, None].to(t.dtype))
        error.mul_((error > 0) | (t > 0))
        total += error.square().sum(dtype=torch.float64)
        if gradient is not None:
            gradient[image] = error.mul_(2 * scale).view_as(gradient[image])
    return (total * scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_distance = gradient_in_forward(_kernel)


def partial_distance(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"], floor: Float[Tensor, " c"], *, scale: float
) -> Float[Tensor, ""]:
    """scale * sum of (s - m)^2 where s > m or t > 0, else 0; m = max(t, floor of the channel), floor <= 0.

    Kept for backward: one tensor of the student's size.
    """
    return _distance(student, teacher, floor, scale)


def negative_sums(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "2 c"]:
    """Per channel, the sum of the negative entries and how many there are; float64."""
    sums = torch.zeros(2, x.shape[1], dtype=torch.float64, device=x.device)
    for image in x.detach():
        flat = widen(image).flatten(1)
        sums[0] += flat.clamp_max(0).sum(1, dtype=torch.float64)
        sums[1] += (flat < 0).sum(1)
    return sums
