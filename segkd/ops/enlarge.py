"""Bilinear enlargement (corners aligned) of one map inside a kernel, and its transpose: gradients stay at map size."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.networks.resize import by_products_transposed
from segkd.ops.precision import widen
from segkd.ops.shapes import bilinear


def enlarged(x: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c i j"]:
    """One image's map at (height, width), float32 or wider, detached."""
    return bilinear(widen(x.detach())[None], size)[0]


def reduced(gradient: Float[Tensor, "c i j"], size: tuple[int, int]) -> Float[Tensor, "c h w"]:
    """d loss / d x from d loss / d enlarged(x, ...), for an x of (height, width) = size: the transposed operator."""
    if tuple(gradient.shape[-2:]) == tuple(size):
        return gradient
    if torch.are_deterministic_algorithms_enabled():
        return by_products_transposed(gradient, size, align_corners=True)
    channels, *large = gradient.shape
    return torch.ops.aten.upsample_bilinear2d_backward(
        gradient[None].contiguous(), large, [1, channels, *size], True, None, None
    )[0]
