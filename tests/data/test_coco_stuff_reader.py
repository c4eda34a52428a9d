"""COCO-Stuff: 171 of the ids 0 to 181; pictures as Flickr had them: grey, turned, or in both splits."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import few, grey_png, jpeg, labels_of, of_ids, taken
from made_data import put
from PIL import Image

from segkd.config.data import CocoStuffData
from segkd.errors import DataError

CONFIG = CocoStuffData(kind="coco-stuff")
NEVER = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
IDS = {"train": ["000000000009", "000000000025"], "val": ["000000000139"]}
EVERY = [one for one in range(182) if one not in NEVER]
MASK = of_ids(*EVERY, 255, height=20)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    few(monkeypatch, "coco-stuff", train=2, val=1)
    for seed, (split, name) in enumerate((split, name) for split, names in IDS.items() for name in names):
        put(tmp_path / f"mine/images/{split}2017/{name}.jpg", jpeg(seed, 20))
        put(tmp_path / f"mine/annotations/{split}2017/{name}.png", grey_png(MASK))
    return tmp_path / "mine"


def test_171_ids_become_classes_without_gaps(source: Path, tmp_path: Path) -> None:
    data = taken(CONFIG, source, tmp_path)
    assert {split: data.split(split).ids for split in IDS} == IDS
    expected = np.resize([*range(171), 255], MASK.shape)
    assert all(np.array_equal(one, expected) for one in labels_of(data, "train").values())
    assert (data.classes[0], data.classes[80], data.classes[170]) == ("person", "banner", "wood")


@pytest.mark.parametrize("one", [*NEVER, 182, 254])
def test_ids_that_never_occur_are_faults(source: Path, tmp_path: Path, one: int) -> None:
    put(source / "annotations/val2017/000000000139.png", grey_png(np.where(MASK == 24, one, MASK)))
    with pytest.raises(DataError, match=rf"label id {one}: in 1 file, first annotations/val2017/000000000139.png"):
        taken(CONFIG, source, tmp_path)


def test_files_without_partner_are_named(source: Path, tmp_path: Path) -> None:
    (source / "annotations/train2017/000000000025.png").unlink()
    with pytest.raises(DataError, match=r"images/train2017/000000000025.jpg: has no label"):
        taken(CONFIG, source, tmp_path)


def test_published_pictures_are_taken_as_stored(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A rotation tag turns nothing, grey becomes RGB, CMYK too, and a picture in both splits is told, not refused."""
    turned = Image.Exif()
    turned[0x0112] = 6
    put(source / "images/train2017/000000000009.jpg", jpeg(1, 20, exif=turned))
    put(source / "images/train2017/000000000025.jpg", jpeg(2, 20, mode="L"))
    put(source / "images/val2017/000000000139.jpg", jpeg(1, 20))
    with caplog.at_level(logging.WARNING):
        data = taken(CONFIG, source, tmp_path)
    first, grey = (data.split("train").image(i) for i in range(2))
    assert first.shape == (20, 9, 3) and np.array_equal(first, data.split("val").image(0))
    assert (grey == grey[..., :1]).all()
    assert "1 pictures stand in two splits, as published; first images/val2017/000000000139.jpg" in caplog.text


def test_cmyk_is_converted(source: Path, tmp_path: Path) -> None:
    put(source / "images/val2017/000000000139.jpg", jpeg(1, 20, mode="CMYK"))
    assert taken(CONFIG, source, tmp_path).split("val").image(0).shape == (20, 9, 3)
