"""Class prototypes: means of the features that share a label, by matrix products instead of a loop over classes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen
from segkd.ops.unit import pull_back, split

EPSILON = 1e-8  # under each norm of the cosine


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


def _variation(feature: Tensor, prototypes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(cosines to the own prototype, unit features, their inverse norms, membership) of a block; ignored: cosine 0."""
    members = one_hot(labels, prototypes.shape[1], prototypes.dtype)
    u, inverse = split(feature, 0, EPSILON)
    cosine = (u * (prototypes @ members)).sum(0)
    return cosine, u, inverse, members


def _prototypes(feature: Tensor, labels: Tensor, classes: int, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(unit prototypes (d, k), their inverse norms (1, k), 1 / (count + epsilon) (k,))."""
    sums, counts = class_sums(feature, labels, classes)
    share = (counts + epsilon).reciprocal()
    return (*split(sums * share, 0, EPSILON), share)


def _image(s: Tensor, t: Tensor, labels: Tensor, classes: int, epsilon: float, gradient: Tensor | None) -> Tensor:
    """Sum of (v_s - v_t)^2 of one image; its gradient is written into `gradient` (d, n)."""
    (p_s, inverse_p, share), (p_t, _, _) = (_prototypes(x, labels, classes, epsilon) for x in (s, t))
    total, of_unit = accumulator(s), torch.zeros_like(p_s)
    slope = torch.empty(s.shape[1], dtype=p_s.dtype, device=s.device)
    parts = list(spans(s.shape[1], s.shape[0], s.device))
    for start, stop in parts:
        v_t = _variation(t[:, start:stop], p_t, labels[start:stop])[0]
        v_s, u, _, members = _variation(s[:, start:stop], p_s, labels[start:stop])
        error = v_s - v_t
        total += error.square().sum()
        if gradient is not None:
            slope[start:stop] = 2 * error
            of_unit.addmm_(u * slope[start:stop], members.T)
    if gradient is not None:
        through = pull_back(of_unit, p_s, inverse_p, 0) * share  # what each member gets by way of its prototype
        for start, stop in parts:
            v_s, u, inverse, members = _variation(s[:, start:stop], p_s, labels[start:stop])
            g = slope[start:stop] * inverse[0]
            gradient[:, start:stop] = torch.addmm(through @ members, p_s, members * g).addcmul_(
                u, (g * v_s)[None], value=-1
            )
    return total


def _kernel(
    student: Tensor, teacher: Tensor, labels: Tensor, how: tuple[int, float, float], wanted: bool
) -> tuple[Tensor, Gradients]:
    classes, epsilon, scale = how
    total, into = accumulator(student), gradient_like(student, wanted)
    for image in range(student.shape[0]):
        s, t = (widen(x.detach()[image].flatten(1)) for x in (student, teacher))
        gradient = torch.empty_like(s) if wanted else None
        total += _image(s, t, labels[image].flatten(), classes, epsilon, gradient)
        if into is not None and gradient is not None:
            into.flatten(2)[image] = gradient.mul_(scale)
    return (total * scale).to(widen(student).dtype), None if into is None else (into,)


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
    return _distance(student, teacher, labels, (classes, epsilon, scale))
