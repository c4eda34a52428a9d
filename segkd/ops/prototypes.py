"""Class prototypes: means of the features that share a label, by matrix products instead of a loop over classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import pull_back, split

EPSILON = 1e-8  # under each norm of the cosine


class _How(NamedTuple):
    classes: int
    epsilon: float
    scale: float


def one_hot(labels: Int[Tensor, " n"], classes: int, dtype: torch.dtype) -> Float[Tensor, "k n"]:
    """1 where a position has class k. Labels outside 0 .. classes - 1 (255 = ignored) give a column of zeros."""
    return (torch.arange(classes, device=labels.device)[:, None] == labels).to(dtype)


def class_sums(
    feature: Float[Tensor, "d n"], labels: Int[Tensor, " n"], classes: int
) -> tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]:
    """Sum of the features of each class, and how many positions it has. float32 or wider."""
    dtype = widen(feature[:0]).dtype
    sums = torch.zeros(feature.shape[0], classes, dtype=dtype, device=feature.device)
    counts = torch.zeros(classes, dtype=dtype, device=feature.device)
    for start, stop in spans(feature.shape[1], sum(sums.shape), feature.device, PRODUCT):
        members = one_hot(labels[start:stop], classes, dtype)
        sums.addmm_(widen(feature[:, start:stop]), members.T)
        counts += members.sum(1)
    return sums, counts


def _prototypes(feature: Tensor, labels: Tensor, classes: int, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(unit prototypes (d, k), their inverse norms (1, k), 1 / (count + epsilon) (k,))."""
    sums, counts = class_sums(feature, labels, classes)
    share = (counts + epsilon).reciprocal()
    return (*split(sums * share, 0, EPSILON), share)


def _variation(feature: Tensor, prototypes: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """(cosines to the own prototype, inverse norms of the features) of a block, (n,) each; ignored: cosine 0."""
    norm = feature.square().sum(0).sqrt_()
    cosine = (prototypes.T @ feature).mul_(members).sum(0) / norm.clamp_min(EPSILON)
    return cosine, norm.reciprocal().masked_fill_(norm < EPSILON, 0.0)


def _image(s: Tensor, t: Tensor, labels: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Sum of (v_s - v_t)^2 of one image, and its gradient. s: (d, n); t: (e, n); labels: (n,)."""
    prototypes, inverse_p, share = _prototypes(s, labels, how.classes, how.epsilon)
    target, _, _ = _prototypes(t, labels, how.classes, how.epsilon)
    total, of_unit = accumulator(s), torch.zeros_like(prototypes)
    slopes = torch.empty(
        2, s.shape[1], dtype=s.dtype, device=s.device
    )  # of the cosine / ||f||, and times cosine / ||f||
    for start, stop in spans(s.shape[1], max(len(s), len(t)), s.device):
        members = one_hot(labels[start:stop], how.classes, s.dtype)
        x = s[:, start:stop]
        v_s, inverse = _variation(x, prototypes, members)
        error = v_s - _variation(t[:, start:stop], target, members)[0]
        total += error.square().sum()
        if wanted:
            slope = 2 * error * inverse
            slopes[0, start:stop], slopes[1, start:stop] = slope, slope * v_s * inverse
            of_unit.addmm_(x, (members * slope).T)
    if not wanted:
        return total, None
    both = torch.cat([prototypes, pull_back(of_unit, prototypes, inverse_p, 0) * share], 1)
    gradient = torch.empty_like(s)
    for start, stop in spans(s.shape[1], len(s), s.device):
        members = one_hot(labels[start:stop], how.classes, s.dtype)
        spread = torch.cat([members * slopes[0, start:stop], members])
        gradient[:, start:stop] = (both @ spread).addcmul_(s[:, start:stop], slopes[1, start:stop], value=-1)
    return total, gradient


def _kernel(student: Tensor, teacher: Tensor, labels: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    total, into = accumulator(student), gradient_like(student, wanted)
    for image in range(student.shape[0]):
        s, t = (widen(x.detach()[image].flatten(1)) for x in (student, teacher))
        value, gradient = _image(s, t, labels[image].flatten(), how, wanted)
        total += value
        if into is not None and gradient is not None:
            into.flatten(2)[image] = gradient.mul_(how.scale)
    return (total * how.scale).to(widen(student).dtype), None if into is None else (into,)


_distance = gradient_in_forward(_kernel)


def variation_distance(
    student: Float[Tensor, "b d h w"],
    teacher: Float[Tensor, "b e h w"],
    labels: Int[Tensor, "b h w"],
    *,
    classes: int,
    epsilon: float,
    scale: float,
) -> Float[Tensor, ""]:
    """scale * sum over images and labelled positions of (v_s - v_t)^2, v = cosine of a feature and its class prototype.

    Prototype = sum of the class's features in that image / (count + epsilon); the gradient flows through it. Norms
    below 1e-8 are taken as 1e-8, with no gradient through the direction they do not have.
    Kept for backward: one tensor of the student's size.
    """
    return _distance(student, teacher, labels, _How(classes, epsilon, scale))
