"""Row norms of the difference of two cosine Gram matrices over positions, a block of rows at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import pull_back, split


def _image(student: Tensor, teacher: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Sum of the row norms of one image, and its gradient. student, teacher: (d, m)."""
    u, inverse = split(student, 0)
    v, _ = split(teacher, 0)
    # U'U - V'V = (D'E + E'D) / 2 with D = U - V and E = U + V: nothing cancels where the student is close
    left, right = torch.cat([u - v, u + v]), torch.cat([u + v, u - v]).mul_(0.5)
    total = accumulator(u)
    gradient = torch.zeros_like(u) if wanted else None
    for start, stop in spans(u.shape[1], u.shape[1], u.device, PRODUCT):
        rows = left[:, start:stop].T @ right
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        total += norms.sum()
        if gradient is not None:
            rows.mul_(norms.reciprocal().masked_fill_(norms == 0, 0.0))
            gradient[:, start:stop].addmm_(u, rows.T)
            gradient.addmm_(u[:, start:stop], rows)
    return total, None if gradient is None else pull_back(gradient, u, inverse, 0)


def _kernel(student: Tensor, teacher: Tensor, scale: float, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(student, wanted), accumulator(student)
    for image in range(student.shape[0]):
        s, t = (widen(x.detach()[image].flatten(1)) for x in (student, teacher))
        value, slope = _image(s, t, wanted)
        total += value
        if gradient is not None and slope is not None:
            gradient[image] = slope.mul_(scale).view_as(gradient[image])
    return (total * scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_row_norms = gradient_in_forward(_kernel)


def affinity_row_norms(
    student: Float[Tensor, "b d h w"], teacher: Float[Tensor, "b d h w"], *, scale: float
) -> Float[Tensor, ""]:
    """scale * sum over images and rows i of ||A_s[i] - A_t[i]||_2 with A = norm_d(X)^T norm_d(X), (m, m), m = h * w.

    The gradient of a row norm is 0 where the row difference is 0. No gradient to the teacher. No m x m matrix
    outlives a block of its rows. Kept for backward: one tensor of the student's size.
    """
    return _row_norms(student, teacher, scale)
