"""A bar on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

log = logging.getLogger(__name__)

Advance = Callable[[int], None]
LINES = 10  # about as many lines a log gets


@contextmanager
def progress(title: str, total: int, *, size: bool = False) -> Iterator[Advance]:
    """Hands out `advance(n)`, safe to call from threads. size: n counts bytes; n < 0 where a file starts over.

    total: how much it will be, 0 where nobody knows.
    """
    if sys.stderr.isatty():
        with _bar(title, total, size=size) as advance:
            yield advance
    else:
        yield _lines(title, total, size=size)


@contextmanager
def _bar(title: str, total: int, *, size: bool) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount = (DownloadColumn(), TransferSpeedColumn()) if size else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total or None)
        yield lambda n: bar.advance(task, n)


def _lines(title: str, total: int, *, size: bool) -> Advance:
    lock, done, told = Lock(), 0, 0

    def advance(n: int) -> None:
        nonlocal done, told
        with lock:
            done += n
            share = LINES * done // total if total else (done >> 20).bit_length()  # unknown: each doubling
            if share > told:
                told = share
                amounts = [f"{n / 1e6:.1f}" if size else str(n) for n in ((done, total) if total else (done,))]
                log.info("%s: %s%s", title, " of ".join(amounts), " MB" if size else "")

    return advance
