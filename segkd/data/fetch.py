"""Fetch files over HTTP: in parallel, resuming, retrying, and nothing counts before its hash is right.

A file grows as <name>.part and takes its name when its hash is right; where none is known, when all that the server
announced has come. Whatever cannot change by trying again (404, 403, a web page instead of the file, another size)
ends at once; the rest is tried again after a pause.
"""

from __future__ import annotations

import errno
import http.client
import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from segkd import __version__
from segkd.data.progress import Advance, progress
from segkd.data.remote import PAGES, Remote, fault_of, is_page
from segkd.errors import DownloadError, explain, listing

__all__ = ["Open", "Patience", "Remote", "fetch"]

log = logging.getLogger(__name__)

PIECE = 1 << 16
SLOWEST = 1000  # bytes per second, below which a transfer counts as stalled
ENOUGH = 8  # failed files after which the rest is not tried
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
LOCAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


Open = Callable[[urllib.request.Request, float], Any]  # a request and its timeout in seconds -> the response


@dataclass(frozen=True)
class Patience:
    """attempts per file; timeout: seconds without a byte; pause: seconds before the second attempt, then doubled."""

    attempts: int = 5
    timeout: float = 30.0
    pause: float = 1.0


@dataclass(frozen=True)
class _Way:
    """What all files of one call share."""

    folder: Path
    patience: Patience
    open: Open
    advance: Advance
    stop: Event


class _TryAgainError(Exception):
    """A fault that may pass; `after`: seconds that the server asks to wait."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class _GiveUpError(Exception):
    """A fault that trying again does not change."""


def _open(request: urllib.request.Request, timeout: float) -> Any:
    return urllib.request.urlopen(request, timeout=timeout)


def fetch(
    files: Sequence[Remote],
    folder: Path,
    *,
    title: str,
    by_hand: str | Callable[[Sequence[Remote]], str],
    connections: int = 8,
    patience: Patience | None = None,
    open_: Open = _open,
) -> None:
    """Bring every file into `folder`; those already there with the right hash are kept.

    DownloadError lists every file that failed and why; `by_hand` tells how to place files that came another way, if
    need be from those that failed. open_: for servers that let in only who is logged in.
    """
    failed: dict[Remote, str] = {}
    with progress(title, sum(file.bytes or 0 for file in files), size=True) as advance:
        way = _Way(folder, patience or Patience(), open_, advance, Event())
        pool = ThreadPoolExecutor(connections)
        jobs = {pool.submit(_one, file, way): file for file in files}
        try:
            for job in as_completed(jobs):
                if fault := job.result():
                    failed[jobs[job]] = fault
                if len(failed) >= ENOUGH:
                    break
        finally:
            way.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    if failed:
        hint = by_hand if isinstance(by_hand, str) else by_hand(list(failed))
        raise DownloadError(
            explain(
                f"{len(failed)} of {len(files)} files could not be fetched"
                + (", the rest was not tried." if len(failed) >= ENOUGH else "."),
                expected="the published files, by " + _checks(files),
                found="\n" + listing(sorted(failed.values())),
                where=folder,
                fix=f"run it again (what has come is kept), or {hint}",
            )
        )


def _checks(files: Sequence[Remote]) -> str:
    return ", ".join(sorted({file.check[0] if file.check else "size" for file in files}))


def _one(remote: Remote, way: _Way) -> str:
    """Fetch one file; "" or what went wrong."""
    target = way.folder / remote.name
    part = target.with_name(target.name + ".part")
    if target.exists():
        if not (fault := fault_of(remote, target)):
            way.advance(target.stat().st_size)
            return ""
        log.warning("%s: the file that is there is not it (%s); fetching it", remote.name, fault)
    target.parent.mkdir(parents=True, exist_ok=True)
    way.advance(_size(part))
    wrong, reason, patience = 0, "stopped", way.patience
    for attempt in range(patience.attempts):
        if way.stop.is_set():
            break
        try:
            _transfer(remote, part, way)
            if fault := fault_of(remote, part):
                wrong += 1
                _start_over(part, way)
                raise (_GiveUpError if wrong == 2 else _TryAgainError)(fault)
            part.replace(target)
            return ""
        except _GiveUpError as fault:
            return f"{remote.name}: {fault} [{remote.url}]"
        except _TryAgainError as fault:
            reason, after = str(fault), fault.after
        log.info("%s: %s; attempt %d of %d", remote.name, reason, attempt + 1, patience.attempts)
        if attempt + 1 < patience.attempts:
            way.stop.wait(max(after, patience.pause * 2**attempt))
    return f"{remote.name}: {reason}, after {patience.attempts} attempts [{remote.url}]"


def _start_over(part: Path, way: _Way) -> None:
    way.advance(-_size(part))
    part.unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _transfer(remote: Remote, part: Path, way: _Way) -> None:
    """One attempt to complete `part`, from where it ends."""
    have, total = _size(part), remote.bytes
    if total is not None and have >= total:
        return  # its hash decides
    try:
        with _request(remote, have, way) as response:
            total = _announced(response, remote, _resumed(response, part, way))
            _receive(response, total, part, way)
    except urllib.error.HTTPError as error:
        if remote.bytes is None and _all_there(error, have):
            return
        _judge(error, part, way)
    except (OSError, http.client.HTTPException) as error:
        _judge_connection(error)
    if total is not None and (size := _size(part)) < total:
        raise _TryAgainError(f"the connection was cut at {size} of {total} bytes")


def _request(remote: Remote, have: int, way: _Way) -> Any:
    if not remote.url.startswith(("https://", "http://")):
        raise _GiveUpError("not an http address")
    headers = {"User-Agent": f"segkd/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    return way.open(urllib.request.Request(remote.url, headers=headers), way.patience.timeout)


def _resumed(response: Any, part: Path, way: _Way) -> int:
    """Bytes of `part` that the body continues; 0 from a server that ignores Range and sends the whole file (200)."""
    have = _size(part)
    if response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
        return have
    _start_over(part, way)
    if response.status == 206:
        raise _TryAgainError("the server sent another range than asked")
    return 0


def _announced(response: Any, remote: Remote, have: int) -> int | None:
    """Bytes that the file will have, None where nobody says; stops before a body that cannot be the file."""
    if response.headers.get_content_type() in PAGES:
        raise _GiveUpError(f"a web page came instead of the file (a login or a proxy? {response.geturl()})")
    length = str(response.headers.get("Content-Length", ""))
    if not length.isdigit():
        return remote.bytes
    total = have + int(length)
    if remote.bytes not in {None, total}:
        kind = "short" if total < (remote.bytes or 0) else "long"
        raise _GiveUpError(f"the server's file is too {kind}: {total} bytes, published are {remote.bytes}")
    return total


def _receive(response: Any, total: int | None, part: Path, way: _Way) -> None:
    size = first = _size(part)
    started = time.monotonic()
    with part.open("ab") as file:
        while piece := response.read1(PIECE):
            if not size and is_page(piece):
                raise _GiveUpError("a web page came instead of the file (a login or a proxy?)")
            size += len(piece)
            if total is not None and size > total:
                raise _GiveUpError(f"the server's file is too long: more than the published {total} bytes")
            file.write(piece)
            way.advance(len(piece))
            if way.stop.is_set():
                raise _TryAgainError("stopped")
            allowed = way.patience.timeout + ((total or size) - first) / SLOWEST
            if time.monotonic() > started + allowed:
                raise _TryAgainError(f"the transfer stalled at {size} of {total or 'unknown'} bytes")


def _all_there(error: urllib.error.HTTPError, have: int) -> bool:
    """Whether a server that cannot continue (416) says that the file ends where ours does."""
    end = error.headers.get("Content-Range") if error.headers else None
    return error.code == 416 and have > 0 and end == f"bytes */{have}"


def _judge(error: urllib.error.HTTPError, part: Path, way: _Way) -> None:
    after = error.headers.get("Retry-After", "") if error.headers else ""
    error.close()
    if error.code == 416:
        _start_over(part, way)
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
