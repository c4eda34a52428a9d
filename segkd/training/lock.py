"""One writer per run: a lock that a dying process releases by itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from segkd.errors import LockedError, explain
from segkd.files import atomic_write


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; LockedError says who holds it if another living process does."""
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / "holder.txt"
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        who = holder.read_text() if holder.exists() else "an unknown process"
        raise LockedError(
            explain(
                "Another process is training this run.",
                expected="one writer per run",
                found=who.strip(),
                where=folder,
                fix="wait for it or stop it; a lock of a dead process needs no removing",
            )
        ) from None
    try:
        atomic_write(holder, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        lock.release()
