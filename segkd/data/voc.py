"""`voc` and `voc-aug`: Pascal VOC 2012 segmentation, alone and with the masks of SBD.

voc-aug's training list is made here: (VOC's train, SBD's train, SBD's val) without VOC's val, 1464 + 9118 = 10 582
images. The mask is VOC's own (with its border of 255) where VOC has one, else SBD's (without a border). Only the
count can be checked: nobody publishes a hash of the list; `prepare` writes the one it finds into its manifest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkd.config.data import VocAugData, VocData
from segkd.data.archives import Archive
from segkd.data.catalogue import info, info_of
from segkd.data.class_tables import class_table
from segkd.data.labels import IGNORE, LabelMap
from segkd.data.raw_files import RawFiles, pairs
from segkd.data.sources import Collection, Pair

VOC, SBD = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
MASK = ("GTcls", "Segmentation")  # of SBD's .mat files

VOC_ARCHIVE = Archive(
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    name="VOCtrainval_11-May-2012.tar",
    wanted=(f"{VOC}/JPEGImages", f"{VOC}/SegmentationClass", f"{VOC}/ImageSets/Segmentation"),
    bytes=1_999_639_040,
    sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    sha1="4e443f8a2eca6b1dac8a6c57641b67dd40621a49",
    md5="6cd6e144f989b92b3379bac3b3de84fd",
    unpacked=1_950_000_000,
    page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
)
SBD_ARCHIVE = Archive(
    url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    name="benchmark.tgz",
    wanted=(f"{SBD}/cls", f"{SBD}/train.txt", f"{SBD}/val.txt"),
    bytes=1_419_539_633,
    sha256="6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
    sha1="7129e0a480c2d6afb02b517bb18ac54283bfaa35",
    md5="82b4d87ceb2ed10f6038a1cba92111cb",
    unpacked=200_000_000,
    page="http://home.bharathh.info/pubs/codes/SBD/download.html",
)
ARCHIVES = (VOC_ARCHIVE,)
AUG_ARCHIVES = (VOC_ARCHIVE, SBD_ARCHIVE)


def label_map() -> LabelMap:
    """Ids 0 to 20 are classes, 255 (border, void) is ignored."""
    return LabelMap.of({**class_table("voc").ids, IGNORE: IGNORE})


def collect(config: VocData, raw: Path, manifest: dict[str, Any]) -> Collection:
    """`voc`: train and val as VOC lists them."""
    files = RawFiles.of(raw, manifest)
    train, faults = _voc(files, "train")
    val, wrong = _voc(files, "val")
    faults += wrong
    return Collection(info_of(config), raw, train + val, label_map(), files.hashes, None, faults, published=True)


def collect_aug(config: VocAugData, raw: Path, manifest: dict[str, Any]) -> Collection:
    """`voc-aug`: train as made from both (sorted), val as VOC lists it."""
    files = RawFiles.of(raw, manifest)
    own, faults = _voc(files, "train")
    val, wrong = _voc(files, "val")
    expected = (info("voc").counts or {})["train"]
    if len(own) != expected:
        wrong.append(f"VOC's own train has {len(own)} images, {expected} expected: its masks must not be SBD's")
    more, strange = _sbd(files, {pair.id for pair in own + val})
    train = sorted(own + more, key=lambda pair: pair.id)
    faults += wrong + strange
    pairs_, info_ = train + val, info_of(config)
    return Collection(info_, raw, pairs_, label_map(), files.hashes, None, faults, published=True, mat=MASK)


def _voc(files: RawFiles, split: str) -> tuple[list[Pair], list[str]]:
    ids, faults = files.listed(f"{VOC}/ImageSets/Segmentation/{split}.txt")
    found, wrong = pairs(split, ids, _images(files), files.within(f"{VOC}/SegmentationClass", ".png"))
    return found, faults + wrong


def _sbd(files: RawFiles, taken: set[str]) -> tuple[list[Pair], list[str]]:
    """SBD's train and val without the images that VOC has; its images are VOC's."""
    train, faults = files.listed(f"{SBD}/train.txt")
    val, wrong = files.listed(f"{SBD}/val.txt")
    ids = sorted({*train, *val} - taken)
    found, missing = pairs("train", ids, _images(files), files.within(f"{SBD}/cls", ".mat"))
    return found, faults + wrong + missing


def _images(files: RawFiles) -> dict[str, str]:
    return files.within(f"{VOC}/JPEGImages", ".jpg")
