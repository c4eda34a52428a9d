"""Statistics over images and seeds: intervals of scores and gains, correction for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Num
from numpy.typing import ArrayLike

from segkd.errors import DataError, explain
from segkd.evaluation.confusion import Absent, require_classes

Interval = tuple[float, float, float]  # estimate, low, high
Array = Num[np.ndarray, "n classes"]
Sums = tuple[Array, Array, Array]  # pixels per image and class: intersection, label, prediction (`PerImage.sums`)


def miou_from_sums(
    intersection: Num[np.ndarray, "*n classes"],
    label: Num[np.ndarray, "*n classes"],
    prediction: Num[np.ndarray, "*n classes"],
    absent: Absent = "nan",
) -> Float64[np.ndarray, "*n"]:
    """mIoU (fractions) from pixel sums per class; the last axis is reduced, sum over images first.

    The same as `confusion.scores(...).miou`: classes with an empty union are left out ("nan") or count as 0 ("zero"; a
    number: and the sum is divided by it).
    """
    union = np.asarray(label + prediction - intersection, np.float64)
    present = union > 0
    iou = np.where(present, intersection, 0) / np.where(present, union, 1)
    if isinstance(absent, int):
        require_classes(union.shape[-1], absent)
    whole = absent if isinstance(absent, int) else union.shape[-1]
    classes = present.sum(-1) if absent == "nan" else np.where(present.any(-1), whole, 0)
    return np.where(classes > 0, iou.sum(-1) / np.maximum(classes, 1), np.nan)


def paired_gain_interval(
    student: Sequence[Sums],
    baseline: Sequence[Sums],
    resamples: int = 2000,
    seed: int = 0,
    *,
    confidence: float = 0.95,
    absent: Absent = "nan",
) -> Interval:
    """Gain in mIoU of `student` over `baseline`, mean over seeds, with its bootstrap percentile interval (fractions).

    student[s] and baseline[s] are the per-image sums of the runs with seed s: seeds are paired. One resample draws
    images with replacement, the same for every run, since all are scored on the same images, and independently draws
    seeds with replacement; the gain is the mean over the drawn seeds of the difference of the two runs' mIoU, each over
    all drawn images (never a mean of per-image IoU). This is the crossed ("pigeonhole") bootstrap of Owen, Annals of
    Applied Statistics 2007, which errs to wide intervals in images and, with few seeds, to narrow ones in seeds. With
    one seed the interval covers the choice of images alone.
    """
    _check_pairs(student, baseline)
    runs = [run for pair in zip(student, baseline, strict=True) for run in pair]
    sums = np.stack([np.asarray(run, np.float64) for run in runs], axis=1)
    parts, count, images, classes = sums.shape  # (3, 2 S, N, C), runs alternating student, baseline
    table = sums.transpose(2, 0, 1, 3).reshape(images, -1)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)
    weights = rng.multinomial(len(student), np.full(len(student), 1 / len(student)), size=resamples) / len(student)

    def gains(draws: Float64[np.ndarray, "r n"]) -> Float64[np.ndarray, "r s"]:
        totals = (draws @ table).reshape(len(draws), parts, count, classes)
        scores = miou_from_sums(totals[:, 0], totals[:, 1], totals[:, 2], absent)
        return scores[:, 0::2] - scores[:, 1::2]

    tail = (1 - confidence) / 2
    low, high = np.nanquantile((gains(drawn) * weights).sum(1), [tail, 1 - tail])
    return float(gains(np.ones((1, images))).mean()), float(low), float(high)


def _check_pairs(student: Sequence[Sums], baseline: Sequence[Sums]) -> None:
    """As many baselines as students, over one set of images and classes. Whether ids agree is the caller's to see."""
    shapes = sorted({array.shape for run in (*student, *baseline) for array in run})
    if not len(student) == len(baseline) > 0 or len(shapes) != 1 or shapes[0][0] == 0:
        raise DataError(
            explain(
                "These runs cannot be compared pair by pair.",
                expected="as many runs of each, scored on the same images in the same order",
                found=f"{len(student)} and {len(baseline)} runs, (images, classes) {shapes}",
                where="paired_gain_interval",
                fix="compare runs of one recipe, seed by seed, and evaluate those again that are older than the data",
            )
        )


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of independent values (one per seed) with Student's t interval; its ends are NaN for fewer than two."""
    from scipy import stats

    sample = np.asarray(values, np.float64)
    if len(sample) < 2:
        return float(sample.mean()) if len(sample) else math.nan, math.nan, math.nan
    half = stats.t.ppf((1 + confidence) / 2, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample))
    return float(sample.mean()), float(sample.mean() - half), float(sample.mean() + half)


def holm(pvalues: ArrayLike) -> Float64[np.ndarray, " n"]:
    """p-values adjusted for their number by Holm's step-down rule (1979), in the order given; reject where <= alpha."""
    values = np.asarray(pvalues, np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted
