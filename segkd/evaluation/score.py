"""Scoring anybody's predictions: a folder of PNGs against a folder of label PNGs, with the pipeline's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from segkd.config.data import CamVidData, DatasetConfig, FolderData
from segkd.data import camvid, folder
from segkd.data.catalogue import info_of
from segkd.data.labels import IGNORE, LabelMap
from segkd.errors import DataError, explain, listing
from segkd.evaluation.confusion import Absent, Scores
from segkd.evaluation.tally import Evaluation, Tally

Ids = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True, eq=False)
class FolderScores:
    """Scores of a folder of predictions. `evaluation` holds all counts; there are no probabilities, hence no ece."""

    evaluation: Evaluation
    classes: tuple[str, ...]
    absent: Absent

    @property
    def scores(self) -> Scores:
        """Scores of the confusion matrix over all images."""
        return self.evaluation.scores(self.absent)

    def as_json(self) -> dict[str, Any]:
        """The entries of evaluation.json that predictions alone can fill."""
        return {
            "format": 1,
            "protocol": {"absent_classes": self.absent},
            "classes": list(self.classes),
            "images": len(self.evaluation.per_image.ids),
            "scores": self.evaluation.summary(self.absent),
            "per_class": self.evaluation.per_class(self.classes),
            "confusion": self.evaluation.confusion.tolist(),
        }


def score_folders(
    labels: Path,
    predictions: Path,
    classes: Sequence[str],
    *,
    label_map: LabelMap | None = None,
    absent: Absent = "nan",
) -> FolderScores:
    """Score `predictions` against `labels`: single-channel PNGs of class ids, paired by path without suffix.

    label_map: what the ids in the label files mean (see `label_map_of`), none = class ids; 255 is ignored unless it
    says otherwise. Predictions are class ids; under ignored labels they may hold anything. DataError lists every
    missing, extra, unreadable, wrongly sized or out-of-range file at once; nothing is scored then.
    """
    truth, guesses = _pngs(labels), _pngs(predictions)
    faults = [f"{name}: no prediction" for name in truth.keys() - guesses.keys()]
    faults += [f"{name}: a prediction without a label" for name in guesses.keys() - truth.keys()]
    tally, ids = Tally(len(classes)), label_map or _class_ids(len(classes))
    for name in sorted(truth.keys() & guesses.keys()):
        try:
            raw, prediction = _read(truth[name]), _read(guesses[name])
            label = ids.apply(raw)
            _check_pair(raw, label, prediction, ids, len(classes))
        except _FaultError as fault:
            faults.append(f"{name}: {fault}")
        else:
            tally.add([name], torch.from_numpy(prediction)[None], torch.from_numpy(label)[None])
    _refuse(sorted(faults), labels, predictions, images=len(truth), pixels=int(tally.confusion.sum()))
    return FolderScores(tally.result(), tuple(classes), absent)


def score_dataset(labels: Path, predictions: Path, config: DatasetConfig, *, absent: Absent = "nan") -> FolderScores:
    """`score_folders` with the classes of a data set in params.yaml and the label files that it is published with."""
    return score_folders(labels, predictions, info_of(config).classes, label_map=label_map_of(config), absent=absent)


def label_map_of(config: DatasetConfig) -> LabelMap:
    """What the ids in a data set's own label files mean."""
    if isinstance(config, CamVidData):
        return camvid.label_map()
    if isinstance(config, FolderData):
        return folder.describe(config).label_map()
    return _class_ids(len(info_of(config).classes))


def _class_ids(classes: int) -> LabelMap:
    return LabelMap.of({one: one for one in range(classes)})


class _FaultError(Exception):
    """Why one pair of files cannot be scored."""


def _pngs(folder: Path) -> dict[str, Path]:
    """PNG files under a folder, by relative path without suffix."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() == ".png" and path.is_file())
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def _read(path: Path) -> Ids:
    """Class ids of a palette or grey PNG, as stored: colours of the palette play no part."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise _FaultError(f"{path} has mode {image.mode}, not palette (P) or 8-bit grey (L): save class ids")
            return np.array(image, np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _FaultError(f"{path} cannot be read: {error}") from None


def _check_pair(raw: Ids, label: Ids, prediction: Ids, ids: LabelMap, classes: int) -> None:
    if label.shape != prediction.shape:
        sizes = f"{_size(prediction)} instead of the label's {_size(label)}"
        raise _FaultError(f"the prediction is {sizes} (width x height)")
    unknown = np.unique(raw[~ids.known[raw] & (raw != IGNORE)]).tolist()
    if unknown:
        raise _FaultError(f"the label has ids {unknown}; known are {ids.ids()} and {IGNORE}")
    beyond = np.unique(prediction[(label != IGNORE) & (prediction >= classes)]).tolist()
    if beyond:
        raise _FaultError(f"the prediction has ids {beyond}, outside 0..{classes - 1}")


def _size(ids: Ids) -> str:
    return f"{ids.shape[1]} x {ids.shape[0]}"


def _refuse(faults: list[str], labels: Path, predictions: Path, *, images: int, pixels: int) -> None:
    """DataError where anything is wrong, or where nothing could be scored."""
    if not faults and not images:
        faults = [f"{labels}: no PNG"]
    if not faults and not pixels:
        faults = ["every label pixel is ignored (255)"]
    if faults:
        raise DataError(
            explain(
                f"These predictions cannot be scored ({len(faults)} fault{'s' * (len(faults) > 1)}).",
                expected="one palette or grey PNG of class ids per label, of its name and size",
                found="\n" + listing(faults),
                where=f"{predictions} against {labels}",
                fix="correct these files; a score of a part of the images would be another quantity",
            )
        )
