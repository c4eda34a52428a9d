"""Cityscapes: labelIds by table, partners, and labelTrainIds given by mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_sets import few, grey_png, labels_of, of_ids, taken
from made_data import picture, png, put

from segkd.config.data import CityscapesData
from segkd.data import cityscapes
from segkd.errors import DataError

CONFIG = CityscapesData(kind="cityscapes")
CLASS_OF = dict(zip((7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33), range(19), strict=True))
IMAGES = {"train": ("aachen/aachen_000000_000019", "ulm/ulm_000001_000019"), "val": ("munster/munster_000000_000019",)}
EVERY = of_ids(*range(34), 255)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cityscapes, "SIZE", EVERY.shape)
    few(monkeypatch, "cityscapes", train=2, val=1)
    root, seed = tmp_path / "mine", 0
    for split, names in IMAGES.items():
        for name in names:
            seed += 1
            put(root / f"leftImg8bit/{split}/{name}_leftImg8bit.png", png(picture(seed, *EVERY.shape)))
            put(root / f"gtFine/{split}/{name}_gtFine_labelIds.png", grey_png(EVERY))
            put(root / f"gtFine/{split}/{name}_gtFine_color.png", png(picture(seed, *EVERY.shape)))
            put(root / f"gtFine/{split}/{name}_gtFine_instanceIds.png", grey_png(EVERY))
    return root


def label(source: Path, split: str, name: str) -> Path:
    return source / f"gtFine/{split}/{name}_gtFine_labelIds.png"


def test_label_ids_become_the_19_classes(source: Path, tmp_path: Path) -> None:
    data = taken(CONFIG, source, tmp_path)
    assert {split: tuple(data.split(split).ids) for split in IMAGES} == IMAGES
    expected = [CLASS_OF.get(one, 255) for one in EVERY.ravel().tolist()]
    for split, names in IMAGES.items():
        assert [one.ravel().tolist() for one in labels_of(data, split).values()] == [expected] * len(names)
    assert np.array_equal(data.split("val").image(0), picture(3, *EVERY.shape))
    assert data.classes[13] == "car" and data.palette[13] == (0, 0, 142)


def test_published_size_is_demanded(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cityscapes, "SIZE", (1024, 2048))
    with pytest.raises(DataError, match=r"ulm_000001_000019_leftImg8bit.png: is 9 x 6, not 2048 x 1024"):
        taken(CONFIG, source, tmp_path)


def test_files_without_partner_are_named(source: Path, tmp_path: Path) -> None:
    label(source, "train", IMAGES["train"][0]).unlink()
    put(source / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png", grey_png(EVERY))
    with pytest.raises(DataError) as found:
        taken(CONFIG, source, tmp_path)
    for fault in (
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png: has no label",
        "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png: has no image",
        "split train: 2 images expected, 1 found",
    ):
        assert fault in str(found.value)


def test_train_ids_under_the_name_of_label_ids_are_told(source: Path, tmp_path: Path) -> None:
    mapped = np.array([CLASS_OF.get(one, 255) for one in EVERY.ravel().tolist()]).reshape(EVERY.shape)
    for split, names in IMAGES.items():
        for name in names:
            label(source, split, name).write_bytes(grey_png(mapped))
    with pytest.raises(DataError, match=r"these look like labelTrainIds.*give the \*_gtFine_labelIds.png as published"):
        taken(CONFIG, source, tmp_path)


def test_train_ids_alone_are_not_taken(source: Path, tmp_path: Path) -> None:
    for split, names in IMAGES.items():
        for name in names:
            path = label(source, split, name)
            path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    with pytest.raises(DataError, match=r"gtFine/train/\*_gtFine_labelIds.png"):
        taken(CONFIG, source, tmp_path)


def test_ids_that_cityscapes_does_not_have_are_faults(source: Path, tmp_path: Path) -> None:
    label(source, "val", IMAGES["val"][0]).write_bytes(grey_png(of_ids(7, 34)))
    with pytest.raises(DataError, match=r"label id 34: in 1 file, first gtFine/val/munster/munster_000000_000019_gt"):
        taken(CONFIG, source, tmp_path)
