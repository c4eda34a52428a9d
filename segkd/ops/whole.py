"""Distance between the directions of two whole tensors, batch and all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import EPSILON


def _norm(x: Tensor) -> Tensor:
    """Frobenius norm, summed in float64, image by image."""
    total = accumulator(x)
    for image in x.detach():
        total += widen(image).square().sum(dtype=torch.float64)
    return total.sqrt()


def _kernel(student: Tensor, teacher: Tensor, scale: float, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total, along = gradient_like(student, wanted), accumulator(student), accumulator(student)
    long_s, long_t = _norm(student), _norm(teacher)
    wide = widen(student[:0]).dtype
    of_s, of_t = (long.clamp_min(EPSILON).reciprocal().to(wide) for long in (long_s, long_t))
    for image in range(student.shape[0]):
        u = widen(student.detach()[image]) * of_s
        error = torch.addcmul(u, widen(teacher.detach()[image]), of_t, value=-1)
        total += error.square().sum(dtype=torch.float64)
        along += (u * error).sum(dtype=torch.float64)
        if gradient is not None:
            gradient[image] = error
    if gradient is not None:
        # student near teacher: error and along vanish together, so nothing cancels
        slope = (2 * scale * of_s * (long_s >= EPSILON)).to(gradient.dtype)
        gradient.addcmul_(student.detach(), (of_s * along).to(gradient.dtype), value=-1).mul_(slope)
    return (total * scale).to(wide), None if gradient is None else (gradient,)


_distance = gradient_in_forward(_kernel)


def whole_direction_distance(
    student: Float[Tensor, "b ..."], teacher: Float[Tensor, "b ..."], *, scale: float
) -> Float[Tensor, ""]:
    """scale * sum of (s / ||s|| - t / ||t||)^2, norms over ALL elements; no gradient where ||s|| < 1e-12.

    Kept for backward: one tensor of the student's size.
    """
    return _distance(student, teacher, scale)
