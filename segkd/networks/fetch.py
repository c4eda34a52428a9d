"""Fetch a published file once, check it by the start of its sha256, keep it in a cache folder."""

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
from segkd.files import atomic_open, sha256_file

log = logging.getLogger(__name__)
TIMEOUT = 30.0  # seconds without a byte
TRIES = 3
PIECE = 1 << 20


def cache_folder() -> Path:
    """$SEGKD_CACHE, or ~/.cache/segkd."""
    chosen = os.environ.get("SEGKD_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "segkd"


def fetch(file: str, base: str, sha256: str, *, source: str | Path | None = None, pause: float = 1.0) -> Path:
    """Path of a verified copy of `file` in the cache folder, fetched where it is not there yet.

    sha256: the hash, or the first digits of it. source: a folder or URL (https, http, file) that holds the file,
    instead of `base`; $SEGKD_WEIGHTS says the same for a whole machine, for work without network. pause: seconds before
    the second try, doubled for the third. DownloadError where it cannot be fetched or kept, or another file came.
    """
    target = cache_folder() / file
    if _right(target, sha256):
        return target
    url = address(file, source or os.environ.get("SEGKD_WEIGHTS") or base)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{file}.lock")):
            if not _right(target, sha256):  # another process may have fetched it meanwhile
                _persist(url, target, sha256, pause)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(
            explain(
                f"{file} could not be fetched.",
                expected=f"a file whose sha256 starts with {sha256}",
                found=error,
                where=url,
                fix=f"put the file into {target.parent} by hand, or set SEGKD_WEIGHTS to a folder that holds it",
            )
        ) from None
    return target


def address(file: str, source: str | Path) -> str:
    """URL of a file in a folder or below a URL."""
    text = str(source)
    if urllib.parse.urlsplit(text).scheme in ("https", "http", "file"):
        return f"{text.rstrip('/')}/{file}"
    return (Path(text).expanduser().resolve() / file).as_uri()


def _right(path: Path, sha256: str) -> bool:
    return path.exists() and sha256_file(path).startswith(sha256)


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
    """Write what `url` holds to `target` if its hash is right; ValueError if not, and then nothing is left behind."""
    digest, size = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, atomic_open(target) as out:
        while piece := answer.read(PIECE):
            out.write(piece)
            digest.update(piece)
            size += len(piece)
        if not digest.hexdigest().startswith(sha256):
            raise ValueError(f"another file came: {size} bytes with sha256 {digest.hexdigest()}")
