"""Crash points: places in the code where a test kills the process as a power cut would. Without a test they do nothing.

    SEGKD_CRASH="renaming state-*:2" segkd student RUN

ends at the second passing of a point whose name fits the pattern, by SIGKILL: no handler, no `finally`, no flush.
"""

from __future__ import annotations

import os
import signal
from fnmatch import fnmatchcase

_armed: list[str | int] = []  # a pattern, and how many passings are left


def arm(where: str) -> None:
    """Die at `where`: a point's name or pattern, and after a colon at which passing (1); an empty text disarms."""
    pattern, _, count = where.partition(":")
    _armed[:] = [pattern, int(count or 1)] if pattern else []


def point(name: str) -> None:
    """A place where a test may let the process die."""
    if not _armed:
        return
    pattern, left = _armed
    if fnmatchcase(name, str(pattern)):
        _armed[1] = int(left) - 1
        if not _armed[1]:
            os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("SEGKD_CRASH", ""))
