"""ADE20K: mask value 0 is ignored, 1 to 150 count from 0, and the ids are numbered through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_sets import few, grey_png, jpeg, labels_of, of_ids, taken
from made_data import put

from segkd.config.data import ADE20KData
from segkd.errors import DataError

CONFIG = ADE20KData(kind="ade20k")
IDS = {"train": ["ADE_train_00000001", "ADE_train_00000002"], "val": ["ADE_val_00000001"]}
FOLDERS = {"train": "training", "val": "validation"}
MASK = of_ids(0, 1, 2, 150)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    few(monkeypatch, "ade20k", IDS, train=2, val=1)
    for seed, (split, name) in enumerate((split, name) for split, names in IDS.items() for name in names):
        draw(tmp_path / "mine", split, name, seed)
    return tmp_path / "mine"


def draw(root: Path, split: str, name: str, seed: int) -> None:
    base = root / "ADEChallengeData2016"
    put(base / f"images/{FOLDERS[split]}/{name}.jpg", jpeg(seed, 6 + seed))
    put(base / f"annotations/{FOLDERS[split]}/{name}.png", grey_png(np.resize(MASK, (6 + seed, MASK.shape[1]))))


def test_value_zero_is_ignored_and_the_others_count_from_zero(source: Path, tmp_path: Path) -> None:
    data = taken(CONFIG, source, tmp_path)
    found = labels_of(data, "train")
    assert list(found) == IDS["train"]
    assert [one.shape for one in found.values()] == [(6, 9), (7, 9)]
    assert found["ADE_train_00000001"].ravel().tolist() == np.resize([255, 0, 1, 149], 54).tolist()
    assert (data.classes[0], data.classes[149], len(data.classes)) == ("wall", "flag", 150)


def test_the_full_data_set_with_other_names_is_told(source: Path, tmp_path: Path) -> None:
    for path in list(source.rglob("ADE_train_00000002.*")):
        path.rename(path.with_name(path.name.replace("00000002", "00000003")))
    with pytest.raises(
        DataError, match=r"split train: other images than published \(sha256 of the sorted ids [0-9a-f]"
    ):
        taken(CONFIG, source, tmp_path)


def test_ids_beyond_the_150_classes_are_faults(source: Path, tmp_path: Path) -> None:
    put(source / "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png", grey_png(of_ids(151, height=8)))
    with pytest.raises(DataError, match=r"label id 151: in 1 file, first .*ADE_val_00000001.png"):
        taken(CONFIG, source, tmp_path)


def test_a_split_that_is_not_there_is_told_before_anything_is_taken(source: Path, tmp_path: Path) -> None:
    for path in source.rglob("annotations/training/*"):
        path.unlink()
    with pytest.raises(DataError, match="annotations/training"):
        taken(CONFIG, source, tmp_path)


def test_annotation_without_image_is_named(source: Path, tmp_path: Path) -> None:
    (source / "ADEChallengeData2016/images/training/ADE_train_00000001.jpg").unlink()
    with pytest.raises(DataError, match=r"annotations/training/ADE_train_00000001.png: has no image"):
        taken(CONFIG, source, tmp_path)
