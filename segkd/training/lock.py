"""One writer per run: a lock that a dying process releases by itself.

The kernel's lock tells the processes of one machine apart. Over a shared folder it may not reach other machines: there
the holder's file says who writes, and is touched while that process lives.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from segkd.errors import LockedError, explain
from segkd.files import atomic_write, cannot_write

log = logging.getLogger(__name__)

BEAT = 15.0  # seconds between two signs of life
SILENT = 180.0  # seconds without one, after which a holder on another machine counts as dead


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; LockedError says who holds it if another living process does."""
    holder = folder / "holder.txt"
    lock = FileLock(folder / "lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        fix = "wait for it or stop it; a lock of a dead process needs no removing"
        raise _locked(folder, _who(holder), fix) from None
    except OSError as error:
        raise cannot_write(folder / "lock", error) from error
    try:
        _respect_others(holder)
        with _holding(holder):
            yield
    finally:
        lock.release()


@contextmanager
def _holding(holder: Path) -> Iterator[None]:
    """Say who holds the run, and that this process lives, until the run is over."""
    atomic_write(holder, f"process {os.getpid()} on {socket.gethostname()}\n")
    over = threading.Event()
    threading.Thread(target=_live, args=(holder, over), daemon=True, name="segkd-holder").start()
    try:
        yield
    finally:
        over.set()
        with suppress(OSError):
            holder.unlink()


def _who(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8").strip()
    except OSError:
        return "an unknown process"


def _respect_others(holder: Path) -> None:
    """Stop where another machine's process still gives signs of life; take over what a dead one left."""
    who, host = _who(holder), socket.gethostname()
    if not holder.exists() or who.endswith(f" on {host}"):
        return
    probe = holder.with_name(f".holder-{os.getpid()}")
    probe.touch()  # the clock that counts is the file system's: two machines' may differ
    silent = probe.stat().st_mtime - holder.stat().st_mtime
    probe.unlink()
    if silent < SILENT:
        fix = f"wait for it or stop it; if it is dead, wait {SILENT - silent:.0f} s or delete {holder}"
        raise _locked(holder.parent, f"{who}, which gave a sign of life {silent:.0f} s ago", fix)
    log.warning("taking over from %s, silent for %.0f s", who, silent)


def _live(holder: Path, over: threading.Event) -> None:
    """Give a sign of life from time to time, until the run is over."""
    while not over.wait(BEAT):
        with suppress(OSError):  # a full disk or a lost folder is for the run to tell
            os.utime(holder)


def _locked(folder: Path, who: str, fix: str) -> LockedError:
    what = "Another process is training this run."
    return LockedError(explain(what, expected="one writer per run", found=who, where=folder, fix=fix))
