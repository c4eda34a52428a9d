"""What readers of published data sets share: the downloaded files by name, lists of ids, pairs of equal ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkd.data.sources import Pair
from segkd.files import sha256_file


@dataclass(frozen=True)
class RawFiles:
    """Files of data/raw/<name> as its manifest names them. hashes: name -> sha256."""

    root: Path
    hashes: dict[str, str]

    @classmethod
    def of(cls, raw: Path, manifest: dict[str, Any]) -> RawFiles:
        """The files of raw/manifest.json."""
        return cls(raw, {name: entry["sha256"] for name, entry in manifest["files"].items()})

    def within(self, folder: str, ending: str) -> dict[str, str]:
        """id -> name of the files below a folder that end so, sorted; the id is the path within, without the ending."""
        start = f"{folder}/"
        return {
            name[len(start) : -len(ending)]: name
            for name in sorted(self.hashes)
            if name.startswith(start) and name.endswith(ending)
        }

    def listed(self, name: str) -> tuple[list[str], list[str]]:
        """(ids of a list file, one at the start of a line; what is wrong with it)."""
        if name not in self.hashes:
            return [], [f"{name}: is missing"]
        try:
            if sha256_file(self.root / name) != self.hashes[name]:
                return [], [f"{name}: has changed since `segkd download`: run that again"]
            ids = first_words(self.root / name)
        except (OSError, UnicodeDecodeError) as error:
            return [], [f"{name}: cannot be read: {error}"]
        twice = sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else []
        return list(dict.fromkeys(ids)), [f"{name}: {one} stands twice" for one in twice]


def first_words(path: Path) -> list[str]:
    """The first word of every line that has one; OSError or UnicodeDecodeError where the file cannot be read."""
    return [words[0] for line in path.read_text(encoding="utf-8").splitlines() if (words := line.split())]


def pairs(
    split: str, ids: Iterable[str], images: Mapping[str, str], labels: Mapping[str, str]
) -> tuple[list[Pair], list[str]]:
    """(pairs of the ids that have both files, faults of the others). images, labels: id -> name."""
    found: list[Pair] = []
    faults: list[str] = []
    for one in ids:
        if one in images and one in labels:
            found.append(Pair(split, one, images[one], labels[one]))
        elif one in images:
            faults.append(f"{images[one]}: has no label")
        elif one in labels:
            faults.append(f"{labels[one]}: has no image")
        else:
            faults.append(f"{one}: is listed in {split}, but has neither image nor label")
    return found, faults


def pairs_by_name(
    files: RawFiles, folders: Mapping[str, tuple[str, str]], endings: tuple[str, str]
) -> tuple[list[Pair], list[str]]:
    """Pairs of all files with these endings in split -> (folder of images, of labels); a single one is a fault."""
    found: list[Pair] = []
    faults: list[str] = []
    for split, names in folders.items():
        images, labels = (files.within(folder, ending) for folder, ending in zip(names, endings, strict=True))
        one, wrong = pairs(split, sorted(images.keys() | labels.keys()), images, labels)
        found, faults = found + one, faults + wrong
    return found, faults
