"""Data sets that are published as archives: download, verify, extract; or take them from a copy that one has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from segkd.data import account, copies
from segkd.data.archives import Archive, extract, require_room, unwritable
from segkd.data.fetch import Patience, fetch
from segkd.data.remote import Remote, fault_of
from segkd.data.shelf import TRUSTED, UNCHECKED, Record, Shelf, threads
from segkd.errors import DataError, explain, listing
from segkd.files import sha256_file

log = logging.getLogger(__name__)

Files = dict[str, dict[str, Any]]


def bring(
    name: str,
    archives: Sequence[Archive],
    raw: Path,
    *,
    source: Path | None = None,
    connections: int = 8,
    patience: Patience | None = None,
    keep: bool = False,
) -> tuple[str, Files, dict[str, Any]]:
    """Fill `raw` with what is wanted of every archive; returns (how, files, more) for raw/manifest.json.

    Archives come to raw/.archives, are verified, and are deleted when their files are in `raw` (also those that were
    put there by hand), unless `keep`. An archive whose files are all there, unchanged, is not fetched again. source: a
    folder with the archives by name, which it keeps, or with the folders that they unpack to, whose files are linked or
    copied. name: as on the command line, for messages.

    files: name below raw -> {"bytes", "sha256"}. more: published_bytes, the number of files that came out of an archive
    with a published hash; archives, where each came from; "trusted on first use", sha256 of those without such a hash.
    DownloadError, DataError and StorageError say what to do by hand; ConfigError where an account is missing.
    """
    shelf = Shelf(raw)
    records = {} if source else shelf.held(archives)
    todo = [archive for archive in archives if archive.name not in records]
    try:
        if source is not None:
            records |= _from_folder(name, todo, source, shelf)
        elif todo:
            records |= _from_network(name, todo, shelf, connections, patience, keep)
    except OSError as error:
        raise unwritable(error, raw) from None
    for archive in archives if source is None and not keep else ():
        (shelf.folder / archive.name).unlink(missing_ok=True)
    return _summed([(archive, records[archive.name]) for archive in archives])


def _from_network(
    name: str, todo: list[Archive], shelf: Shelf, connections: int, patience: Patience | None, keep: bool
) -> dict[str, Record]:
    require_room(shelf.raw, peak(todo, shelf.raw, keep=keep), f"download {name}")
    by_hand = _by_hand(name, todo, shelf)
    for who in sorted({archive.account or "" for archive in todo}):
        remotes = [shelf.remote(archive) for archive in todo if (archive.account or "") == who]
        opener: dict[str, Any] = {"open_": account.SESSIONS[who]().open} if who else {}
        words: dict[str, Any] = {"title": name, "connections": connections, "patience": patience}
        fetch(remotes, shelf.folder, by_hand=by_hand, **words, **opener)
    records = {}
    for archive in todo:
        records[archive.name] = _opened(archive, shelf.folder / archive.name, shelf, "download")
        if not keep:
            (shelf.folder / archive.name).unlink()
    return records


def _by_hand(name: str, todo: list[Archive], shelf: Shelf) -> Callable[[Sequence[Remote]], str]:
    pages = {archive.name: archive.page or archive.url for archive in todo}

    def text(failed: Sequence[Remote]) -> str:
        lines = [f"{remote.name} from {pages[remote.name]}" for remote in failed]
        return (
            f"get by hand\n{listing(lines)}\n  into {shelf.folder} and then: segkd download {name}\n"
            f"  (or, with them in any other folder: segkd download {name} --from DIR)"
        )

    return text


def peak(todo: Sequence[Archive], raw: Path, *, keep: bool) -> int:
    """Most bytes that will be taken at once: all archives come, then one after the other is extracted and deleted."""
    shelf = Shelf(raw).folder
    packed = {archive.name: archive.bytes or archive.unpacked or 0 for archive in todo}
    there = sum(
        file.stat().st_size
        for archive in todo
        for file in (shelf / archive.name, shelf / f"{archive.name}.part")
        if file.exists()
    )
    peak = level = max(0, sum(packed.values()) - there)
    for archive in todo:
        level += (archive.unpacked or archive.bytes or 0) if archive.wanted else 0
        peak = max(peak, level)
        level -= 0 if keep or not archive.wanted else packed[archive.name]
    return peak


def _opened(archive: Archive, file: Path, shelf: Shelf, way: str) -> Record:
    """Extract a verified archive, or place a loose file, and record it."""
    remote = shelf.remote(archive)
    published = (archive.sha256 or archive.sha1 or archive.md5) is not None
    check = remote.check[0] if published and remote.check else TRUSTED
    sha256 = None if published else sha256_file(file)
    if archive.wanted:
        below = PurePosixPath(archive.into)
        copies.require_within(shelf.raw, shelf.raw / below)
        extracted = extract(file, shelf.raw / below, archive.wanted)
        files = {str(below / member): entry for member, entry in extracted.items()}
    else:
        files = copies.take({str(PurePosixPath(archive.into) / archive.name): file}, shelf.raw, archive.name)
    return shelf.write(archive, way, files, check=check, sha256=sha256)


def _from_folder(name: str, archives: list[Archive], source: Path, shelf: Shelf) -> dict[str, Record]:
    """Everything is found and verified before anything is taken; DataError with all that is not there or not right."""
    found = {archive.name: copies.find(archive, source) for archive in archives}
    there = [one for one in found.values() if one is not None]
    with ThreadPoolExecutor(threads()) as pool:
        wrong = list(pool.map(lambda one: fault_of(shelf.remote(one.archive), one.file) if one.file else "", there))
    faults = [f"{one.file}: {fault}" for one, fault in zip(there, wrong, strict=True) if fault]
    faults += [_missing(archive) for archive in archives if found[archive.name] is None]
    if faults:
        raise DataError(
            explain(
                f"The folder is no copy of {name}.",
                expected="its archives as published, or what they unpack to",
                found="\n" + listing(faults),
                where=source,
                fix=f"complete or correct the folder, or leave --from out: segkd download {name}",
            )
        )
    needed = sum(_bytes(one, shelf.raw) for one in there)
    require_room(shelf.raw, needed, f"take {name} over")
    return {one.archive.name: _taken(one, shelf) for one in there}


def _missing(archive: Archive) -> str:
    """One line: the archive and what could stand for it."""
    if not archive.wanted:
        return f"{archive.name} is not there [{archive.page or archive.url}]"
    places = ", ".join(str(PurePosixPath(archive.into) / one) for one in archive.wanted)
    return f"neither {archive.name} nor all of {places} [{archive.page or archive.url}]"


def _bytes(found: copies.Found, raw: Path) -> int:
    archive = found.archive
    return copies.bytes_to_copy(found, raw) if found.file is None else archive.unpacked or archive.bytes or 0


def _taken(found: copies.Found, shelf: Shelf) -> Record:
    if found.file is not None:
        return _opened(found.archive, found.file, shelf, "archive")
    files = copies.take(found.files, shelf.raw, found.archive.name)
    return shelf.write(found.archive, "copy", files, check=UNCHECKED)


def _summed(records: list[tuple[Archive, Record]]) -> tuple[str, Files, dict[str, Any]]:
    files = {name: entry for _, record in records for name, entry in record["files"].items()}
    published = [record for _, record in records if record["check"] not in {TRUSTED, UNCHECKED}]
    more: dict[str, Any] = {
        "published_bytes": sum(len(record["files"]) for record in published),
        "archives": {
            archive.name: {"url": archive.url, "way": record["way"], "check": record["check"]}
            for archive, record in records
        },
    }
    if trusted := {archive.name: record["sha256"] for archive, record in records if record["check"] == TRUSTED}:
        more[TRUSTED] = trusted
    how = "download" if all(record["way"] == "download" for _, record in records) else "copy"
    return how, dict(sorted(files.items())), more
