"""Fetch a published file once, check it by its sha256, keep it in a cache folder."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from filelock import FileLock

from segkd.errors import DownloadError, explain
from segkd.files import atomic_open, atomic_write, sha256_file

log = logging.getLogger(__name__)
TIMEOUT = 30.0  # seconds without a byte
TRIES = 3
PIECE = 1 << 20


def cache_folder() -> Path:
    """$SEGKD_CACHE, or ~/.cache/segkd."""
    chosen = os.environ.get("SEGKD_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "segkd"


def fetch(
    file: str, base: str, sha256: str = "", *, page: str = "", source: str | Path | None = None, pause: float = 1.0
) -> Path:
    """Path of a verified copy of `file` in the cache folder, fetched where it is not there yet.

    base: URL of the folder that has it; "" where it can only be had by hand, from `page`. sha256: the hash, or the
    first digits of it; "" where none is published: then the file must be the one that `remember` noted, if any.
    source: a folder or URL (https, http, file) that holds the file, instead of `base`; $SEGKD_WEIGHTS says the same for
    a whole machine, for work without network. pause: seconds before the second try, doubled for the third.
    DownloadError where it cannot be fetched or kept, or another file came.
    """
    target = cache_folder() / file
    if right(target, sha256):
        return target
    origin = source or os.environ.get("SEGKD_WEIGHTS") or base
    if not origin:
        found = "another file" if target.exists() else "no such file"
        raise _failure(target, sha256, found, target, page)
    url = address(file, origin)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{file}.lock")):
            if not right(target, sha256):  # another process may have fetched it meanwhile
                _persist(url, target, sha256 or recorded(target), pause)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failure(target, sha256, error, url, page) from None
    return target


def address(file: str, source: str | Path) -> str:
    """URL of a file in a folder or below a URL."""
    text = str(source)
    if urllib.parse.urlsplit(text).scheme in ("https", "http", "file"):
        return f"{text.rstrip('/')}/{file}"
    return (Path(text).expanduser().resolve() / file).as_uri()


def local(url: str) -> Path | None:
    """The file that a URL names on this machine; None for one on the network."""
    parts = urllib.parse.urlsplit(url)
    return Path(urllib.request.url2pathname(parts.path)) if parts.scheme == "file" else None


def right(path: Path, sha256: str) -> bool:
    """Whether a file is there and has this hash (first digits do); without one, the hash noted beside it, if any."""
    return path.is_file() and sha256_file(path).startswith(sha256 or recorded(path))


def recorded(path: Path) -> str:
    """The hash that `remember` noted for a file; "" where it noted none."""
    note = _note(path)
    return note.read_text(encoding="utf-8").partition(" ")[0] if note.is_file() else ""


def remember(path: Path) -> None:
    """Note a file's sha256 beside it, once, as `sha256sum` does: for files whose publisher gives none."""
    if not recorded(path):
        atomic_write(_note(path), f"{sha256_file(path)}  {path.name}\n")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _failure(target: Path, sha256: str, found: object, where: object, page: str) -> DownloadError:
    noted = "" if sha256 else recorded(target)
    known = sha256 or noted
    steps = [f"download it from {page}"] if page else []
    steps.append(f"put the file into {target.parent} by hand, or set SEGKD_WEIGHTS to a folder that holds it")
    if noted:
        steps.append(f"if its publisher has replaced it, delete {_note(target)}")
    return DownloadError(
        explain(
            f"{target.name} could not be fetched.",
            expected=f"a file whose sha256 starts with {known}" if known else "the published file",
            found=found,
            where=where,
            fix="; ".join(steps),
        )
    )


def _persist(url: str, target: Path, sha256: str, pause: float) -> None:
    """Download, and try again where the line or the server failed; a refusal (4xx) is final."""
    for attempt in range(1, TRIES + 1):
        try:
            _download(url, target, sha256)
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or attempt == TRIES:
                raise
            log.warning("fetching %s failed (try %d of %d): %s", url, attempt, TRIES, error)
        time.sleep(pause * 2 ** (attempt - 1))


def _download(url: str, target: Path, sha256: str) -> None:
    """Write what `url` holds to `target` if it is whole and has this hash; ValueError if not, and nothing is left."""
    digest, size = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, atomic_open(target) as out:
        while piece := answer.read(PIECE):
            out.write(piece)
            digest.update(piece)
            size += len(piece)
        promised = answer.headers.get("Content-Length")
        if promised is not None and int(promised) != size:
            raise ValueError(f"the line broke: {size} of {promised} bytes came")
        if not digest.hexdigest().startswith(sha256):
            raise ValueError(f"another file came: {size} bytes with sha256 {digest.hexdigest()}")
