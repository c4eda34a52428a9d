"""Scoring anybody's predictions: a folder of PNGs against a folder of label PNGs, with the pipeline's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt, UInt8
from PIL import Image

from segkd.config.data import DatasetConfig
from segkd.data.catalogue import info_of
from segkd.data.decode import FaultError
from segkd.data.labels import IGNORE, LabelMap
from segkd.data.mat import decode_mat
from segkd.data.raw_files import first_words
from segkd.data.readers import label_files
from segkd.data.sources import LabelFiles
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
    return _score(labels, predictions, classes, LabelFiles(label_map or _class_ids(len(classes))), absent)


def score_dataset(
    labels: Path,
    predictions: Path,
    config: DatasetConfig,
    *,
    names: Sequence[str] | None = None,
    absent: Absent = "nan",
) -> FolderScores:
    """`score_folders` with the classes of a data set in params.yaml and the label files that it is published with.

    A prediction is named after the label, after the image, or after what both names share. names: of the labels to
    score, where one folder holds those of several splits (Pascal VOC); none: all.
    """
    return _score(labels, predictions, info_of(config).classes, label_files(config), absent, names)


def read_names(path: Path) -> tuple[str, ...]:
    """The first word of every line, as in Pascal VOC's ImageSets/Segmentation/val.txt; DataError without any."""
    try:
        names = tuple(first_words(path))
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_list(path, str(error)) from None
    if not names:
        raise _bad_list(path, "an empty file")
    return names


def _bad_list(path: Path, found: str) -> DataError:
    return DataError(
        explain(
            "The list of what to score cannot be read.",
            expected="a text file with a name in every line, such as ImageSets/Segmentation/val.txt",
            found=found,
            where=path,
            fix="name another file",
        )
    )


def label_map_of(config: DatasetConfig) -> LabelMap:
    """What the ids in a data set's own label files mean."""
    return label_files(config).labels


def _class_ids(classes: int) -> LabelMap:
    return LabelMap.of({one: one for one in range(classes)})


def _score(
    labels: Path,
    predictions: Path,
    classes: Sequence[str],
    files: LabelFiles,
    absent: Absent,
    names: Sequence[str] | None = None,
) -> FolderScores:
    truth, guesses = _named(labels, files.ending), _named(predictions, ".png")
    guesses = {_short(name, files): path for name, path in guesses.items()}
    faults = [f"{name}: no label" for name in set(names or ()) - truth.keys()]
    if names is not None:
        truth = {name: truth[name] for name in names if name in truth}
    faults += [f"{name}: no prediction" for name in truth.keys() - guesses.keys()]
    faults += [f"{name}: a prediction without a label" for name in guesses.keys() - truth.keys()]
    tally, ids = Tally(len(classes)), files.labels
    for name in sorted(truth.keys() & guesses.keys()):
        try:
            raw, prediction = _read_label(truth[name], files), _read(guesses[name])
            label = ids.apply(raw)
            _check_pair(raw, label, prediction, ids, len(classes))
        except _FaultError as fault:
            faults.append(f"{name}: {fault}")
        else:
            tally.add([name], torch.from_numpy(prediction)[None], torch.from_numpy(label)[None])
    _refuse(sorted(faults), labels, predictions, images=len(truth), pixels=int(tally.confusion.sum()))
    return FolderScores(tally.result(), tuple(classes), absent)


class _FaultError(Exception):
    """Why one pair of files cannot be scored."""


def _named(folder: Path, ending: str) -> dict[str, Path]:
    """Files under a folder whose names end so, by relative path without the ending."""
    files = (path for path in folder.rglob("*") if path.name.lower().endswith(ending.lower()) and path.is_file())
    return {path.relative_to(folder).as_posix()[: -len(ending)]: path for path in files}


def _short(name: str, files: LabelFiles) -> str:
    """A prediction's name without what only labels or only images have at its end."""
    for ending in (files.ending, files.image_ending):
        name = name.removesuffix(ending.removesuffix(".png")) if ending.endswith(".png") else name
    return name


def _read_label(path: Path, files: LabelFiles) -> UInt[np.ndarray, "h w"]:
    if path.suffix != ".mat":
        return _read(path)
    try:
        return decode_mat(path.read_bytes(), files.mat)
    except (OSError, FaultError) as error:
        raise _FaultError(f"{path} cannot be read: {error}") from None


def _read(path: Path) -> Ids:
    """Class ids of a palette or grey PNG, as stored: colours of the palette play no part."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise _FaultError(f"{path} has mode {image.mode}, not palette (P) or 8-bit grey (L): save class ids")
            return np.array(image, np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _FaultError(f"{path} cannot be read: {error}") from None


def _check_pair(raw: UInt[np.ndarray, "h w"], label: Ids, prediction: Ids, ids: LabelMap, classes: int) -> None:
    if label.shape != prediction.shape:
        sizes = f"{_size(prediction)} instead of the label's {_size(label)}"
        raise _FaultError(f"the prediction is {sizes} (width x height)")
    if unknown := [one for one in ids.unknown(raw) if one != IGNORE]:
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
