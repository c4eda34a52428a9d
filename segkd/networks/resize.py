"""Bilinear resizing as the papers' code does it; under `determinism: strict` by products with two small matrices."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]


def upsample(x: Float[Tensor, "b c h w"], size: Size) -> Float[Tensor, "b c height width"]:
    """Bilinear interpolation to (height, width), corners aligned, so that corner pixels keep their values."""
    return bilinear(x, size, align_corners=True)


def bilinear(x: Float[Tensor, "b c h w"], size: Size, *, align_corners: bool) -> Float[Tensor, "b c height width"]:
    """Bilinear interpolation to (height, width) by the kernel that the recipe's `determinism` asks for.

    A map that already has the size is returned as it is, not copied.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if torch.are_deterministic_algorithms_enabled() and not x.is_meta:  # a network's FLOPs are the same in both modes
        return by_products(x, size, align_corners=align_corners)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def by_products(x: Float[Tensor, "b c h w"], size: Size, *, align_corners: bool) -> Float[Tensor, "b c height width"]:
    """F.interpolate as R x C^T, one matrix along the height and one along the width; so is its gradient, R^T g C.

    Equal to F.interpolate within 1e-6 of the largest value, forward and backward. On CUDA the gradient of F.interpolate
    is summed in whatever order threads arrive; that of a matrix product is not. In float32 also for narrower `x`. A
    value that is not finite spreads over its row and column, not over its neighbours only.
    """
    with torch.autocast(x.device.type, enabled=False):
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        rows, columns = (interpolation(*sides, wide, align_corners) for sides in zip(x.shape[-2:], size, strict=True))
        return (rows @ (wide @ columns.T)).to(x.dtype)


def by_products_transposed(
    gradient: Float[Tensor, "b c height width"], size: Size, *, align_corners: bool
) -> Float[Tensor, "b c h w"]:
    """d loss / d x from d loss / d by_products(x, ...), for an x of (h, w) = size."""
    large = gradient.shape[-2:]
    rows, columns = (interpolation(*sides, gradient, align_corners) for sides in zip(size, large, strict=True))
    return (rows.T @ gradient) @ columns


def interpolation(into: int, out: int, like: Tensor, align_corners: bool) -> Float[Tensor, "out into"]:
    """Row i holds the weights of linear interpolation at output pixel i: at most two of them are not zero.

    In the dtype and on the device of `like`; coordinates are rounded as F.interpolate's kernels round them, for 1e-6 at
    coordinate 100 is finer than float32 is there.
    """
    place = torch.arange(out, dtype=torch.float64, device=like.device)
    if align_corners:
        at = place * _rounded((into - 1) / max(1, out - 1), like.dtype)
    else:
        at = (place + 0.5) * _rounded(into / out, like.dtype) - 0.5  # one rounding for both: a fused multiply-add
    at = at.to(like.dtype).clamp(0, into - 1)
    pixel = torch.arange(into, dtype=like.dtype, device=like.device)
    return (1 - (at[:, None] - pixel).abs()).clamp_min_(0)


def _rounded(number: float, dtype: torch.dtype) -> float:
    return number if dtype == torch.float64 else float(np.float32(number))
