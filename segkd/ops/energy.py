"""Attention maps: how much energy a feature map has at each position."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from segkd.ops.blocks import spans
from segkd.ops.precision import full_precision, widen


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        flat = x.flatten(2)
        energy = torch.empty(flat.shape[0], flat.shape[2], dtype=widen(x[:0]).dtype, device=x.device)
        for image in range(flat.shape[0]):
            for start, stop in spans(flat.shape[2], flat.shape[1], x.device):
                energy[image, start:stop] = widen(flat[image, :, start:stop]).square().sum(0)
        return energy

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (x * (2 * upstream).view(x.shape[0], 1, *x.shape[2:])).to(x.dtype)


def channel_energy(x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b n"]:
    """Sum of squares over the channels at each of the n positions, float32 or wider. Keeps nothing but `x` itself."""
    with full_precision(x):
        return _Energy.apply(x)  # type: ignore[no-untyped-call]
