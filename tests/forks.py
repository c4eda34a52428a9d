"""Processes for tests, forked from one that has imported segkd: each costs what its work costs, torch left out."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")


def process(work: Callable[..., None], *args: Any) -> BaseProcess:
    """A process that will call work(*args) once it is started."""
    _start_server()
    return _context.Process(target=work, args=args)


@functools.cache
def _start_server() -> None:
    """Python 3.11 finds what to preload by PYTHONPATH only, and says nothing of what it does not find.

    Called by who needs a process, never on import: a process imports these modules as well and would start a server.
    """
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), path]))
    _context.set_forkserver_preload(["preloaded"])
    forkserver.ensure_running()
    os.environ.pop("PYTHONPATH") if path is None else os.environ.update(PYTHONPATH=path)
