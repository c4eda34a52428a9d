"""`ade20k`: the SceneParsing benchmark (ADEChallengeData2016). In its masks 0 is other, 1 to 150 are the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segkd.config.data import ADE20KData
from segkd.data.archives import Archive
from segkd.data.catalogue import info_of
from segkd.data.class_tables import class_table
from segkd.data.labels import IGNORE, LabelMap
from segkd.data.raw_files import RawFiles, pairs_by_name
from segkd.data.sources import Collection

ROOT = "ADEChallengeData2016"
FOLDERS = {
    split: (f"{ROOT}/images/{folder}", f"{ROOT}/annotations/{folder}")
    for split, folder in (("train", "training"), ("val", "validation"))
}

ARCHIVES = (
    Archive(
        url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        name="ADEChallengeData2016.zip",
        wanted=tuple(folder for split in FOLDERS.values() for folder in split),
        bytes=967_382_037,
        sha256="7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
        sha1="219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
        md5="7328b3957e407ddae1d3cbf487f149ef",
        unpacked=970_000_000,
        page="http://sceneparsing.csail.mit.edu/",
    ),
)


def label_map() -> LabelMap:
    """Id 0 is ignored, id v is class v - 1."""
    return LabelMap.of({**class_table("ade20k").ids, 0: IGNORE})


def collect(config: ADE20KData, raw: Path, manifest: dict[str, Any]) -> Collection:
    """The pairs of training and validation."""
    files = RawFiles.of(raw, manifest)
    found, faults = pairs_by_name(files, FOLDERS, (".jpg", ".png"))
    return Collection(info_of(config), raw, found, label_map(), files.hashes, None, faults, published=True)
