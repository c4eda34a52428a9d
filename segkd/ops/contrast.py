"""Contrast between the vectors of a patch: each against the others of other channel groups, by L1 distance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import PRODUCT, spans
from segkd.ops.formed import Gradients, accumulator, gradient_in_forward, gradient_like
from segkd.ops.precision import widen


class _How(NamedTuple):
    groups: int
    patch: tuple[int, int]
    temperature: float
    scale: float


def to_patches(x: Float[Tensor, "b c h w"], groups: int, patch: tuple[int, int]) -> Float[Tensor, "p r k"]:
    """Vectors of k = c / groups channels, r = positions of a patch * groups of them for each of the p patches.

    Whole patches only: rows and columns beyond the last one are left out. Row n * groups + g: position n, group g.
    """
    images, channels = x.shape[:2]
    high, wide = (side // step for side, step in zip(x.shape[2:], patch, strict=True))
    x = x[:, :, : high * patch[0], : wide * patch[1]]
    x = x.reshape(images, groups, channels // groups, high, patch[0], wide, patch[1]).permute(0, 3, 5, 4, 6, 1, 2)
    return x.reshape(images * high * wide, patch[0] * patch[1] * groups, channels // groups)


def from_patches(rows: Float[Tensor, "p r k"], like: Tensor, groups: int, patch: tuple[int, int]) -> Tensor:
    """Inverse of `to_patches`, zero where it left something out."""
    images, channels = like.shape[:2]
    high, wide = (side // step for side, step in zip(like.shape[2:], patch, strict=True))
    x = rows.view(images, high, wide, *patch, groups, channels // groups).permute(0, 5, 6, 1, 3, 2, 4)
    out = torch.zeros(like.shape, dtype=rows.dtype, device=rows.device)
    out[:, :, : high * patch[0], : wide * patch[1]] = x.reshape(images, channels, high * patch[0], wide * patch[1])
    return out


def _kernel(student: Tensor, teacher: Tensor, how: _How, wanted: bool) -> tuple[Tensor, Gradients]:
    s, t = (to_patches(widen(x.detach()), how.groups, how.patch) for x in (student, teacher))
    count = s.shape[1]
    group = torch.arange(count, device=s.device) % how.groups
    left_out = (group[:, None] == group).fill_diagonal_(False)
    total, slope = accumulator(s), torch.empty_like(s) if wanted else None
    for start, stop in spans(len(s), count * count, s.device, PRODUCT):
        distance = torch.cdist(s[start:stop], t[start:stop], p=1)
        log = (distance / -how.temperature).masked_fill_(left_out, -torch.inf).log_softmax(2)
        total -= log.diagonal(dim1=1, dim2=2).sum(dtype=torch.float64)
        if slope is not None:
            # below -80, exp leaves its fast path, and has nothing to add to any gradient
            of_distance = log.clamp_min_(-80).exp_().mul_(-how.scale / how.temperature)
            of_distance.diagonal(dim1=1, dim2=2).add_(how.scale / how.temperature)
            slope[start:stop] = torch.ops.aten._cdist_backward(of_distance, s[start:stop], t[start:stop], 1.0, distance)
    value = (total * how.scale).to(s.dtype)
    gradient = gradient_like(student, wanted)
    if slope is None or gradient is None:
        return value, None
    gradient.copy_(from_patches(slope, student, how.groups, how.patch))
    return value, (gradient,)


_contrast = gradient_in_forward(_kernel)


def patch_contrast(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c h w"],
    *,
    groups: int,
    patch: tuple[int, int],
    temperature: float,
    scale: float,
) -> Float[Tensor, ""]:
    """scale * sum over rows i of -log(e_ii / (e_ii + sum over j of other groups of e_ij)).

    e_ij = exp(-|s_i - t_j|_1 / T), L1 distance over channels.
    Rows: vectors of c / groups channels, compared within patches of (height, width) positions; see `to_patches`.
    Kept for backward: one tensor of the student's size.
    """
    return _contrast(student, teacher, _How(groups, patch, temperature, scale))
