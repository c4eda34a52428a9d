"""What several processes share; with one process, and without a process group, nothing happens."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Int, Shaped
from torch import Tensor


def processes() -> int:
    """Number of processes that train this run together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(x: Tensor) -> Tensor:
    """The tensors of all processes along dim 0, in the order of their ranks; `x` itself where there is one process.

    No gradient. Shapes must agree between the processes.
    """
    if processes() == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(processes())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def divisor(count: Int[Tensor, ""]) -> Shaped[Tensor, ""]:
    """What a process divides a sum over `count` elements by, so that the processes' mean is the mean over all elements.

    That is the processes' mean count, where there is any element at all. One process: the count, at least 1.
    """
    if processes() == 1:
        return count.clamp(min=1)
    return gathered(count.reshape(1)).sum().clamp(min=1) / processes()
