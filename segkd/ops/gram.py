"""Squared distance of two Gram matrices over positions, without ever holding one of them.

With S (d, m) and T (e, m) of one image, ||S'S - T'T||_F^2 has closed forms in d x d and d x e matrices:
  d = e: X = D'E with D = S - T, E = S + T gives S'S - T'T = (X + X') / 2: nothing cancels, however near S is to T;
  d != e: ||SS'||^2 + ||TT'||^2 - 2 ||ST'||^2, in float64 for float32 input, because the three terms cancel.
Where there are no more positions than channels, or the input is float64 already, blocks of rows are streamed instead.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen


def _near(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient for equal channels."""
    d, e = s - t, s + t
    dd, ee, de = d @ d.T, e @ e.T, d @ e.T
    value = ((dd * ee).sum() + (de * de.T).sum()) / 2
    return value, 2 * (torch.addmm((s @ d.T) @ e, s @ e.T, d))


def _apart(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient for different channels, computed in float64."""
    s, t = s.double(), t.double()
    ss, st = s @ s.T, s @ t.T
    value = ss.square().sum() + (t @ t.T).square().sum() - 2 * st.square().sum()
    return value.clamp_min(0), 4 * torch.addmm(ss @ s, st, t, alpha=-1)


def _streamed(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient by blocks of rows of the two Gram matrices."""
    value, gradient = accumulator(s), torch.empty_like(s)
    for start, stop in spans(s.shape[1], s.shape[1], s.device, PRODUCT):
        rows = torch.addmm(t[:, start:stop].T @ t, s[:, start:stop].T, s, beta=-1)
        value += rows.square().sum()
        gradient[:, start:stop] = s @ rows.mul_(4).T
    return value, gradient


def _kernel(student: Tensor, teacher: Tensor, scale: float, wanted: bool) -> tuple[Tensor, Gradients]:
    total, gradient = accumulator(student), gradient_like(student, wanted)
    (d, e), m = (student.shape[1], teacher.shape[1]), student.shape[2:].numel()
    closed = m > 2 * max(d, e)
    double = student.dtype == torch.float64
    form = _near if closed and d == e else _apart if closed and not double else _streamed
    for image in range(student.shape[0]):
        value, slope = form(*(widen(x.detach()[image].flatten(1)) for x in (student, teacher)))
        total += value
        if gradient is not None:
            gradient.flatten(2)[image] = slope.mul_(scale)
    return (total * scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_squared = gradient_in_forward(_kernel)


def gram_distance(
    student: Float[Tensor, "b d *n"], teacher: Float[Tensor, "b e *n"], *, scale: float
) -> Float[Tensor, ""]:
    """scale * sum over images of ||S'S - T'T||_F^2, Gram matrices over positions, summed over channels.

    Kept for backward: one tensor of the student's size. No gradient to the teacher.
    """
    return _squared(student, teacher, scale)
