"""What a reader hands to preparation: pairs of image and label files with everything they are checked against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segkd.config.data import DatasetConfig
from segkd.data.archives import Archive
from segkd.data.catalogue import PUBLISHED, Info
from segkd.data.labels import LabelMap

RAW_FORMAT = 1


@dataclass(frozen=True)
class Pair:
    """An image and its label, named relative to the collection's root."""

    split: str
    id: str
    image: str
    label: str


@dataclass(frozen=True)
class Collection:
    """Files to prepare. hashes: sha256 per file as downloaded; size: (height, width) that all must have, or None.

    faults: what is already known to be wrong (missing partners, clashing names); reported with all the others.
    published: the files are what everybody has, so rotation tags and pictures that stand in two splits are no faults.
    mat: where in a .mat label file its ids stand. doubt: of all ids seen, what is wrong with the whole, or "".
    """

    info: Info
    root: Path
    pairs: list[Pair]
    labels: LabelMap
    hashes: dict[str, str]
    size: tuple[int, int] | None = None
    faults: list[str] = field(default_factory=list)
    published: bool = False
    mat: tuple[str, ...] = ()
    doubt: Callable[[frozenset[int]], str] | None = None


@dataclass(frozen=True)
class LabelFiles:
    """How a data set's own label files are read. labels: what their ids mean; mat: as in Collection.

    ending, image_ending: ends of a label's and of an image's name beside the id that both share.
    """

    labels: LabelMap
    mat: tuple[str, ...] = ()
    ending: str = ".png"
    image_ending: str = ""


def _archives(kind: str, config: DatasetConfig) -> tuple[Archive, ...]:
    from segkd.data import readers

    return readers.ARCHIVES[kind]


# what `segkd download` fetches for a kind of data set
ARCHIVES: dict[str, Callable[[Any], tuple[Archive, ...]]] = {kind: partial(_archives, kind) for kind in PUBLISHED}


def collect(config: DatasetConfig, raw: Path, manifest: dict[str, Any]) -> Collection:
    """The files of a downloaded data set; manifest: the content of raw/manifest.json."""
    from segkd.data.readers import READERS

    return READERS[config.kind](config, raw, manifest)


def raw_manifest(
    name: str, config: DatasetConfig, info: Info, how: str, files: dict[str, dict[str, Any]], **more: object
) -> dict[str, Any]:
    """Content of raw/manifest.json. how: "download", "copy", "in place" or "embedded"; files: bytes and sha256 each."""
    return {
        "format": RAW_FORMAT,
        "name": name,
        "config": config.model_dump(mode="json"),
        "how": how,
        "licence": info.licence,
        "demands": info.demands,
        "redistributable": info.redistributable,
        **more,
        "files": files,
    }
