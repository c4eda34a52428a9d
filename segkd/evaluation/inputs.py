"""From a split's stored images to batches that a network reads, and at which size it is scored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from segkd.config.recipe import Recipe
from segkd.data.prepared import Split
from segkd.data.resize import Size, resize_image, resize_label, scaled_size

Device = torch.device | str


class Batch(NamedTuple):
    """Equally large images at network input size, and labels at the size they are scored at, on the device."""

    indices: tuple[int, ...]
    images: UInt8[Tensor, "b 3 h w"]
    labels: UInt8[Tensor, "b H W"]


def scored_size(size: Size, recipe: Recipe) -> Size:
    """(height, width) at which an image of `size` is scored: its own, or with the short side that the recipe names."""
    short = recipe.evaluation.short_side
    return size if short is None else scaled_size(size, short / min(size))


def input_size(size: Size, recipe: Recipe) -> Size:
    """(height, width) that the network reads for an image of `size`: the scored size times `input_scale`."""
    return scaled_size(scored_size(size, recipe), recipe.input_scale)


def load(split: Split, indices: tuple[int, ...], recipe: Recipe, device: Device) -> Batch:
    """Images of one size as a batch on the device."""
    size = split.size(indices[0])
    inner, outer = input_size(size, recipe), scored_size(size, recipe)
    images = np.stack([resize_image(split.image(index), inner) for index in indices])
    labels = np.stack([resize_label(split.label(index), outer) for index in indices])
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(device)
    return Batch(indices, pixels, torch.from_numpy(labels).to(device))


def batches(split: Split, recipe: Recipe, device: Device) -> Iterator[Batch]:
    """The whole split in order; up to `evaluation.batch` neighbours of equal size share a batch."""
    for indices in _neighbours(split, recipe.evaluation.batch):
        yield load(split, indices, recipe, device)


def _neighbours(split: Split, most: int) -> Iterator[tuple[int, ...]]:
    """Runs of consecutive indices whose images have one size, at most `most` long."""
    start = 0
    for index in range(1, len(split) + 1):
        if index == len(split) or index - start == most or split.size(index) != split.size(start):
            yield tuple(range(start, index))
            start = index
