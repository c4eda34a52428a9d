"""A memory of unit vectors per class: rings that are filled from a batch without a loop over classes."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from segkd.ops.prototypes import class_sums
from segkd.ops.unit import split

Pick = Literal["own", "first"]


class Ring(nn.Module):
    """`size` vectors for each class, the oldest overwritten first. A buffer: saved with the training state.

    wrap "modulo": writing goes on at slot 0 after the last; slots never written hold nothing. wrap "reset" (released
    code of CIRKD): rows that would reach the end go to the last slots, and the pointer returns to 0; slots never
    written hold random unit vectors, and count as written.
    """

    entries: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, classes: int, size: int, channels: int, wrap: Literal["modulo", "reset"] = "modulo") -> None:
        super().__init__()
        start = torch.zeros(classes, size, channels)
        if wrap == "reset":
            start = split(torch.randn(classes, size, channels), 2)[0]
        self.wrap, self.size = wrap, size
        self.register_buffer("entries", start)
        self.register_buffer("pointer", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("filled", torch.full((classes,), size if wrap == "reset" else 0, dtype=torch.int64))

    def write(self, rows: Float[Tensor, "c k d"], count: Int[Tensor, " c"]) -> None:
        """Append the first `count[c]` of k rows to the ring of each class c; k <= size."""
        at = torch.arange(rows.shape[1], device=rows.device)
        if self.wrap == "modulo":
            first, after = self.pointer, (self.pointer + count) % self.size
        else:
            ends = self.pointer + count >= self.size
            first = torch.where(ends, self.size - count, self.pointer)
            after = torch.where(ends, 0, self.pointer + count)
        slots = ((first[:, None] + at) % self.size)[:, :, None].expand_as(rows)
        written = (at < count[:, None])[:, :, None]
        kept = self.entries.gather(1, slots)
        self.entries.scatter_(1, slots, torch.where(written, rows.to(kept.dtype), kept))
        self.pointer.copy_(torch.where(count > 0, after, self.pointer))
        self.filled.copy_((self.filled + count).clamp_max(self.size))

    def draw(
        self, count: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "k d"], Bool[Tensor, " k"]]:
        """(rows, written) of the same random slots of every class, class after class; k = classes * min(count, size).

        The slots are drawn without repetition from the first M, M = the fullest class's number of written slots; where
        count > M, and where a class has not written a slot, `written` is false.
        """
        count = min(count, self.size)
        device = self.entries.device
        order = sent(torch.randperm(self.size, generator=generator), device)
        below = order < self.filled.amax()
        slots = order[torch.argsort(below.logical_not().int(), stable=True)[:count]]
        written = (slots < self.filled[:, None]).flatten()
        return self.entries[:, slots].flatten(0, 1), written


def choose(
    labels: Int[Tensor, "b n"], classes: int, count: int, pick: Pick = "own", generator: torch.Generator | None = None
) -> tuple[Int[Tensor, "b c k"], Int[Tensor, "b c"]]:
    """(positions, numbers) of min(n_class, count) different random positions per image and class.

    pick "own": positions of that class. pick "first" (CIRKD's released code): positions among the first n_class of the
    image in raster order, whatever their class. Entries beyond `numbers` are to be ignored. `k` = min(count, n).
    """
    images, n = labels.shape
    device, count = labels.device, min(count, n)
    valid = (labels >= 0) & (labels < classes)
    segment = torch.where(valid, labels, classes) + (classes + 1) * torch.arange(images, device=device)[:, None]
    flat = segment.flatten()
    sizes = torch.zeros(images * (classes + 1), dtype=torch.int64, device=device).index_add_(
        0, flat, torch.ones_like(flat)
    )
    starts = sizes.cumsum(0) - sizes
    shuffled = sent(torch.randperm(images * n, generator=generator), device)
    order = shuffled[torch.argsort(flat[shuffled], stable=True)]  # by image and class, at random within
    if pick == "first":
        raster = torch.empty_like(order)
        raster[torch.argsort(flat, stable=True)] = torch.arange(images * n, device=device)
        order = raster[order] - starts[flat[order]]  # how many pixels of its class come before it
    at = starts.view(images, classes + 1)[:, :classes, None] + torch.arange(count, device=device)
    positions = order[at.clamp_max(images * n - 1)] % n
    return positions, sizes.view(images, classes + 1)[:, :classes].clamp_max(count)


def sent(drawn: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device, without waiting until it has arrived there."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def region_means(
    unit: Float[Tensor, "b d n"], labels: Int[Tensor, "b n"], classes: int
) -> tuple[Float[Tensor, "b c d"], Bool[Tensor, "b c"]]:
    """(norm of the mean of each class's unit features, whether the class is present) per image."""
    both = [class_sums(feature, label, classes) for feature, label in zip(unit, labels, strict=True)]
    sums, counts = (torch.stack(part) for part in zip(*both, strict=True))
    means = sums / counts.clamp_min(1)[:, None]
    return split(means, 1)[0].transpose(1, 2), counts > 0
