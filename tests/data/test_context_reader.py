"""Pascal Context: 459 ids of the original release to 59 or 60 classes, split by VOC 2010's lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_sets import context_mat, few, grey_png, labels_of, mat, of_ids, taken, voc_files
from made_data import put

from segkd.config.data import ContextData
from segkd.errors import DataError

TRAIN, VAL = ["2008_000002", "2008_000003"], ["2008_000007"]
MASK = of_ids(0, 1, 2, 284, 431, 458, 459)  # nothing, accordion, aeroplane, person, unknown, wood, wool


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    few(monkeypatch, "context", train=2, val=1)
    voc_files(tmp_path / "mine", 2010, train=TRAIN, val=VAL)
    for name, dtype in zip(TRAIN + VAL, (np.uint16, np.float64, np.uint16), strict=True):
        put(tmp_path / f"mine/trainval/{name}.mat", context_mat(MASK, dtype))
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("background", "expected", "classes"),
    [(True, [0, 0, 1, 37, 0, 59, 0], 60), (False, [255, 255, 0, 36, 255, 58, 255], 59)],
)
def test_59_classes_with_and_without_background(
    source: Path, tmp_path: Path, background: bool, expected: list[int], classes: int
) -> None:
    data = taken(ContextData(kind="context", background=background), source, tmp_path)
    assert (data.split("train").ids, data.split("val").ids) == (TRAIN, VAL)
    for one in (*labels_of(data, "train").values(), *labels_of(data, "val").values()):
        assert one.ravel().tolist() == np.resize(expected, 54).tolist()
    assert len(data.classes) == len(data.palette) == classes
    assert data.classes[expected[3]] == "person"
    assert (data.classes[0] == "background") == background


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (context_mat(of_ids(2, 460)), "label id 460: in 1 file"),
        (context_mat(of_ids(2, 999)), "label id 999: in 1 file"),
        (mat({"GTcls": MASK}), "has no LabelMap"),
        (grey_png(of_ids(2)), "is not a MATLAB 5 file"),
    ],
)
def test_other_masks_are_refused(source: Path, tmp_path: Path, content: bytes, fault: str) -> None:
    put(source / f"trainval/{VAL[0]}.mat", content)
    with pytest.raises(DataError, match=fault) as found:
        taken(ContextData(kind="context"), source, tmp_path)
    assert f"trainval/{VAL[0]}.mat" in str(found.value)


def test_what_the_lists_name_must_be_there(source: Path, tmp_path: Path) -> None:
    (source / f"trainval/{TRAIN[1]}.mat").unlink()
    with pytest.raises(DataError, match=rf"JPEGImages/{TRAIN[1]}.jpg: has no label"):
        taken(ContextData(kind="context"), source, tmp_path)
