"""One integer confusion matrix over a whole split, and every score that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from segkd.data.prepared import IGNORE
from segkd.errors import DataError, explain

MOST_CLASSES = 255  # ids are bytes, and 255 is ignored
Absent = Literal["nan", "zero"] | int  # what a mean over classes makes of absent ones; see `class_mean`


def confusion(
    prediction: Integer[Tensor, "*shape"], label: Integer[Tensor, "*shape"], classes: int
) -> Int64[Tensor, "classes classes"]:
    """Count pixels per (label, predicted class); rows = label, columns = prediction.

    Pixels labelled 255 are removed from label AND prediction, whatever is predicted there. DataError where a remaining
    label or prediction is no class id, or the shapes differ. Lives on the device of its inputs; adds up over images.
    """
    _check(prediction, label, classes)
    if label.dtype != torch.uint8 and _beyond_bytes(label).any():
        raise DataError(_out_of_range(prediction, label, classes))
    # a prediction beyond bytes becomes 255, which is no class either
    guess = prediction
    if prediction.dtype != torch.uint8:
        guess = prediction.to(torch.int64).masked_fill(_beyond_bytes(prediction), IGNORE)
    index = label.to(torch.int32).mul_(256).add_(guess)
    # all 256 x 256 pairs are counted, so that ids out of range show up in the table instead of costing a pass each
    table = torch.bincount(index.flatten(), minlength=256 * 256).view(256, 256)[:IGNORE]
    matrix = table[:classes, :classes].clone()
    if int(matrix.sum()) != int(table.sum()):
        raise DataError(_out_of_range(prediction, label, classes))
    return matrix


def _check(prediction: Tensor, label: Tensor, classes: int) -> None:
    if not 1 <= classes <= MOST_CLASSES:
        raise DataError(f"a confusion matrix takes 1 to {MOST_CLASSES} classes, got {classes}")
    for name, ids in (("prediction", prediction), ("label", label)):
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise DataError(f"{name}: expected integer class ids, found {ids.dtype}; take the argmax first")
    if prediction.shape != label.shape:
        raise DataError(
            explain(
                "Prediction and label have different sizes.",
                expected=f"label's {tuple(label.shape)}",
                found=f"prediction's {tuple(prediction.shape)}",
                where="confusion",
                fix="bring the logits to the label's size before the argmax",
            )
        )


def _beyond_bytes(ids: Tensor) -> Bool[Tensor, "*shape"]:
    return (ids < 0) | (ids > IGNORE)


def _out_of_range(prediction: Tensor, label: Tensor, classes: int) -> str:
    kept = label != IGNORE

    def strangers(ids: Tensor) -> list[int]:
        seen = torch.unique(ids[kept].to(torch.int64))
        return [int(value) for value in seen if not 0 <= value < classes][:20]

    return explain(
        "Class ids are out of range.",
        expected=f"0..{classes - 1} in predictions; in labels also {IGNORE} = ignored",
        found=f"predictions {strangers(prediction)}, labels {strangers(label)}",
        where="pixels with a label other than 255",
        fix="map the ids to the data set's classes; a prediction out of range also comes from logits that are NaN",
    )


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says; fractions in [0, 1].

    A class is ABSENT when its union is empty: in no label and in no prediction. Its iou is NaN and it is counted in
    `absent_classes`. A class that is predicted but in no label has iou 0 and accuracy NaN.
    """

    miou: float
    iou: tuple[float, ...]
    accuracy: tuple[float, ...]
    pixel_accuracy: float
    class_accuracy: float
    frequency_weighted_iou: float
    absent_classes: int


def scores(matrix: Int64[Tensor, "classes classes"], absent: Absent = "nan") -> Scores:
    """Scores of a confusion matrix (rows = label).

    absent "nan": means run over the classes they are defined for; "zero": undefined classes count as 0 in `miou` and
    `class_accuracy`, as some released code has it (CIRKD, SKD); a number: so, but divided by that many classes.
    Per-class values are NaN where undefined whatever `absent` is.
    With no labelled pixel at all every score is NaN.
    """
    counts = matrix.detach().to("cpu", torch.float64)  # exact up to 2**53 pixels
    hit, label, union = counts.diagonal(), counts.sum(1), counts.sum(0) + counts.sum(1) - counts.diagonal()
    iou, accuracy, total = hit / union, hit / label, float(label.sum())
    return Scores(
        miou=class_mean(iou, absent) if total else math.nan,
        iou=tuple(iou.tolist()),
        accuracy=tuple(accuracy.tolist()),
        pixel_accuracy=float(hit.sum()) / total if total else math.nan,
        class_accuracy=class_mean(accuracy, absent) if total else math.nan,
        frequency_weighted_iou=float((label * iou.nan_to_num()).sum()) / total if total else math.nan,
        absent_classes=int((union == 0).sum()),
    )


def class_mean(values: Float[Tensor, " classes"], absent: Absent) -> float:
    """Mean over classes; NaN entries are left out ("nan") or count as 0 ("zero"). A number: sum over that many classes.

    DataError where that number is smaller than that of the classes there are.
    """
    if not isinstance(absent, int):
        return float(values.nan_to_num().mean() if absent == "zero" else values.nanmean())
    require_classes(len(values), absent)
    return float(values.nan_to_num().sum()) / absent


def require_classes(classes: int, over: int) -> None:
    """DataError where a mean over `over` classes would leave some of `classes` out."""
    if over < classes:
        raise DataError(
            explain(
                "A mean cannot be over fewer classes than there are.",
                expected=f"at least {classes}",
                found=f"averaged_over: {over}",
                where="the recipe's `evaluation`",
                fix="correct it; it is for data sets whose published mean counts classes that never occur",
            )
        )
