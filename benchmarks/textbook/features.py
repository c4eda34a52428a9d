"""Losses that compare feature maps (B, C, H, W) position by position."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.textbook import logits

Maps = Sequence[Tensor]


def fitnet(s: Tensor, t: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error after a 1x1 convolution (FitNets, equation 3)."""
    return F.mse_loss(F.conv2d(s, weight), t)


def cwd(s: Tensor, t: Tensor, weight: Tensor) -> Tensor:
    """CWD of the embedding after a 1x1 convolution."""
    return logits.cwd(F.conv2d(s, weight), t)


def _attention(x: Tensor) -> Tensor:
    return F.normalize((x**2).mean(1).flatten(1), dim=1)


def at(s: Tensor, t: Tensor) -> Tensor:
    """Mean squared difference of attention maps (AT, equation 2, p = 2)."""
    return F.mse_loss(_attention(s), _attention(t))


def ka_adaptation(s: Tensor, t: Tensor) -> Tensor:
    """L1 distance of directions, mean over positions (KA, L_adapt)."""
    return (F.normalize(s, dim=1) - F.normalize(t, dim=1)).abs().sum(1).mean()


def psd(student: Maps, teacher: Maps) -> Tensor:
    """Squared distance of attention residuals between adjacent layers (DSD, section III-B)."""

    def residual(first: Tensor, second: Tensor, size: list[int]) -> Tensor:
        small = (F.interpolate((x**2).sum(1, keepdim=True), size, mode="bilinear") for x in (first, second))
        a, b = (F.normalize(x.flatten(1), dim=1) for x in small)
        return F.normalize(b - a, dim=1, eps=1e-4)

    losses = []
    for (s0, s1), (t0, t1) in zip(pairwise(student), pairwise(teacher), strict=True):
        size = [min(x.shape[axis] for x in (s0, s1, t0, t1)) for axis in (2, 3)]
        losses.append(((residual(s0, s1, size) - residual(t0, t1, size)) ** 2).sum(1).mean())
    return torch.stack(losses).mean()


def psd_released(student: Maps, teacher: Maps) -> Tensor:
    """The same of all pairs, mean over positions."""
    a_s, a_t = ([_attention(x) for x in maps] for maps in (student, teacher))
    losses = [
        F.mse_loss(F.normalize(s1 - s0, dim=1), F.normalize(t1 - t0, dim=1))
        for (s0, s1), (t0, t1) in zip(combinations(a_s, 2), combinations(a_t, 2), strict=True)
    ]
    return torch.stack(losses).mean()


def attnfd(s: Tensor, t: Tensor) -> Tensor:
    """Squared distance of directions, mean over positions, of one refined map (AttnFD, section 3.3)."""
    return ((F.normalize(s, dim=1) - F.normalize(t, dim=1)) ** 2).sum(1).mean()


def attnfd_released(s: Tensor, t: Tensor) -> Tensor:
    """The same with one norm over the whole tensor."""
    return ((s / s.norm() - t / t.norm()) ** 2).sum() / len(s)


def overhaul(s: Tensor, t: Tensor, margin: Tensor) -> Tensor:
    """Partial L2 distance to the margin ReLU of the teacher's map (Overhaul, equations 2 and 3)."""
    target = torch.maximum(t, margin[None, :, None, None])
    return ((s - target) ** 2 * ((s > target) | (target > 0))).sum() / len(s)


def mgd(s: Tensor, t: Tensor) -> Tensor:
    """Sum of squares / B of the generated feature (MGD, equation 4)."""
    return F.mse_loss(s, t, reduction="sum") / len(s)
