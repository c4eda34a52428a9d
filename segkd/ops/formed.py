"""Losses whose gradient is formed in the forward pass: tensors of the size of the inputs are kept, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segkd.ops.precision import full_precision

Gradients = tuple[Tensor, ...] | None
Kernel = Callable[..., tuple[Tensor, Gradients]]


def _last_use() -> bool:
    """Whether the graph is dropped after this backward pass, so that what was kept for it may be overwritten."""
    if torch.compiler.is_compiling():
        return False
    keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return keeps_graph is not None and not keeps_graph()


def gradient_in_forward(kernel: Kernel, inputs: int = 1) -> Callable[..., Tensor]:
    """Make `kernel(*arguments, wanted) -> (scalar, gradients)` differentiable in its first `inputs` arguments.

    The kernel runs without autograd and without autocast. Where `wanted` is true it returns d scalar / d input for
    each of those arguments, in their dtypes; else it may return None. All other arguments (the teacher above all)
    get no gradient.
    """

    class Formed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> Tensor:
            value, gradients = kernel(*arguments, any(ctx.needs_input_grad[:inputs]))
            ctx.others = len(arguments) - inputs
            ctx.save_for_backward(*(gradients or ()))
            return value

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            scale = torch.Tensor.mul_ if _last_use() else torch.mul
            formed = (scale(gradient, upstream.to(gradient.dtype)) for gradient in ctx.saved_tensors)
            return (*formed, *(None for _ in range(ctx.others)))

    def loss(*arguments: Any) -> Tensor:
        with full_precision(arguments[0]):
            return Formed.apply(*arguments)  # type: ignore[no-untyped-call]

    return loss


def gradient_like(x: Tensor, wanted: bool) -> Tensor | None:
    """An empty, contiguous tensor for the gradient of `x`, or None where none is wanted."""
    return torch.empty_like(x, memory_format=torch.contiguous_format) if wanted else None


def accumulator(x: Tensor) -> Tensor:
    """A float64 zero on the device of `x`: sums over millions of float32 terms lose digits otherwise."""
    return torch.zeros((), dtype=torch.float64, device=x.device)
