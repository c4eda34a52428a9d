"""Runs in processes of their own that crash points, signals or nobody ends; and what such a run leaves, to compare.

Processes are forked from one that has imported segkd, so that each costs what the run costs, not what torch costs.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from segkd.config.runs import Run
from segkd.files import read_json, sha256_file
from segkd.tracking.journal import read

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["preloaded", "killing"])
_path = os.environ.get("PYTHONPATH")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), _path]))
forkserver.ensure_running()  # Python 3.11 preloads by this path only, and says nothing of what it does not find
os.environ.pop("PYTHONPATH") if _path is None else os.environ.update(PYTHONPATH=_path)


def attempt(root: Path, run: Run, *, crash: str = "", seconds: float = 120, **options: Any) -> int:
    """Train in a process that dies at the crash point; returns its exit code, -9 where it was killed."""
    process = _forks.Process(target=_train, args=(root, run, crash, {"save_seconds": 0.0} | options))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _train(root: Path, run: Run, crash: str, options: dict[str, Any]) -> None:
    from segkd import steps
    from segkd.crash import arm
    from segkd.errors import SegkdError

    arm(crash)
    step = steps.teacher if run.method == "none" and run.network == "large" else steps.student
    try:
        step(run, steps.Options(root=root, **options))
    except SegkdError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def result(root: Path, run: Run) -> dict[str, Any]:
    """All that a finished run says and that must not depend on interruptions; files by their hash."""
    folder = root / run.folder
    record = read_json(folder / "run.json")
    for changing in ("timing", "memory"):
        record.pop(changing)
    lines = [line for line in read(folder / "metrics.jsonl") if line["kind"] != "event"]
    measured = [(line["kind"], line["iteration"], line["values"]) for line in lines]
    files = {path.name: sha256_file(path) for path in folder.glob("*.safetensors")}
    return {"record": record, "journal": measured, "files": files, "left": sorted(folder.glob(".*"))}
