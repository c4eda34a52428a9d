"""Losses whose gradient is formed in the forward pass: one tensor of the student's size is kept, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segkd.ops.precision import full_precision

Kernel = Callable[..., tuple[Tensor, Tensor | None]]


def gradient_in_forward(kernel: Kernel) -> Callable[..., Tensor]:
    """Make `kernel(student, *rest, wanted) -> (scalar, gradient or None)` a function differentiable in `student` alone.

    The kernel runs without autograd and without autocast. It returns d scalar / d student, in the student's dtype,
    where `wanted` is true. Every other argument (the teacher above all) gets no gradient.
    """

    class Formed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, student: Tensor, *rest: Any) -> Tensor:
            value, gradient = kernel(student, *rest, ctx.needs_input_grad[0])
            ctx.others = len(rest)
            if gradient is not None:
                ctx.save_for_backward(gradient)
            return value

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            (gradient,) = ctx.saved_tensors
            return (gradient * upstream.to(gradient.dtype), *(None for _ in range(ctx.others)))

    def loss(student: Tensor, *rest: Any) -> Tensor:
        with full_precision(student):
            return Formed.apply(student, *rest)  # type: ignore[no-untyped-call]

    return loss
