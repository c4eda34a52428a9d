"""Squared error, as it is or after a 1x1 convolution, a block at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen


def _kernel(student: Tensor, weight: Tensor, teacher: Tensor, scale: float, wanted: bool) -> tuple[Tensor, Gradients]:
    s, t, matrix = student.detach().flatten(2), teacher.detach().flatten(2), widen(weight.detach()).flatten(1)
    total, into = accumulator(s), gradient_like(student, wanted)
    of_weight = torch.zeros_like(matrix) if wanted else None
    for image in range(s.shape[0]):
        for start, stop in spans(s.shape[2], sum(matrix.shape), s.device, PRODUCT):
            x = widen(s[image, :, start:stop])
            error = torch.addmm(widen(t[image, :, start:stop]), matrix, x, beta=-1)
            total += error.square().sum()
            if into is not None and of_weight is not None:
                error.mul_(2 * scale)
                into.flatten(2)[image, :, start:stop] = matrix.T @ error
                of_weight.addmm_(error, x.T)
    gradients = None if into is None or of_weight is None else (into, of_weight.view_as(weight).to(weight.dtype))
    return (total * scale).to(widen(student).dtype), gradients


def _plain_kernel(student: Tensor, teacher: Tensor, scale: float, wanted: bool) -> tuple[Tensor, Gradients]:
    total, into = accumulator(student), gradient_like(student, wanted)
    for image in range(student.shape[0]):
        s, t = student.detach()[image].flatten(), teacher.detach()[image].flatten()
        for start, stop in spans(len(s), 1, s.device):
            error = widen(s[start:stop]) - widen(t[start:stop])
            total += error.square().sum()
            if into is not None:
                into[image].view(-1)[start:stop] = error.mul_(2 * scale)
    return (total * scale).to(widen(student).dtype), None if into is None else (into,)


_squares = gradient_in_forward(_plain_kernel)
_projected_squares = gradient_in_forward(_kernel, inputs=2)


def squares(student: Float[Tensor, "b ..."], teacher: Float[Tensor, "b ..."], *, scale: float) -> Float[Tensor, ""]:
    """scale * sum of (student - teacher)^2; no gradient to the teacher. Kept for backward: one tensor of that size."""
    return _squares(student, teacher, scale)


def projected_squares(
    student: Float[Tensor, "b c ..."],
    weight: Float[Tensor, "d c 1 1"],
    teacher: Float[Tensor, "b d ..."],
    *,
    scale: float,
) -> Float[Tensor, ""]:
    """scale * sum of (conv1x1(student; weight) - teacher)^2, never holding the projected map.

    Differentiable in student and weight. Kept for backward: one tensor of the size of each.
    """
    return _projected_squares(student, weight, teacher, scale)
