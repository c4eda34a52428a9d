"""What a reader hands to preparation: pairs of image and label files with everything they are checked against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segkd.config.data import CamVidData, DatasetConfig, FolderData
from segkd.data.archives import Archive
from segkd.data.catalogue import Info
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
    """

    info: Info
    root: Path
    pairs: list[Pair]
    labels: LabelMap
    hashes: dict[str, str]
    size: tuple[int, int] | None = None
    faults: list[str] = field(default_factory=list)


def _camvid(config: CamVidData, raw: Path, manifest: dict[str, Any]) -> Collection:
    from segkd.data import camvid

    return camvid.collect(raw, manifest)


def _folder(config: FolderData, raw: Path, manifest: dict[str, Any]) -> Collection:
    from segkd.data import folder

    return folder.collect(config, manifest)


READERS: dict[str, Callable[[Any, Path, dict[str, Any]], Collection]] = {"camvid": _camvid, "folder": _folder}

ARCHIVES: dict[str, Callable[[Any], tuple[Archive, ...]]] = {}  # what `segkd download` fetches for a kind of data set


def collect(config: DatasetConfig, raw: Path, manifest: dict[str, Any]) -> Collection:
    """The files of a downloaded data set; manifest: the content of raw/manifest.json."""
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
