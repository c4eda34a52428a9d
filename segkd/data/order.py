"""Which images make up which batch: a pure function of (seed, epoch, index); neither a resume nor workers change it.

An epoch is a permutation of the split, cut into floor(n / batch) full batches (at least one); the rest of the
permutation is left out of that epoch. A split smaller than a batch is repeated to fill it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64
from numpy.random import Generator, SeedSequence, default_rng

_ORDER, _AUGMENTATION = 0, 1  # spawn keys: the two kinds of draws never share a stream


def order(seed: int, epoch: int, n: int) -> Int64[np.ndarray, " n"]:
    """Permutation of 0..n-1 for one epoch."""
    return default_rng(SeedSequence((seed, epoch), spawn_key=(_ORDER,))).permutation(n)


def sample_rng(seed: int, epoch: int, index: int, repeat: int = 0) -> Generator:
    """Generator of one image's augmentation; `repeat` counts the image's earlier places in the same epoch."""
    return default_rng(SeedSequence((seed, epoch, index, repeat), spawn_key=(_AUGMENTATION,)))


def batches_per_epoch(batch: int, n: int) -> int:
    """floor(n / batch), at least 1."""
    if batch < 1 or n < 1:
        raise ValueError(f"expected batch >= 1 and n >= 1 images, got batch {batch} and n {n}")
    return max(1, n // batch)


def position(iteration: int, batch: int, n: int) -> tuple[int, int]:
    """(epoch, cursor) of an iteration, counted from 0; cursor = places of the epoch's permutation already used."""
    epoch, step = divmod(iteration, batches_per_epoch(batch, n))
    return epoch, step * batch


def places(seed: int, iteration: int, batch: int, n: int) -> list[tuple[int, int]]:
    """(index, repeat) of each image of one batch; repeat > 0 only where the split is smaller than the batch."""
    epoch, cursor = position(iteration, batch, n)
    permutation = order(seed, epoch, n)
    return [(int(permutation[place % n]), place // n) for place in range(cursor, cursor + batch)]
