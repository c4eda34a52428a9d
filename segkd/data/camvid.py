"""`camvid`: the published files, a copy of them that one already has, and how they pair."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from segkd.data.catalogue import CAMVID
from segkd.data.decode import FaultError, decode_image, decode_label
from segkd.data.labels import IGNORE, LabelMap
from segkd.data.sources import Collection, Pair
from segkd.errors import DataError, explain, listing
from segkd.files import atomic_write

COMMIT = "d7e555e53c8f38a5f3d54906848110f6a3e6e98a"
BASE = f"https://raw.githubusercontent.com/kwotsin/TensorFlow-ENet/{COMMIT}/"
FOLDER = "dataset"  # within that repository
MANIFEST = Path(__file__).parent / "manifests" / "camvid.csv"
VOID = 11
SUFFIXES = (".png", ".jpg", ".jpeg")  # of images; labels are PNG


@dataclass(frozen=True)
class Row:
    """One published file. name: below data/raw/camvid; path: within the repository; width, height: pixels."""

    split: str
    kind: str
    path: str
    bytes: int
    sha256: str
    width: int
    height: int

    @property
    def name(self) -> str:
        """train/x.png or trainannot/x.png."""
        return str(PurePosixPath(self.path).relative_to(FOLDER))


@cache
def rows() -> tuple[Row, ...]:
    """All published files, in the order of the manifest."""
    with MANIFEST.open(encoding="utf-8", newline="") as file:
        return tuple(
            Row(r["split"], r["kind"], r["path"], int(r["bytes"]), r["sha256"], int(r["width"]), int(r["height"]))
            for r in csv.DictReader(file)
        )


def label_map() -> LabelMap:
    """Ids 0 to 10 are classes, 11 (void) is ignored."""
    return LabelMap.of({**{one: one for one in range(VOID)}, VOID: IGNORE})


def collect(raw: Path, manifest: dict[str, Any]) -> Collection:
    """The pairs of data/raw/camvid; images may be JPEG where they were copied from such."""
    by_stem = {_stem(name): name for name in manifest["files"]}
    faults, found = [], {}
    for row in rows():
        if (name := by_stem.get(_stem(row.name))) is None:
            faults.append(f"{row.name}: is missing")
        found[row.name] = name or row.name
    labels = {(row.split, _file_stem(row)): found[row.name] for row in rows() if row.kind == "label"}
    pairs = [
        Pair(row.split, _file_stem(row), found[row.name], labels[row.split, _file_stem(row)])
        for row in rows()
        if row.kind == "image"
    ]
    missing = {fault.split(":", 1)[0] for fault in faults}
    hashes = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    whole = [pair for pair in pairs if not {pair.image, pair.label} & missing]
    size = (rows()[0].height, rows()[0].width)
    return Collection(CAMVID, raw, whole, label_map(), hashes, size, faults)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _file_stem(row: Row) -> str:
    return PurePosixPath(row.path).stem


def copy(source: Path, raw: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Copy a copy that one already has into `raw`: (files as in raw/manifest.json, how many are the published bytes).

    Names, splits, sizes and label values are checked, all faults in one DataError; `source` is only read.
    """
    folder = next((one for one in (source, source / FOLDER, source / "CamVid") if (one / "train").is_dir()), source)
    places, faults = _places(folder)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda row: _copied(row, places[row.name], folder, raw), _present(places)))
    faults += [fault for _, _, _, fault in results if fault]
    if faults:
        raise DataError(
            explain(
                f"This is not CamVid's 11-class version ({len(faults)} fault{'s' * (len(faults) > 1)}).",
                expected="train, trainannot, val, valannot, test, testannot with 367, 101 and 233 images of 480 x 360",
                found="\n" + listing(faults),
                where=folder,
                fix="complete or correct the folder, or download the published files: segkd download camvid",
            )
        )
    return {name: entry for name, entry, _, _ in results}, sum(same for _, _, same, _ in results)


def holds_copy(raw: Path) -> bool:
    """Whether `raw` is complete with images that are no published files (JPEG): a copy taken over earlier."""
    places, faults = _places(raw)
    return not faults and any(not place.endswith(".png") for place in places.values())


def _present(places: dict[str, str]) -> Iterable[Row]:
    return (row for row in rows() if row.name in places)


def _places(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Published name -> name in `folder`; faults: missing files, and files that CamVid does not have there."""
    there = {
        f"{split}/{file.name}"
        for split in sorted({str(PurePosixPath(row.name).parent) for row in rows()})
        if (folder / split).is_dir()
        for file in (folder / split).iterdir()
        if file.suffix.lower() in SUFFIXES
    }
    places, faults = {}, []
    for row in rows():
        suffixes = SUFFIXES if row.kind == "image" else (".png",)
        names = [name for suffix in suffixes if (name := _stem(row.name) + suffix) in there]
        if names:
            places[row.name] = names[0]
        else:
            faults.append(f"{row.name}: is missing")
        there -= set(names)
    return places, faults + [f"{name}: is not part of this split" for name in sorted(there)]


def _copied(row: Row, place: str, folder: Path, raw: Path) -> tuple[str, dict[str, Any], bool, str]:
    """(name, entry, whether it is the published file, fault or "") of one file, copied where it is sound."""
    content = (folder / place).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    entry = {"bytes": len(content), "sha256": found}
    try:
        if found != row.sha256:
            _check(row, content)
    except FaultError as fault:
        return place, entry, False, f"{place}: {fault}"
    target = raw / place
    if not (target.exists() and target.read_bytes() == content):
        atomic_write(target, content)
    return place, entry, found == row.sha256, ""


def _check(row: Row, content: bytes) -> None:
    pixels = decode_image(content) if row.kind == "image" else decode_label(content)
    if pixels.shape[:2] != (row.height, row.width):
        raise FaultError(f"is {pixels.shape[1]} x {pixels.shape[0]}, not {row.width} x {row.height}")
    if row.kind == "label" and (strange := set(np.unique(pixels).tolist()) - set(range(VOID + 1))):
        raise FaultError(f"has label ids {sorted(strange)} beside 0 to {VOID}: the 32-class version does not fit")
