"""How large a block of work is: large enough to be quick, small enough to stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch

ELEMENTWISE = 1 << 16  # 256 KiB of float32: a few such blocks fit the second-level cache of one core
PRODUCT = 1 << 20  # matrix products need longer blocks to be worth their set-up
ROWS = 1 << 19  # softmax rows on top of matrix products: several blocks are alive at once
DEVICE = 1 << 25  # accelerators want few, large kernels


def spans(rows: int, row_elements: int, device: torch.device, elements: int = ELEMENTWISE) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive blocks of rows, each of about `elements` elements, or more on an accelerator."""
    size = max(1, (elements if device.type == "cpu" else DEVICE) // max(1, row_elements))
    for start in range(0, rows, size):
        yield start, min(rows, start + size)
