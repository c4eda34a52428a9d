"""The step `download`: bring a data set's files to data/raw/<name>, each verified; manifest.json comes last."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segkd.config.data import CamVidData, DatasetConfig, DigitsData, FolderData
from segkd.data import camvid, folder, published
from segkd.data.catalogue import info_of
from segkd.data.fetch import Patience, Remote, fetch
from segkd.data.fingerprint import HASHES, embedded_digits_sha256, hash_files
from segkd.data.sources import ARCHIVES, raw_manifest
from segkd.errors import ConfigError, LockedError, explain
from segkd.files import read_json, write_json

log = logging.getLogger(__name__)


def download(
    name: str,
    config: DatasetConfig,
    raw: Path,
    *,
    source: Path | None = None,
    connections: int = 8,
    patience: Patience | None = None,
    keep: bool = False,
) -> Path:
    """Fill `raw` and write raw/manifest.json (returned) last.

    From where it is published, or from `source`, a copy that one has; digits and folder have nothing to fetch. Archives
    are deleted when they are extracted, unless `keep`.
    """
    if source is not None and isinstance(config, DigitsData | FolderData):
        raise ConfigError(
            explain(
                "This data set takes no copy.",
                expected="--from only for data sets that are downloaded",
                found=f"{name!r} of kind {config.kind!r}",
                where="command line",
                fix="leave --from out" + ("; a folder is read where it lies" if config.kind == "folder" else ""),
            )
        )
    with exclusive(raw):
        if isinstance(config, CamVidData):
            how, files, more = _camvid(raw, source, connections, patience)
        elif not isinstance(config, DigitsData | FolderData):
            archives = ARCHIVES[config.kind](config)
            words: dict[str, Any] = {"connections": connections, "patience": patience, "keep": keep}
            how, files, more = published.bring(name, archives, raw, source=source, **words)
        else:
            how, files, more = _in_place(config, raw.parent / HASHES.name)
        manifest = raw_manifest(name, config, info_of(config), how, files, **more)
        _tidy(raw, set(files) if how != "in place" else set())
        write_json(raw / "manifest.json", manifest)
    log.info("%s: %d files, %s", name, len(files), how)
    return raw / "manifest.json"


@contextmanager
def exclusive(folder_: Path) -> Iterator[None]:
    """Only one process writes a data folder at a time; LockedError for the second."""
    folder_.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder_.parent / f".{folder_.name}.lock", timeout=0):
            yield
    except Timeout:
        raise LockedError(
            explain(
                "Another process is writing this folder.",
                expected="one writer",
                found="a lock held by a living process",
                where=folder_,
                fix="wait until it has ended",
            )
        ) from None


def _camvid(
    raw: Path, source: Path | None, connections: int, patience: Patience | None
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    if source is None and camvid.holds_copy(raw):
        source = raw
        log.info("camvid: keeping the copy in %s; delete that folder to fetch the published files", raw)
    if source is not None:
        files, same = camvid.copy(source, raw)
        log.info("camvid: %d of %d files are the published bytes", same, len(files))
        return "copy", files, {"published_bytes": same}
    rows = camvid.rows()
    remotes = [Remote(camvid.BASE + row.path, row.name, row.bytes, row.sha256) for row in rows]
    by_hand = (
        f"get the folder {camvid.FOLDER!r} of {camvid.BASE} another way (PNG or JPEG images) "
        "and hand it over: segkd download camvid --from DIR"
    )
    fetch(remotes, raw, title="camvid", by_hand=by_hand, connections=connections, patience=patience)
    files = {row.name: {"bytes": row.bytes, "sha256": row.sha256} for row in rows}
    return "download", files, {"source": camvid.BASE, "published_bytes": len(files)}


def _in_place(config: DigitsData | FolderData, cache: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Data sets that need no copy: hashes of what they are made from."""
    if isinstance(config, DigitsData):
        return "embedded", {}, {"digits_sha256": embedded_digits_sha256()}
    root = folder.require_root(config)
    hashes = hash_files(root, folder.files(config), cache)
    return (
        "in place",
        {name: {"bytes": (root / name).stat().st_size, "sha256": one} for name, one in hashes.items()},
        {},
    )


def _tidy(raw: Path, keep: set[str]) -> None:
    """Remove what an earlier download left and this one does not have (JPEG images after PNG ones came)."""
    before = read_json(raw / "manifest.json") if (raw / "manifest.json").exists() else {}
    if before.get("how") in {"download", "copy"}:
        for name in set(before["files"]) - keep:
            (raw / name).unlink(missing_ok=True)
