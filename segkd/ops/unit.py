"""Unit vectors with a gradient of zero, not of 1e12, where there is no direction."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.precision import full_precision, widen

EPSILON = 1e-12


def split(x: Tensor, dim: int, epsilon: float = EPSILON) -> tuple[Tensor, Tensor]:
    """(u, inverse): u = x / max(||x||, epsilon) along `dim`; inverse = 1 / ||x||, but 0 where ||x|| < epsilon.

    `inverse` keeps `dim` with size 1 and is what `pull_back` needs. float32 or wider; not differentiable.
    """
    x = widen(x)
    norm = x.square().sum(dim, keepdim=True).sqrt_()  # twice as fast as vector_norm on blocks
    return x / norm.clamp_min(epsilon), norm.reciprocal().masked_fill_(norm < epsilon, 0.0)


def pull_back(gradient: Tensor, u: Tensor, inverse: Tensor, dim: int) -> Tensor:
    """d loss / d x from d loss / d u, where (u, inverse) = split(x, dim): inverse * (g - u (u . g))."""
    return (gradient - u * (u * gradient).sum(dim, keepdim=True)).mul_(inverse)


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        u, inverse = split(x, dim)
        ctx.save_for_backward(u, inverse)
        ctx.dim, ctx.narrow = dim, x.dtype
        return u

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        u, inverse = ctx.saved_tensors
        return pull_back(upstream, u, inverse, ctx.dim).to(ctx.narrow), None


def unit(x: Float[Tensor, "*shape"], dim: int = 1) -> Float[Tensor, "*shape"]:
    """x / max(||x||_2, 1e-12) along `dim`, float32 or wider; its gradient is 0 where ||x|| < 1e-12."""
    with full_precision(x):
        return _Unit.apply(x, dim)  # type: ignore[no-untyped-call]
