"""VOC 2012 alone and with SBD: palette indices, the border, lists, and which mask counts for which image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_sets import deep_png, few, grey_png, labels_of, mat, of_ids, palette_png, sbd_mat, taken, voc_files
from made_data import put
from PIL import Image
from scipy.io.matlab import MatlabObject

from segkd.config.data import VocAugData, VocData
from segkd.data.catalogue import ids_hash
from segkd.errors import DataError

VOC, AUG = VocData(kind="voc"), VocAugData(kind="voc-aug")
BORDER = of_ids(0, 1, 20, 255)
PLAIN = of_ids(0, 15, 20)
TRAIN, VAL = ["2007_000032", "2007_000005"], ["2007_000033"]
BOTH = ["2008_000001", "2008_000002"]  # SBD's own
NAMES = {"mask": "VOCdevkit/VOC2012/SegmentationClass", "sbd": "benchmark_RELEASE/dataset"}


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    few(monkeypatch, "voc", train=2, val=1)
    base = voc_files(tmp_path / "mine", 2012, train=TRAIN, val=VAL)
    for name in TRAIN + VAL:
        put(base / f"SegmentationClass/{name}.png", palette_png(BORDER))
    return tmp_path / "mine"


@pytest.fixture
def aug(voc: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SBD's lists hold VOC's images too: of train and, what must not be trained on, of val."""
    few(monkeypatch, "voc-aug", train=4, val=1)
    voc_files(voc, 2012, train=TRAIN, val=VAL, trainval=[*TRAIN, *VAL, *BOTH])
    put(voc / f"{NAMES['sbd']}/train.txt", "".join(f"{one}\n" for one in (BOTH[1], TRAIN[0], VAL[0])))
    put(voc / f"{NAMES['sbd']}/val.txt", f"{TRAIN[1]}\n{BOTH[0]}\n")
    for name in TRAIN + VAL + BOTH:
        put(voc / f"{NAMES['sbd']}/cls/{name}.mat", sbd_mat(PLAIN))
    return voc


def test_masks_are_read_as_indices(voc: Path, tmp_path: Path) -> None:
    data = taken(VOC, voc, tmp_path)
    assert (data.split("train").ids, data.split("val").ids) == (TRAIN, VAL)
    assert all(np.array_equal(one, BORDER) for one in labels_of(data, "train").values())
    with Image.open(voc / f"{NAMES['mask']}/{VAL[0]}.png") as image:
        luminance = np.asarray(image.convert("RGB").convert("L"))
    assert not np.array_equal(labels_of(data, "val")[VAL[0]], luminance)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (deep_png(BORDER), "has 16 bits per pixel with ids 0, 1, 20, 255"),
        (grey_png(of_ids(0, 38, 75)), r"label id 38: in 1 file, first .*2007_000005.png"),  # luminance of the palette
        (palette_png(of_ids(0, 1, height=5)), "is 9 x 5 but its image .*2007_000005.jpg is 9 x 6"),
    ],
)
def test_other_masks_are_refused(voc: Path, tmp_path: Path, content: bytes, fault: str) -> None:
    put(voc / f"{NAMES['mask']}/{TRAIN[1]}.png", content)
    with pytest.raises(DataError, match=fault):
        taken(VOC, voc, tmp_path)


def test_what_a_list_names_must_be_there(voc: Path, tmp_path: Path) -> None:
    (voc / f"{NAMES['mask']}/{TRAIN[0]}.png").unlink()
    (voc / f"VOCdevkit/VOC2012/JPEGImages/{VAL[0]}.jpg").unlink()
    put(voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", f"{TRAIN[0]}\n{TRAIN[1]}\n{TRAIN[1]}\n2011_1\n")
    with pytest.raises(DataError) as found:
        taken(VOC, voc, tmp_path)
    for fault in (
        f"JPEGImages/{TRAIN[0]}.jpg: has no label",
        f"SegmentationClass/{VAL[0]}.png: has no image",
        "2011_1: is listed in train, but has neither image nor label",
        f"Segmentation/train.txt: {TRAIN[1]} stands twice",
    ):
        assert fault in str(found.value)


def test_a_list_changed_after_the_download_is_told(voc: Path, tmp_path: Path) -> None:
    taken(VOC, voc, tmp_path)
    put(tmp_path / "raw/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt.new", "").replace(
        tmp_path / "raw/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    )
    from segkd.data.prepare import prepare

    with pytest.raises(DataError, match=r"val.txt: has changed since `segkd download`"):
        prepare("voc", VOC, tmp_path / "raw", tmp_path / "prepared")


def test_train_aug_is_made_from_both(aug: Path, tmp_path: Path) -> None:
    data = taken(AUG, aug, tmp_path)
    masks = labels_of(data, "train")
    assert list(masks) == sorted(TRAIN + BOTH)
    assert all(np.array_equal(masks[name], BORDER if name in TRAIN else PLAIN) for name in masks)
    assert data.split("val").ids == VAL
    assert data.manifest["splits"]["train"]["ids_sha256"] == ids_hash(TRAIN + BOTH)


def test_masks_of_sbd_must_be_there_for_all_of_its_lists(aug: Path, tmp_path: Path) -> None:
    (aug / f"{NAMES['sbd']}/cls/{BOTH[0]}.mat").unlink()
    with pytest.raises(DataError) as found:
        taken(AUG, aug, tmp_path)
    assert f"JPEGImages/{BOTH[0]}.jpg: has no label" in str(found.value)
    assert "split train: 4 images expected, 3 found" in str(found.value)


def test_vocs_own_masks_count_first(aug: Path, tmp_path: Path) -> None:
    """A shorter list of VOC's would let SBD's masks, which have no border, take their place at the same total."""
    put(aug / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", f"{TRAIN[0]}\n")
    with pytest.raises(DataError, match="VOC's own train has 1 images, 2 expected"):
        taken(AUG, aug, tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            mat({"GTcls": MatlabObject(np.zeros((1, 1), [("Segmentation", object)]), "thing")}),
            "holds an object in GTcls",
        ),
        (sbd_mat(PLAIN)[:-30], "is truncated or damaged"),
        (sbd_mat(of_ids(0, 21)), "label id 21: in 1 file"),
        (b"", "is empty"),
    ],
)
def test_other_masks_of_sbd_are_refused(aug: Path, tmp_path: Path, content: bytes, fault: str) -> None:
    put(aug / f"{NAMES['sbd']}/cls/{BOTH[1]}.mat", content)
    with pytest.raises(DataError, match=fault) as found:
        taken(AUG, aug, tmp_path)
    assert f"cls/{BOTH[1]}.mat" in str(found.value)
