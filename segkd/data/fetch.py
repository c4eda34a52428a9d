"""Fetch files over HTTP: in parallel, resuming, retrying, and nothing counts before its sha256 is right.

A file grows as <name>.part and takes its name when its hash is right. Whatever cannot change by trying again
(404, 403, a web page instead of the file, another size) ends at once; the rest is tried again after a pause.
"""

from __future__ import annotations

import errno
import http.client
import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from segkd import __version__
from segkd.data.progress import Advance, progress
from segkd.errors import DownloadError, explain, listing
from segkd.files import sha256_file

log = logging.getLogger(__name__)

PIECE = 1 << 16
SLOWEST = 1000  # bytes per second, below which a transfer counts as stalled
ENOUGH = 8  # failed files after which the rest is not tried
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
LOCAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True)
class Remote:
    """A published file. name: where it goes, relative to the target folder; bytes and sha256: what it must be."""

    url: str
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Patience:
    """attempts per file; timeout: seconds without a byte; pause: seconds before the second attempt, then doubled."""

    attempts: int = 5
    timeout: float = 30.0
    pause: float = 1.0


class _TryAgainError(Exception):
    """A fault that may pass; `after`: seconds that the server asks to wait."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class _GiveUpError(Exception):
    """A fault that trying again does not change."""


def fetch(
    files: Sequence[Remote],
    folder: Path,
    *,
    title: str,
    by_hand: str,
    connections: int = 8,
    patience: Patience | None = None,
) -> None:
    """Bring every file into `folder`; those already there with the right hash are kept.

    DownloadError lists every file that failed and why; `by_hand` tells how to place files that came another way.
    """
    stop, failed = Event(), []
    with progress(title, sum(file.bytes for file in files), size=True) as advance:
        pool = ThreadPoolExecutor(connections)
        jobs = [pool.submit(_one, file, folder, patience or Patience(), stop, advance) for file in files]
        try:
            for job in as_completed(jobs):
                if fault := job.result():
                    failed.append(fault)
                if len(failed) >= ENOUGH:
                    break
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    if failed:
        raise DownloadError(
            explain(
                f"{len(failed)} of {len(files)} files could not be fetched"
                + (", the rest was not tried." if len(failed) >= ENOUGH else "."),
                expected="the published files, by sha256",
                found="\n" + listing(sorted(failed)),
                where=folder,
                fix=f"run it again (what has come is kept), or {by_hand}",
            )
        )


def _one(remote: Remote, folder: Path, patience: Patience, stop: Event, advance: Advance) -> str:
    """Fetch one file; "" or what went wrong."""
    target = folder / remote.name
    part = target.with_name(target.name + ".part")
    if target.exists() and sha256_file(target) == remote.sha256:
        advance(remote.bytes)
        return ""
    target.parent.mkdir(parents=True, exist_ok=True)
    advance(_size(part))
    wrong, reason = 0, "stopped"
    for attempt in range(patience.attempts):
        if stop.is_set():
            break
        try:
            _transfer(remote, part, patience, stop, advance)
            if not _right(remote, part, advance):
                wrong += 1
                raise (_GiveUpError if wrong == 2 else _TryAgainError)("the content is another one (wrong sha256)")
            part.replace(target)
            return ""
        except _GiveUpError as fault:
            return f"{remote.name}: {fault} [{remote.url}]"
        except _TryAgainError as fault:
            reason, after = str(fault), fault.after
        log.info("%s: %s; attempt %d of %d", remote.name, reason, attempt + 1, patience.attempts)
        if attempt + 1 < patience.attempts:
            stop.wait(max(after, patience.pause * 2**attempt))
    return f"{remote.name}: {reason}, after {patience.attempts} attempts [{remote.url}]"


def _right(remote: Remote, part: Path, advance: Advance) -> bool:
    if sha256_file(part) == remote.sha256:
        return True
    _start_over(part, advance)
    return False


def _start_over(part: Path, advance: Advance) -> None:
    advance(-_size(part))
    part.unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _transfer(remote: Remote, part: Path, patience: Patience, stop: Event, advance: Advance) -> None:
    """One attempt to complete `part`, from where it ends."""
    have = _size(part)
    if have >= remote.bytes:
        return  # its hash decides
    try:
        with _request(remote, have, patience.timeout) as response:
            _refuse_other(response, remote, _resumed(response, part, advance))
            _receive(response, remote, part, patience, stop, advance)
    except urllib.error.HTTPError as error:
        _judge(error, part, advance)
    except (OSError, http.client.HTTPException) as error:
        _judge_connection(error)
    if (size := _size(part)) < remote.bytes:
        raise _TryAgainError(f"the connection was cut at {size} of {remote.bytes} bytes")


def _request(remote: Remote, have: int, timeout: float) -> Any:
    if not remote.url.startswith(("https://", "http://")):
        raise _GiveUpError("not an http address")
    headers = {"User-Agent": f"segkd/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    return urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=timeout)


def _resumed(response: Any, part: Path, advance: Advance) -> int:
    """Bytes of `part` that the body continues; 0 from a server that ignores Range and sends the whole file (200)."""
    have = _size(part)
    if response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
        return have
    _start_over(part, advance)
    if response.status == 206:
        raise _TryAgainError("the server sent another range than asked")
    return 0


def _refuse_other(response: Any, remote: Remote, have: int) -> None:
    """Stop before a body that cannot be the file: a web page (login, proxy), or another length."""
    if response.headers.get_content_type() in {"text/html", "application/xhtml+xml"}:
        raise _GiveUpError(f"a web page came instead of the file (a login or a proxy? {response.geturl()})")
    length = response.headers.get("Content-Length")
    if length is not None and length.isdigit() and have + int(length) != remote.bytes:
        kind = "short" if have + int(length) < remote.bytes else "long"
        raise _GiveUpError(f"the server's file is too {kind}: {have + int(length)} bytes, published are {remote.bytes}")


def _receive(response: Any, remote: Remote, part: Path, patience: Patience, stop: Event, advance: Advance) -> None:
    size = _size(part)
    deadline = time.monotonic() + patience.timeout + (remote.bytes - size) / SLOWEST
    with part.open("ab") as file:
        while piece := response.read1(PIECE):
            if not size and piece.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
                raise _GiveUpError("a web page came instead of the file (a login or a proxy?)")
            size += len(piece)
            if size > remote.bytes:
                raise _GiveUpError(f"the server's file is too long: more than the published {remote.bytes} bytes")
            file.write(piece)
            advance(len(piece))
            if stop.is_set():
                raise _TryAgainError("stopped")
            if time.monotonic() > deadline:
                raise _TryAgainError(f"the transfer stalled at {size} of {remote.bytes} bytes")


def _judge(error: urllib.error.HTTPError, part: Path, advance: Advance) -> None:
    after = error.headers.get("Retry-After", "") if error.headers else ""
    error.close()
    if error.code == 416:
        _start_over(part, advance)
        raise _TryAgainError("the server cannot continue the file")
    if error.code in TRY_AGAIN:
        raise _TryAgainError(f"HTTP {error.code} {error.reason}", min(60.0, float(after)) if after.isdigit() else 0.0)
    raise _GiveUpError(f"HTTP {error.code} {error.reason}")


def _judge_connection(error: Exception) -> None:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, OSError) and cause.errno in LOCAL:
        raise _GiveUpError(f"cannot be written: {cause}") from None
    if isinstance(cause, ssl.SSLCertVerificationError):
        raise _GiveUpError(f"the server's certificate is not trusted: {cause.verify_message}") from None
    if isinstance(cause, TimeoutError):
        raise _TryAgainError("the server fell silent") from None
    raise _TryAgainError(f"no connection: {str(cause) or type(cause).__name__}") from None
