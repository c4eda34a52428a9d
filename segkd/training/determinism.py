"""`determinism: strict | fast`: whether two runs of one configuration on one GPU end in the same bits.

On a CPU both do. On a GPU `fast` takes the fastest kernels, some of which add up in the order in which threads arrive.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

Mode = Literal["strict", "fast"]
WORKSPACES = (":4096:8", ":16:8")  # cuBLAS is deterministic with these only (NVIDIA: cuBLAS, section 2.1.4)


def enforce(mode: Mode) -> None:
    """Set this process to a mode; before the first CUDA kernel, because cuBLAS reads its setting only once.

    strict: an operation that has no deterministic kernel raises RuntimeError instead of running; no kernel is chosen by
    timing; float32 products and convolutions are float32 (no TF32). fast: PyTorch's defaults.
    """
    strict = mode == "strict"
    if strict and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in WORKSPACES:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACES[0]
    torch.use_deterministic_algorithms(strict)
    # true would only fill new memory with NaN, to show who reads it unwritten: a test does that, a run need not
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = strict
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = not strict
    torch.backends.cuda.matmul.allow_tf32 = False


def settings() -> dict[str, Any]:
    """What holds in this process, as run.json says it."""
    strict = torch.are_deterministic_algorithms_enabled()
    return {
        "mode": "strict" if strict else "fast",
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": {"convolutions": torch.backends.cudnn.allow_tf32, "products": torch.backends.cuda.matmul.allow_tf32},
    }
