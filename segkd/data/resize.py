"""Resize a window of an image or label without touching the rest of it, image and label on one geometry.

Both use pixel centres: output x lies at (x + 1/2) * source / target of the source. Images: bilinear, widened on
reduction (PIL's antialiasing); rarely one, at most two grey levels from resizing the whole image and cropping, since
PIL keeps the box as float32. Labels: nearest in integer arithmetic, exactly equal to resizing the whole and cropping.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

Size = tuple[int, int]  # height, width
Window = tuple[int, int, int, int]  # top, left, height, width within the resized image


def scaled_size(size: Size, factor: float) -> Size:
    """(height, width) times a factor, rounded, at least one pixel."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resize_image(
    image: UInt8[np.ndarray, "H W 3"], size: Size, window: Window | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """The window (default: all) of `image` resized bilinearly to `size`; reads only the pixels that it needs."""
    top, left, height, width = window or (0, 0, *size)
    if size == image.shape[:2]:
        return np.ascontiguousarray(image[top : top + height, left : left + width])
    rows, upper, lower = _support(image.shape[0], size[0], top, height)
    columns, first, last = _support(image.shape[1], size[1], left, width)
    region = Image.fromarray(np.ascontiguousarray(image[rows, columns]))
    return np.asarray(
        region.resize((width, height), Image.Resampling.BILINEAR, box=(first, upper, last, lower)), dtype=np.uint8
    )


def resize_label(label: UInt8[np.ndarray, "H W"], size: Size, window: Window | None = None) -> UInt8[np.ndarray, "h w"]:
    """The window (default: all) of `label` resized to `size` by nearest neighbour: no value that was not there."""
    top, left, height, width = window or (0, 0, *size)
    if size == label.shape:
        return np.ascontiguousarray(label[top : top + height, left : left + width])
    rows = _nearest(label.shape[0], size[0], top, height)
    columns = _nearest(label.shape[1], size[1], left, width)
    region = label[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.take(region[rows - rows[0]], columns - columns[0], axis=1)  # a quarter of the time of both at once


def _nearest(source: int, target: int, start: int, length: int) -> Int64[np.ndarray, " length"]:
    """floor((x + 1/2) * source / target) for x in [start, start + length), without rounding errors."""
    return (2 * np.arange(start, start + length, dtype=np.int64) + 1) * source // (2 * target)


def _support(source: int, target: int, start: int, length: int) -> tuple[slice, float, float]:
    """Source pixels under the filter for outputs [start, start + length), and the box's ends within them."""
    ratio = source / target
    low, high = start * source / target, (start + length) * source / target
    margin = max(1.0, ratio) + 1  # half-width of the triangle filter, and one pixel for PIL's float32 box
    first, last = max(0, math.floor(low - margin)), min(source, math.ceil(high + margin))
    return slice(first, last), low - first, min(high, source) - first
