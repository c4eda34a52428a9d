"""Published files that a user already has: the archives by name, or the folders that they unpack to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from segkd.data.archives import Archive, matches
from segkd.data.members import name_fault
from segkd.data.progress import progress
from segkd.data.shelf import threads
from segkd.errors import DataError, explain
from segkd.files import sha256_file


@dataclass(frozen=True)
class Found:
    """What a folder holds of an archive: the archive (or loose file) itself, or its wanted files, by name below raw."""

    archive: Archive
    file: Path | None
    files: dict[str, Path]


def find(archive: Archive, source: Path) -> Found | None:
    """Look for an archive by its name, then for what is wanted of it, unpacked; None where a part of that is not there.

    source: may be the folder that has the published layout, or a folder further down in it (VOCdevkit/VOC2012).
    """
    if (source / archive.name).is_file():
        return Found(archive, source / archive.name, {})
    for base in dict.fromkeys((archive.into, "")):
        if not archive.wanted:
            if (place := _inside(source, PurePosixPath(base) / archive.name)) and place.is_file():
                return Found(archive, place, {})
        elif files := _unpacked(archive, source, base):
            return Found(archive, None, files)
    return None


def _unpacked(archive: Archive, source: Path, base: str) -> dict[str, Path]:
    """Name below raw -> file, of all that is wanted; {} where a wanted part has no file."""
    files: dict[str, Path] = {}
    for wanted in archive.wanted:
        found = {
            str(PurePosixPath(archive.into) / member): file
            for member, file in _listed(source, base, _fixed(wanted))
            if matches(member, wanted)
        }
        if not found:
            return {}
        files |= found
    return dict(sorted(files.items()))


def _fixed(wanted: str) -> PurePosixPath:
    """The part of a wanted name before the first glob."""
    parts = PurePosixPath(wanted).parts
    count = next((k for k, part in enumerate(parts) if any(one in part for one in "*?[")), len(parts))
    return PurePosixPath(*parts[:count])


def _listed(source: Path, base: str, fixed: PurePosixPath) -> Iterator[tuple[str, Path]]:
    """Member name and file, of all files at or below the member `fixed`; hidden ones are no published ones."""
    top = _inside(source, PurePosixPath(base) / fixed)
    if top is None or not top.exists():
        return
    if top.is_file():
        yield str(fixed), top
        return
    for file in _files(top):
        below = PurePosixPath(file.relative_to(top).as_posix())
        if not any(part.startswith(".") for part in below.parts) and not name_fault(str(below)):
            yield str(fixed / below), file


def _inside(source: Path, name: PurePosixPath) -> Path | None:
    """Where `name` is, if `source` is the published layout's top, or else one of the folders that lead to `name`."""
    if (source / name).exists():
        return source / name
    parts, here = name.parts, source.absolute().parts
    for k in range(1, len(parts)):
        if here[-k:] == parts[:k] and (place := source.joinpath(*parts[k:])).exists():
            return place
    return None


def _files(top: Path) -> Iterator[Path]:
    """All files below, also through links to folders, each folder once."""
    seen = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        state = Path(folder).stat()
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def bytes_to_copy(found: Found, raw: Path) -> int:
    """Bytes that must be written because a link cannot be: the files lie on another disk than `raw`."""
    disk = next(one for one in (raw, *raw.absolute().parents) if one.exists()).stat().st_dev
    states = (file.stat() for file in found.files.values())
    return sum(state.st_size for state in states if state.st_dev != disk)


def take(files: dict[str, Path], raw: Path, title: str) -> dict[str, dict[str, Any]]:
    """Link or copy files into `raw`: name -> {"bytes", "sha256"}; the user's own files are only read."""

    def one(item: tuple[str, Path]) -> tuple[str, dict[str, Any]]:
        target = place(item[1], raw, item[0])
        return item[0], {"bytes": target.stat().st_size, "sha256": sha256_file(target)}

    entries = {}
    with progress(f"take {title}", len(files)) as advance, ThreadPoolExecutor(threads()) as pool:
        for name, entry in pool.map(one, files.items()):
            entries[name] = entry
            advance(1)
    return entries


def place(file: Path, raw: Path, name: str) -> Path:
    """Make raw/<name> the same as `file`, by a hard link or, where there can be none, a copy; returns it."""
    target = raw / name
    if target.exists() and target.samefile(file):
        return target
    require_within(raw, target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    coming = target.with_name(f".{target.name}.coming")
    coming.unlink(missing_ok=True)
    try:
        os.link(file.resolve(), coming)
    except OSError:  # another disk, a file system without links, or somebody else's file
        shutil.copyfile(file, coming)
    coming.replace(target)
    return target


def require_within(raw: Path, folder: Path) -> None:
    """DataError where a link leads from `folder`, a place below `raw`, to somewhere else."""
    if folder.resolve().is_relative_to(raw.resolve()):
        return
    raise DataError(
        explain(
            "A link stands where the data set's files go.",
            expected="a folder within the data set",
            found=f"a link to {folder.resolve()}",
            where=folder,
            fix="move the link away; to use another disk, make the whole folder of the data set a link",
        )
    )
