"""`cityscapes`: fine annotations as published; labelIds become the 19 evaluated classes here, by table.

leftImg8bit/<split>/<city>/<id>_leftImg8bit.png with gtFine/<split>/<city>/<id>_gtFine_labelIds.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkd.config.data import CityscapesData
from segkd.data.archives import Archive
from segkd.data.catalogue import info_of
from segkd.data.class_tables import class_table
from segkd.data.labels import IGNORE, LabelMap
from segkd.data.raw_files import RawFiles, pairs_by_name
from segkd.data.sources import Collection

FOLDERS = {split: (f"leftImg8bit/{split}", f"gtFine/{split}") for split in ("train", "val")}
SIZE = (1024, 2048)
IMAGE, LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"
PAGE = "https://www.cityscapes-dataset.com/downloads/"
LAST_TRAIN_ID = 18

ARCHIVES = (
    Archive(
        url="https://www.cityscapes-dataset.com/file-handling/?packageID=1",
        name="gtFine_trainvaltest.zip",
        wanted=tuple(f"gtFine/{split}/*{LABEL}" for split in FOLDERS),
        bytes=252_567_705,
        sha1="99f532cb1af174f5fcc4c5bc8feea8c66246ddbc",
        unpacked=50_000_000,
        page=PAGE,
        account="cityscapes",
    ),
    Archive(
        url="https://www.cityscapes-dataset.com/file-handling/?packageID=3",
        name="leftImg8bit_trainvaltest.zip",
        wanted=tuple(f"leftImg8bit/{split}" for split in FOLDERS),
        bytes=11_592_327_197,
        sha1="2c0b77ce9933cc635adda307fbba5566f5d9d404",
        unpacked=8_200_000_000,
        page=PAGE,
        account="cityscapes",
    ),
)


def label_map() -> LabelMap:
    """labelIds 0 to 33 -> 0 to 18, the others ignored; -1 (license plate) is 255 where it is written as a byte."""
    return LabelMap.of(class_table("cityscapes").ids)


def collect(config: CityscapesData, raw: Path, manifest: dict[str, Any]) -> Collection:
    """The pairs of train and val."""
    files, info = RawFiles.of(raw, manifest), info_of(config)
    found, faults = pairs_by_name(files, FOLDERS, (IMAGE, LABEL))
    return Collection(info, raw, found, label_map(), files.hashes, SIZE, faults, published=True, doubt=_doubt)


def _doubt(seen: frozenset[int]) -> str:
    """labelTrainIds under the name of labelIds fit the map as well; only that no id above 18 occurs gives them away."""
    if max(seen - {IGNORE}, default=0) > LAST_TRAIN_ID:
        return ""
    return (
        f"no label id above {LAST_TRAIN_ID} in the whole data set: these look like labelTrainIds, which are made "
        f"afterwards; give the *{LABEL} as published, segkd maps them by itself"
    )
