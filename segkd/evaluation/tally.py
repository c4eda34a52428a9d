"""Adding up a split: prediction and label go in image by image, every score comes out once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from segkd.evaluation.boundary import boundary_iou, boundary_sums
from segkd.evaluation.calibration import LEVELS, confidence_histogram, expected_calibration_error
from segkd.evaluation.confusion import Absent, Scores, class_mean, confusion, scores
from segkd.evaluation.per_image import PerImage


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything counted over a split. `calibration` is None where there were no probabilities.

    samples: image id -> uint8 (H, W) predicted class ids, at the label's own size.
    """

    confusion: Int64[Tensor, "classes classes"]
    boundary: Int64[Tensor, "2 classes"]
    calibration: Int64[Tensor, "levels 2"] | None
    per_image: PerImage
    samples: dict[str, UInt8[np.ndarray, "h w"]] = field(default_factory=dict)

    def scores(self, absent: Absent = "nan") -> Scores:
        """Scores of the whole split's confusion matrix."""
        return scores(self.confusion, absent)

    def summary(self, absent: Absent = "nan") -> dict[str, float | int | None]:
        """The split's scores by name, as evaluation.json holds them; None where undefined."""
        found = self.scores(absent)
        calibration = self.calibration
        return {
            "miou": _json(found.miou),
            "pixel_accuracy": _json(found.pixel_accuracy),
            "class_accuracy": _json(found.class_accuracy),
            "frequency_weighted_iou": _json(found.frequency_weighted_iou),
            "boundary_iou": _json(class_mean(boundary_iou(self.boundary), absent)),
            "ece": None if calibration is None else _json(expected_calibration_error(calibration)),
            "absent_classes": found.absent_classes,
        }

    def foreground(self, absent: Absent = "nan") -> dict[str, float | None]:
        """mIoU over all classes but the first, for data sets that begin with `background`; None where undefined."""
        iou = torch.tensor(self.scores().iou[1:], dtype=torch.float64)
        over = absent - 1 if isinstance(absent, int) else absent
        return {"foreground_miou": _json(class_mean(iou, over))}

    def per_class(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Scores and labelled pixels of every class, as evaluation.json holds them; None where undefined."""
        found, boundary = self.scores(), boundary_iou(self.boundary).tolist()
        pixels = self.confusion.sum(1).tolist()
        columns = zip(names, found.iou, found.accuracy, boundary, pixels, strict=True)
        return [
            {"name": name, "iou": _json(iou), "accuracy": _json(accuracy), "boundary_iou": _json(rim), "pixels": count}
            for name, iou, accuracy, rim, count in columns
        ]


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


class Tally:
    """Sums that grow image by image; `result` turns them into an Evaluation."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.ids: list[str] = []
        self.sums: list[Int64[Tensor, "3 classes"]] = []
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.boundary = torch.zeros(2, classes, dtype=torch.int64)
        self.calibration: Int64[Tensor, "levels 2"] | None = None

    def add(
        self,
        ids: Sequence[str],
        prediction: UInt8[Tensor, "b h w"],
        label: UInt8[Tensor, "b h w"],
        confidence: Float[Tensor, "b h w"] | None = None,
    ) -> None:
        """Count a batch of equally large images; 255 in `label` is ignored.

        confidence: the greatest softmax probability of each pixel; leave it out where there are no probabilities.
        """
        for name, guess, truth in zip(ids, prediction, label, strict=True):
            matrix = confusion(guess, truth, self.classes).cpu()
            self.ids.append(name)
            self.sums.append(torch.stack((matrix.diagonal(), matrix.sum(1), matrix.sum(0))))
            self.confusion += matrix
        self.boundary += boundary_sums(prediction, label, self.classes).cpu()
        if confidence is not None:
            if self.calibration is None:
                self.calibration = torch.zeros(LEVELS, 2, dtype=torch.int64)
            self.calibration += confidence_histogram(confidence, prediction, label).cpu()

    def result(self, samples: dict[str, UInt8[np.ndarray, "h w"]] | None = None) -> Evaluation:
        """What was counted so far."""
        stacked = torch.stack(self.sums) if self.sums else torch.zeros(0, 3, self.classes, dtype=torch.int64)
        per_image = PerImage(tuple(self.ids), *stacked.numpy().transpose(1, 0, 2))
        return Evaluation(self.confusion, self.boundary, self.calibration, per_image, samples or {})
