"""What several processes share; with one process, and without a process group, nothing happens."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gathered(x: Tensor) -> Tensor:
    """The tensors of all processes along dim 0, in the order of their ranks; `x` itself where there is one process.

    No gradient. Shapes must agree between the processes.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)
