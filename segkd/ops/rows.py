"""Squared distance of two Gram matrices whose rows are normalised: between channels, or between images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import pull_back, split


def _gram(x: Tensor) -> Tensor:
    """x x' of (n, m), float64: products by blocks of columns, added up where sums over many columns lose nothing."""
    total = torch.zeros(x.shape[0], x.shape[0], dtype=torch.float64, device=x.device)
    for start, stop in spans(x.shape[1], x.shape[0], x.device, PRODUCT):
        part = widen(x[:, start:stop])
        total += part @ part.T
    return total


def _distance(s: Tensor, t: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Sum of squared differences of the normalised rows, and its gradient. s: (n, m), t: (n, any)."""
    rows, inverse = split(_gram(s), 1)
    error = rows - split(_gram(t), 1)[0]
    if not wanted:
        return error.square().sum(), None
    slope = pull_back(2 * error, rows, inverse, 1)
    wide = widen(s)
    return error.square().sum(), (slope + slope.T).to(wide.dtype) @ wide


def _channels_kernel(student: Tensor, teacher: Tensor, scale: float, wanted: bool) -> tuple[Tensor, Gradients]:
    gradient, total = gradient_like(student, wanted), accumulator(student)
    for image in range(student.shape[0]):
        value, slope = _distance(student.detach()[image].flatten(1), teacher.detach()[image].flatten(1), wanted)
        total += value
        if gradient is not None and slope is not None:
            gradient[image] = slope.mul_(scale).view_as(gradient[image])
    return (total * scale).to(widen(student).dtype), None if gradient is None else (gradient,)


def _images_kernel(student: Tensor, teacher: Tensor, scale: float, wanted: bool) -> tuple[Tensor, Gradients]:
    value, slope = _distance(student.detach().flatten(1), teacher.detach().flatten(1), wanted)
    gradients = None if slope is None else (slope.mul_(scale).view(student.shape).to(student.dtype),)
    return (value * scale).to(widen(student).dtype), gradients


_of_channels = gradient_in_forward(_channels_kernel)
_of_images = gradient_in_forward(_images_kernel)


def channel_rows_distance(
    student: Float[Tensor, "b c ..."], teacher: Float[Tensor, "b c ..."], *, scale: float
) -> Float[Tensor, ""]:
    """scale * sum over images and channel pairs of (R_s - R_t)^2, R = rows of X X' / their norm, X (c, positions).

    The maps may differ in size. Kept for backward: one tensor of the student's size.
    """
    return _of_channels(student, teacher, scale)


def image_rows_distance(
    student: Float[Tensor, "b ..."], teacher: Float[Tensor, "b ..."], *, scale: float
) -> Float[Tensor, ""]:
    """scale * sum over pairs of images of (R_s - R_t)^2, R = rows of X X' / their norm, X (b, all elements).

    Student and teacher need only have equal batches. Kept for backward: one tensor of the student's size.
    """
    return _of_images(student, teacher, scale)
