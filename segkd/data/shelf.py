"""data/raw/<name>/.archives: archives until they are extracted, and for each a record of the files that it gave.

The records outlive the archives: a data set whose files are all as recorded is not fetched again, whatever made the
step run again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from segkd.data.archives import Archive
from segkd.data.progress import progress
from segkd.data.remote import Remote
from segkd.errors import DataError
from segkd.files import read_json, sha256_file, write_json

log = logging.getLogger(__name__)

FORMAT = 1
TRUSTED = "trusted on first use"
UNCHECKED = "not checked"
Record = dict[str, Any]  # format, archive, way, check, sha256, files: name below raw -> {"bytes", "sha256"}


class Shelf:
    """The folder .archives of a data set's raw files."""

    def __init__(self, raw: Path) -> None:
        self.raw, self.folder = raw, raw / ".archives"

    def write(
        self, archive: Archive, way: str, files: dict[str, dict[str, Any]], *, check: str, sha256: str | None = None
    ) -> Record:
        """Record what an archive gave. way: "download", "archive" or "copy"; sha256: of the archive, where trusted."""
        record = {
            "format": FORMAT,
            "archive": _identity(archive),
            "way": way,
            "check": check,
            "sha256": sha256,
            "files": files,
        }
        write_json(self._place(archive), record)
        return record

    def recorded(self, archive: Archive) -> Record | None:
        """The record of this archive as it is described now; its files are not looked at."""
        record = self._read(self._place(archive))
        fits = record is not None and record["archive"] == _identity(archive)
        return record if fits else None

    def held(self, archives: Iterable[Archive]) -> dict[str, Record]:
        """Records, by archive, whose files are all there with the content that they had."""
        records = {archive.name: record for archive in archives if (record := self.recorded(archive))}
        changed = self._changed(records)
        for name, files in changed.items():
            log.info("%s: %d of its files are missing or changed, so it is needed again", name, files)
        return {name: record for name, record in records.items() if name not in changed}

    def _changed(self, records: dict[str, Record]) -> dict[str, int]:
        """Archive -> how many of its files are not as recorded."""
        entries = [(name, *item) for name, record in records.items() for item in record["files"].items()]
        changed: dict[str, int] = {}
        if not entries:
            return changed
        with progress("verify", len(entries)) as advance, ThreadPoolExecutor(threads()) as pool:
            same = pool.map(lambda entry: _same(self.raw / entry[1], entry[2]), entries)
            for (name, *_), one in zip(entries, same, strict=True):
                changed[name] = changed.get(name, 0) + (not one)
                advance(1)
        return {name: count for name, count in changed.items() if count}

    def trusted(self) -> dict[str, str]:
        """sha256 by archive that was trusted when it first came, from the records and from raw/manifest.json."""
        found: dict[str, str] = (self._read(self.raw / "manifest.json") or {}).get(TRUSTED, {})
        for place in sorted(self.folder.glob("*.json")):
            record = self._read(place)
            if record and record.get("check") == TRUSTED:
                found[place.name.removesuffix(".json")] = record["sha256"]
        return found

    def remote(self, archive: Archive) -> Remote:
        """What is to be fetched; where no hash is published, the one that was trusted before."""
        remote = Remote(archive.url, archive.name, archive.bytes, archive.sha256, archive.sha1, archive.md5)
        before = None if remote.check else self.trusted().get(archive.name)
        if before is None:
            return remote
        note = (
            f"another file came when it was first fetched; if its publisher has changed it and you accept the new one, "
            f"delete {self.folder} and {self.raw / 'manifest.json'}"
        )
        return Remote(archive.url, archive.name, archive.bytes, sha256=before, note=note)

    def _place(self, archive: Archive) -> Path:
        return self.folder / f"{archive.name}.json"

    @staticmethod
    def _read(place: Path) -> Record | None:
        try:
            return read_json(place)
        except DataError:  # missing, or damaged: then the archive is fetched again
            return None


def threads() -> int:
    """Threads that hash or copy; more only wait for the disk."""
    return min(8, os.cpu_count() or 1)


def _identity(archive: Archive) -> dict[str, Any]:
    return {
        "url": archive.url,
        "wanted": list(archive.wanted),
        "into": archive.into,
        "sha256": archive.sha256,
        "sha1": archive.sha1,
        "md5": archive.md5,
    }


def _same(path: Path, entry: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"] and sha256_file(path) == entry["sha256"]
