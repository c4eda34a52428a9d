"""Boundary IoU: intersection over union of what lies near the contours (Cheng et al., CVPR 2021, equation 4)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from segkd.data.prepared import IGNORE

RATIO = 0.02


def thickness(height: int, width: int, ratio: float = RATIO) -> int:
    """Width of the boundary region in pixels: `ratio` of the image's diagonal, rounded, at least 1."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary_region(ids: UInt8[Tensor, "b h w"], distance: int) -> Bool[Tensor, "b h w"]:
    """Pixels of ANY class within `distance` (chessboard metric) of a pixel of another id or of the image's outside.

    Equals, for every class at once, its mask minus the mask eroded `distance` times by 3 x 3 with zeros outside, as in
    the authors' definition: a pixel survives the erosion exactly if its whole window holds its own id, that is if the
    window's least and greatest ids agree.
    """
    height, width = ids.shape[-2:]
    window = 2 * distance + 1
    region = torch.ones_like(ids, dtype=torch.bool)
    if height >= window and width >= window:
        least, greatest = ids, ids
        for axis in (-1, -2):
            least = _running(torch.minimum, least, window, axis)
            greatest = _running(torch.maximum, greatest, window, axis)
        region[:, distance : height - distance, distance : width - distance] = least != greatest
    return region


def _running(extreme: Callable[[Tensor, Tensor], Tensor], ids: Tensor, window: int, axis: int) -> Tensor:
    """Least or greatest of every `window` neighbours along an axis, by doubling: log2(window) passes."""
    length, reach = ids.shape[axis], 1
    while reach < window:
        step = min(reach, window - reach)
        rest = length - reach + 1 - step  # entries that have a neighbour `step` further on
        ids = extreme(ids.narrow(axis, 0, rest), ids.narrow(axis, step, rest))
        reach += step
    return ids


def boundary_sums(
    prediction: UInt8[Tensor, "b h w"], label: UInt8[Tensor, "b h w"], classes: int, ratio: float = RATIO
) -> Int64[Tensor, "2 classes"]:
    """Pixels per class in the intersection (row 0) and the union (row 1) of the two boundary regions.

    Ignored pixels belong to no class in label and prediction, so their rim is a contour of both.
    Sums add up over images.
    """
    prediction = torch.where(label == IGNORE, IGNORE, prediction)
    distance = thickness(label.shape[-2], label.shape[-1], ratio)
    near_label = torch.where(boundary_region(label, distance), label, IGNORE)
    near_prediction = torch.where(boundary_region(prediction, distance), prediction, IGNORE)
    both = torch.where(near_label == near_prediction, near_label, IGNORE)
    shared, labelled, predicted = (
        torch.bincount(ids.flatten(), minlength=256)[:classes] for ids in (both, near_label, near_prediction)
    )
    return torch.stack((shared, labelled + predicted - shared))


def boundary_iou(sums: Int64[Tensor, "2 classes"]) -> Float[Tensor, " classes"]:
    """Boundary IoU per class, fractions, NaN where the union is empty."""
    intersection, union = sums.to("cpu", torch.float64)
    return intersection / union
