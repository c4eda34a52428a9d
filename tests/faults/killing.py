"""Runs in processes of their own that crash points, signals or nobody ends; and what such a run leaves, to compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from forks import process

from segkd.config.runs import Run
from segkd.files import read_json, sha256_file
from segkd.tracking.journal import read


def attempt(root: Path, run: Run, *, crash: str = "", seconds: float = 120, **options: Any) -> int:
    """Train in a process that dies at the crash point; returns its exit code, -9 where it was killed."""
    training = process(train_until, root, run, crash, {"save_seconds": 0.0} | options)
    training.start()
    training.join(seconds)
    training.kill()
    training.join()
    assert training.exitcode is not None
    return training.exitcode


def train_until(root: Path, run: Run, crash: str, options: dict[str, Any]) -> None:
    """Train to the crash point, or to the end, in this process; exits as the command line does."""
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
