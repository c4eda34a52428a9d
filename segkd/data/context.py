"""`context`: Pascal Context from its authors' release, one .mat with 459 classes an image.

The other form, Detail's trainval_merged.json, needs a foreign API, and the masks drawn from it are pickles, which can
run code when read. The release needs neither, its ids are Detail's, and VOC 2010's own lists of train and val, whose
archive has a hash, are the split. The 59 classes have the ids of classes/context.csv; all others are background.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkd.config.data import ContextData
from segkd.data.archives import Archive
from segkd.data.catalogue import info_of
from segkd.data.class_tables import class_table
from segkd.data.labels import IGNORE, LabelMap
from segkd.data.raw_files import RawFiles, pairs
from segkd.data.sources import Collection, Pair

VOC, LABELS = "VOCdevkit/VOC2010", "trainval"
MASK = ("LabelMap",)  # of the .mat files
RAW_IDS = 460  # 0 (nothing) and the release's 459 classes
SPLITS = ("train", "val")

ARCHIVES = (
    Archive(
        url="http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
        name="VOCtrainval_03-May-2010.tar",
        wanted=(f"{VOC}/JPEGImages", *(f"{VOC}/ImageSets/Main/{split}.txt" for split in SPLITS)),
        sha256="1af4189cbe44323ab212bff7afbc7d0f55a267cc191eb3aac911037887e5c7d4",
        sha1="bf9985e9f2b064752bf6bd654d89f017c76c395a",
        md5="da459979d0c395079b5c75ee67908abb",
        unpacked=1_300_000_000,
        page="http://host.robots.ox.ac.uk/pascal/VOC/voc2010/",
    ),
    Archive(
        url="https://cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
        name="trainval.tar.gz",
        wanted=(f"{LABELS}/*.mat",),
        unpacked=50_000_000,
        page="https://cs.stanford.edu/~roozbeh/pascal-context/",
    ),
)


def label_map(background: bool) -> LabelMap:
    """459 ids -> 60 classes with background (whatever is none of the 59), or -> 59 with background ignored."""
    ids = class_table("context").ids
    if background:
        return LabelMap.of(ids, others=ids[0], size=RAW_IDS)
    return LabelMap.of({one: target - 1 for one, target in ids.items() if target}, others=IGNORE, size=RAW_IDS)


def collect(config: ContextData, raw: Path, manifest: dict[str, Any]) -> Collection:
    """The pairs of VOC 2010's train and val."""
    files = RawFiles.of(raw, manifest)
    images, masks = files.within(f"{VOC}/JPEGImages", ".jpg"), files.within(LABELS, ".mat")
    found: list[Pair] = []
    faults: list[str] = []
    for split in SPLITS:
        ids, unread = files.listed(f"{VOC}/ImageSets/Main/{split}.txt")
        one, wrong = pairs(split, ids, images, masks)
        found, faults = found + one, faults + unread + wrong
    info, labels = info_of(config), label_map(config.background)
    return Collection(info, raw, found, labels, files.hashes, None, faults, published=True, mat=MASK)
