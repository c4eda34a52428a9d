"""Expected calibration error of pixels: does a network that says 80 % hit 80 % (Guo et al., ICML 2017, equation 5)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from segkd.data.prepared import IGNORE

BINS = 15
_FINE = 4096
LEVELS = BINS * _FINE  # confidences are counted in levels of 1/61440: integers only, so that sums merge exactly


def confidence_histogram(
    confidence: Float[Tensor, "*shape"], prediction: UInt8[Tensor, "*shape"], label: UInt8[Tensor, "*shape"]
) -> Int64[Tensor, "levels 2"]:
    """Pixels per level of the greatest softmax probability, wrong (column 0) and right (column 1).

    Pixels labelled 255 are left out. Histograms add up over images; a level's width bounds the error of any score
    made from them by 1/122880.
    """
    level = (confidence * LEVELS).to(torch.int32).clamp_(0, LEVELS - 1)
    index = torch.where(label == IGNORE, 2 * LEVELS, 2 * level + (prediction == label))
    return torch.bincount(index.flatten(), minlength=2 * LEVELS + 1)[: 2 * LEVELS].view(LEVELS, 2)


class Reliability(NamedTuple):
    """Per bin of confidence: mean confidence and accuracy (NaN in empty bins), and pixels."""

    confidence: Float[Tensor, " bins"]
    accuracy: Float[Tensor, " bins"]
    pixels: Int64[Tensor, " bins"]


def reliability(histogram: Int64[Tensor, "levels 2"]) -> Reliability:
    """The reliability diagram in 15 bins [k/15, (k+1)/15) of equal width, the last one closed."""
    counts = histogram.to("cpu").view(BINS, _FINE, 2)
    pixels = counts.sum((1, 2))
    middle = (torch.arange(LEVELS, dtype=torch.float64) + 0.5).view(BINS, _FINE) / LEVELS
    said = (counts.sum(2) * middle).sum(1)
    return Reliability(said / pixels, counts[..., 1].sum(1) / pixels.to(torch.float64), pixels)


def expected_calibration_error(histogram: Int64[Tensor, "levels 2"]) -> float:
    """Mean over pixels of |accuracy - confidence| of their bin, fraction; NaN without pixels."""
    said, hit, pixels = reliability(histogram)
    total = int(pixels.sum())
    return float(((said - hit).abs().nan_to_num() * pixels).sum()) / total if total else math.nan
