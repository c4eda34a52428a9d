"""Losses compute in float32 or wider, whatever the networks computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """The tensor in float32 where it is narrower (bfloat16, float16), itself otherwise."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def full_precision(x: Tensor) -> torch.autocast:
    """Context in which autocast does not narrow matrix products on the device of `x`."""
    return torch.autocast(x.device.type, enabled=False)
