"""Cross-entropy against soft targets, block by block."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen


def _kernel(student: Tensor, teacher: Tensor, scale: float, wanted: bool) -> tuple[Tensor, Gradients]:
    s, t = student.detach().flatten(2), teacher.detach().flatten(2)
    gradient, total = gradient_like(student, wanted), accumulator(s)
    for image in range(s.shape[0]):
        for start, stop in spans(s.shape[2], s.shape[1], s.device):
            part = (image, slice(None), slice(start, stop))
            log_s = torch.log_softmax(widen(s[part]), 0)
            p_t = torch.softmax(widen(t[part]), 0)
            total -= (p_t * log_s).sum()
            if gradient is not None:
                gradient.flatten(2)[part] = log_s.exp_().sub_(p_t).mul_(scale)
    return (total * scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_cross_entropy = gradient_in_forward(_kernel)


def soft_cross_entropy(
    student: Float[Tensor, "b c ..."], teacher: Float[Tensor, "b c ..."], *, scale: float
) -> Float[Tensor, ""]:
    """-scale * sum over images, positions and classes of softmax(t) log_softmax(s); no gradient to the teacher.

    Kept for backward: one tensor of the student's size.
    """
    return _cross_entropy(student, teacher, scale)
