"""Data at the edge of sense, through the real steps: they train and are scored, or one error names what is wrong."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_data import folder, ids, picture, png, prepared, put
from PIL import Image
from tiny_project import TINY

from segkd import steps
from segkd.config.runs import Run
from segkd.data.prepared import Prepared
from segkd.errors import DataError
from segkd.files import read_json

Pair = tuple[np.ndarray, np.ndarray]
TEACHER = Run("tiny", "large")
METHODS = ("cirkd", "ifvd", "icsd")  # they divide by the pixels of a class


def drawn(seed: int, height: int = 32, width: int = 32, *, classes: int = 3, value: int | None = None) -> Pair:
    """A random picture with a random label, or one of one value."""
    label = ids(seed, height, width, classes)
    if value is not None:
        label[:] = value
    return picture(seed, height, width), label


def project(root: Path, train: list[Pair], val: list[Pair]) -> Path:
    """A project whose data set is a folder of these pairs, prepared."""
    params: dict[str, Any] = copy.deepcopy(TINY)
    params["datasets"] = {"mine": {"kind": "folder", "root": str(root / "files")}}
    params["recipes"]["tiny"] |= {"dataset": "mine", "iterations": 2, "evaluation": {"split": "val", "batch": 2}}
    params["methods"] |= {name: {"method": name} for name in METHODS}
    put(root / "params.yaml", yaml.safe_dump(params))
    put(root / "files/dataset.yaml", "classes: [road, car, sky]\n")
    for split, pairs in (("train", train), ("val", val)):
        for k, (image, label) in enumerate(pairs):
            put(root / f"files/images/{split}/{split}{k}.png", png(image))
            put(root / f"files/labels/{split}/{split}{k}.png", png(label))
    steps.download("mine", root=root)
    steps.prepare("mine", root=root)
    return root


ODD = {
    "1 x 1": ([drawn(k, 1, 1, value=k % 3) for k in range(3)], [drawn(9, 1, 1, value=1)]),
    "smaller than the crop, of several sizes": (
        [drawn(0, 5, 40), drawn(1, 40, 5), drawn(2, 31, 33)],
        [drawn(8, 1, 40), drawn(9, 7, 3)],
    ),
    "images of which one is all ignored": (
        [drawn(0, value=255), drawn(1), drawn(2)],
        [drawn(8, value=255), drawn(9)],
    ),
    "a class that is absent everywhere": ([drawn(k, classes=2) for k in range(3)], [drawn(9, classes=2)]),
    "one class only": ([drawn(k, value=1) for k in range(3)], [drawn(9, value=1)]),
}


@pytest.mark.fault("P3", "1 x 1, smaller than the crop, images all ignored, classes absent everywhere: train and score")
@pytest.mark.parametrize("case", ODD)
def test_odd_data_train_and_are_scored(tmp_path: Path, case: str) -> None:
    root = project(tmp_path, *ODD[case])
    steps.teacher(TEACHER, steps.Options(root=root))
    for method in METHODS:
        steps.student(Run("tiny", "small", method, "large"), steps.Options(root=root))
    found = read_json(steps.evaluate(TEACHER, steps.Options(root=root)))
    present = {int(one) for _, label in ODD[case][1] for one in np.unique(label)} - {255}
    assert np.sum(found["confusion"]) == sum(int((label != 255).sum()) for _, label in ODD[case][1])
    assert math.isfinite(found["scores"]["miou"])
    assert found["scores"]["absent_classes"] <= 3 - len(present)


@pytest.mark.fault("P3", "a split of which every pixel is ignored: refused before the training, not after")
@pytest.mark.parametrize("empty", ["train", "val", "both"])
def test_a_split_without_a_labelled_pixel_is_refused_with_its_images(tmp_path: Path, empty: str) -> None:
    def pairs(split: str) -> list[Pair]:
        return [drawn(k + 5 * (split == "val"), value=255 if empty in {split, "both"} else None) for k in range(2)]

    root = project(tmp_path, pairs("train"), pairs("val"))
    with pytest.raises(DataError) as caught:
        steps.teacher(TEACHER, steps.Options(root=root))
    for split in ("train", "val"):
        words = f"split {split}: every pixel of its 2 images is ignored (255), first {split}0, {split}1"
        assert (words in str(caught.value)) == (empty in {split, "both"})
    assert not (root / TEACHER.folder / "weights.safetensors").exists()


def signed(kind: type[np.signedinteger[Any]], ignored: int, form: str = "PNG") -> bytes:
    """A 16 x 12 label with a negative id, in the bytes that PIL writes for it."""
    label = np.array([[0, 1, 2, ignored]], kind).repeat(12, axis=0).repeat(4, axis=1)
    pixels = label if form == "TIFF" else label.view(label.dtype.str.replace("i", "u"))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


SIGNED = {
    "-1 in 16 bits": (signed(np.int16, -1), "16 bits per pixel with ids 0, 1, 2, 65535"),
    "-1 in 32 bits": (signed(np.int32, -1, "TIFF"), "is not a PNG"),
    "-2 in 8 bits": (signed(np.int8, -2), "label id 254: in 1 file, first labels/train/train0.png"),
}


@pytest.mark.fault("P3", "ignored pixels as -1 or -2, in 8, 16 or 32 bits, where 255 is meant")
@pytest.mark.parametrize("case", SIGNED)
def test_signed_ids_are_refused_with_the_file(tmp_path: Path, case: str) -> None:
    content, message = SIGNED[case]
    config = folder(tmp_path / "files")
    put(tmp_path / "files/labels/train/train0.png", content)
    with pytest.raises(DataError, match=message) as caught:
        prepared(config, tmp_path)
    assert "labels/train/train0.png" in str(caught.value)


@pytest.mark.fault("P3", "-1 written as 8 bits where the description ignores nothing")
def test_minus_one_as_a_byte_is_255_and_ignored_only_if_the_description_says_so(tmp_path: Path) -> None:
    content = signed(np.int8, -1)
    config = folder(tmp_path / "files", description="classes: [road, car, sky]\nignore: []\n")
    put(tmp_path / "files/labels/train/train0.png", content)
    with pytest.raises(DataError, match=r"label id 255: [\s\S]*also where -1 was written as 8 bits"):
        prepared(config, tmp_path)
    put(tmp_path / "files/dataset.yaml", "classes: [road, car, sky]\nignore: 255\n")
    split = Prepared(prepared(config, tmp_path)).split("train")
    assert split.label(0)[0].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [255] * 4


@pytest.mark.fault("P3", "a data set in which every file has a fault of another kind: all named at once")
def test_labels_of_every_wrong_kind_come_in_one_message(tmp_path: Path) -> None:
    config = folder(tmp_path / "files", counts={"train": 6, "val": 1})
    wrong = {
        0: (png(np.full((12, 16), 3, np.uint8)), "label id 3: in 1 file, first labels/train/train0.png"),
        1: (png(picture(1, 13)), "labels/train/train1.png: is a colour mask"),
        2: (png(ids(2, 14), "RGB"), "labels/train/train2.png: holds grey as RGB"),
        3: (b"", "labels/train/train3.png: is empty (0 bytes)"),
        4: (png(ids(4, 16))[:-20], "labels/train/train4.png: is truncated or damaged"),
        5: (png(np.full((17, 16), 33, np.uint8)), "label id 33: in 1 file, first labels/train/train5.png"),
    }
    for k, (content, _) in wrong.items():
        put(tmp_path / f"files/labels/train/train{k}.png", content)
    with pytest.raises(DataError) as caught:
        prepared(config, tmp_path)
    assert [words for _, words in wrong.values() if words not in str(caught.value)] == []
    assert not any((tmp_path / "prepared").iterdir())
