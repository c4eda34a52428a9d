"""Squared distance of two Gram matrices over positions, without ever holding one of them.

With S (d, m) and T (e, m) of one image, ||S'S - T'T||_F^2 has closed forms in d x d and d x e matrices:
  d = e: X = D'E with D = S - T, E = S + T gives S'S - T'T = (X + X') / 2: nothing cancels, however near S is to T;
  d != e: ||SS'||^2 + ||TT'||^2 - 2 ||ST'||^2, in float64 for float32 input, because the three terms cancel.
Where there are hardly more positions than channels, or the input is float64 already, blocks of rows are streamed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.pool import max_pool
from segkd.ops.precision import widen
from segkd.ops.unit import pull_back, split

Norm = Literal["none", "unit", "detached"]

FEW = 16  # nodes of windows so large are so alike that float32 would round their differences; float64 costs nothing


class _How(NamedTuple):
    scale: float
    norm: Norm
    window: tuple[int, int] | None


def _near(s: Tensor, t: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Value and gradient for equal channels."""
    dd, ee, de = (s.new_zeros(s.shape[0], s.shape[0]) for _ in range(3))
    parts = list(spans(s.shape[1], s.shape[0], s.device, PRODUCT >> 2))
    for start, stop in parts:
        d, e = s[:, start:stop] - t[:, start:stop], s[:, start:stop] + t[:, start:stop]
        for total, x, y in ((dd, d, d), (ee, e, e), (de, d, e)):
            total.addmm_(x, y.T)
    value = ((dd * ee).sum(dtype=torch.float64) + (de * de.T).sum(dtype=torch.float64)) / 2
    if not wanted:
        return value, None
    # 2 (SD' E + SE' D) with S = (D + E) / 2
    left, right = dd + de.T, de + ee
    gradient = torch.empty_like(s)
    for start, stop in parts:
        d, e = s[:, start:stop] - t[:, start:stop], s[:, start:stop] + t[:, start:stop]
        gradient[:, start:stop] = torch.addmm(left @ e, right, d)
    return value, gradient


def _quarters(rows: int) -> list[tuple[int, int]]:
    """(start, stop) of four parts, or of one where they would be too short to be worth it."""
    size = -(-rows // 4) if rows >= 256 else rows
    return [(start, min(rows, start + size)) for start in range(0, rows, size)]


def _apart(s: Tensor, t: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Value and gradient for different channels, computed in float64."""
    (d, _), (e, _) = s.shape, t.shape
    ss, st = (s.new_zeros(shape, dtype=torch.float64) for shape in ((d, d), (d, e)))
    strips = [(a, ss.new_zeros(b - a, e - a)) for a, b in _quarters(e)]  # of TT', which is symmetric, from its diagonal
    parts = list(spans(s.shape[1], d + e, s.device, PRODUCT >> 2))
    for start, stop in parts:
        x, y = s[:, start:stop].double(), t[:, start:stop].double()
        ss.addmm_(x, x.T)
        st.addmm_(x, y.T)
        for a, strip in strips:
            strip.addmm_(y[a : a + len(strip)], y[a:].T)
    tt = sum(2 * strip.square().sum() - strip[:, : len(strip)].square().sum() for _, strip in strips)
    value = (ss.square().sum() + tt - 2 * st.square().sum()).clamp_min(0)
    if not wanted:
        return value, None
    gradient = torch.empty_like(s)
    for start, stop in parts:
        x, y = s[:, start:stop].double(), t[:, start:stop].double()
        gradient[:, start:stop] = torch.addmm(ss @ x, st, y, beta=4, alpha=-4)
    return value, gradient


def _streamed(s: Tensor, t: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Value and gradient by blocks of rows of the two Gram matrices."""
    value, gradient = accumulator(s), torch.empty_like(s) if wanted else None
    for start, stop in spans(s.shape[1], s.shape[1], s.device, PRODUCT):
        rows = torch.addmm(t[:, start:stop].T @ t, s[:, start:stop].T, s, beta=-1)
        value += rows.square().sum()
        if gradient is not None:
            gradient[:, start:stop] = s @ rows.mul_(4).T
    return value, gradient


def _directions(t: Tensor, into: Tensor) -> Tensor:
    """The unit vectors of (e, m), written block by block; `into` may be `t` itself."""
    for start, stop in spans(t.shape[1], t.shape[0], t.device):
        into[:, start:stop] = split(t[:, start:stop], 0)[0]
    return into


def _image(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Value and gradient of one image, normalised as asked. student: (d, m), pooled; teacher: (e, h, w), not yet."""
    s, t = widen(student), widen(teacher if how.window is None else max_pool(teacher, how.window)).flatten(1)
    inverse = None
    if s.shape[1] <= FEW:
        s, t = s.double(), t.double()
    if how.norm == "unit":
        t = _directions(t, into=torch.empty_like(t) if how.window is None else t)
        s, inverse = split(s, 0)
    elif how.norm == "detached":
        inverse, other = (1 / (x.norm(dim=0, keepdim=True) + 1e-8) for x in (s, t))
        s, t = s * inverse, t * other
    closed = s.shape[1] > 2 * max(s.shape[0], t.shape[0])
    same, double = s.shape[0] == t.shape[0], s.dtype == torch.float64
    form = _near if closed and same else _apart if closed and not double else _streamed
    value, gradient = form(s, t, wanted)
    if gradient is not None and inverse is not None:
        gradient = pull_back(gradient, s, inverse, 0) if how.norm == "unit" else gradient.mul_(inverse)
    return value, gradient


def _kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    total, gradient = accumulator(student), gradient_like(student, wanted)
    for image in range(student.shape[0]):
        value, slope = _image(student.detach()[image].flatten(1), teacher.detach()[image], how, wanted)
        total += value
        if gradient is not None and slope is not None:
            gradient.flatten(2)[image] = slope.mul_(how.scale)
    return (total * how.scale).to(widen(student).dtype), None if gradient is None else (gradient,)


_squared = gradient_in_forward(_kernel)


def gram_distance(
    student: Float[Tensor, "b d *n"],
    teacher: Float[Tensor, "b e *n"],
    *,
    scale: float,
    norm: Norm = "none",
    window: tuple[int, int] | None = None,
) -> Float[Tensor, ""]:
    """scale * sum over images of ||S'S - T'T||_F^2, Gram matrices over positions, summed over channels.

    window: both maps are max-pooled first, kernel = stride = window, ceil. norm: "unit" divides each position by its
    L2 norm over the channels (no gradient where it is below 1e-12), "detached" by that norm + 1e-8, taken as constant.
    Kept for backward: one tensor of the size of the student's (pooled) map. No gradient to the teacher.
    """
    if window is not None:
        student = functional.max_pool2d(student, window, window, ceil_mode=True)
    return _squared(student, teacher, _How(scale, norm, window))
