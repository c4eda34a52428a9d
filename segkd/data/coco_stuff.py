"""`coco-stuff`: COCO 2017's images with COCO-Stuff's masks, whose ids 0 to 181 leave 11 numbers out.

images/<folder>/<id>.jpg with annotations/<folder>/<id>.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkd.config.data import CocoStuffData
from segkd.data.archives import Archive
from segkd.data.catalogue import info_of
from segkd.data.class_tables import class_table
from segkd.data.labels import IGNORE, LabelMap
from segkd.data.raw_files import RawFiles, pairs_by_name
from segkd.data.sources import Collection

FOLDERS = {split: (f"images/{split}2017", f"annotations/{split}2017") for split in ("train", "val")}

ARCHIVES = (
    Archive(
        url="http://images.cocodataset.org/zips/train2017.zip",
        name="train2017.zip",
        wanted=("train2017",),
        into="images",
        bytes=19_336_861_798,
        sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        sha1="10ad623668ab00c62c096f0ed636d6aff41faca5",
        unpacked=19_300_000_000,
        page="https://cocodataset.org/#download",
    ),
    Archive(
        url="http://images.cocodataset.org/zips/val2017.zip",
        name="val2017.zip",
        wanted=("val2017",),
        into="images",
        bytes=815_585_330,
        sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        sha1="4950dc9d00dbe1c933ee0170f5797584351d2a41",
        unpacked=815_000_000,
        page="https://cocodataset.org/#download",
    ),
    Archive(
        url="http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
        name="stuffthingmaps_trainval2017.zip",
        wanted=("train2017", "val2017"),
        into="annotations",
        unpacked=700_000_000,
        page="https://github.com/nightrome/cocostuff",
    ),
)


def label_map() -> LabelMap:
    """The 171 ids that occur -> 0 to 170; 255 is ignored; the 11 numbers between are faults."""
    return LabelMap.of({**class_table("coco-stuff").ids, IGNORE: IGNORE})


def collect(config: CocoStuffData, raw: Path, manifest: dict[str, Any]) -> Collection:
    """The pairs of train2017 and val2017."""
    files = RawFiles.of(raw, manifest)
    found, faults = pairs_by_name(files, FOLDERS, (".jpg", ".png"))
    return Collection(info_of(config), raw, found, label_map(), files.hashes, None, faults, published=True)
