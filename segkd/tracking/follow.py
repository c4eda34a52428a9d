"""Mirror one running run into MLflow while it trains, from a process of its own.

`python -m segkd.tracking.follow FOLDER --pid N` only reads the journal, so it can neither stop nor slow training. The
replay finds the same MLflow run and completes it.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from segkd.config.load import load_params, load_study
from segkd.config.params import Params
from segkd.config.runs import Run, describe, resolve, study_runs
from segkd.errors import SegkdError
from segkd.tracking import record as records
from segkd.tracking.cells import open_cell
from segkd.tracking.journal import parse
from segkd.tracking.mirror import open_run
from segkd.tracking.record import Point, read_record
from segkd.tracking.store import Store, TrackingError, quiet_environment, scrub, stored

EVERY = 10.0  # seconds between two looks at the journal
AGAIN = 60.0  # seconds until MLflow is tried again after it failed
LOG = Path("mlartifacts/follow.log")  # not in the run's folder: nothing may change there once DVC has hashed it
log = logging.getLogger(__name__)


def start_follower(folder: Path, *, root: Path = Path(), pid: int | None = None) -> None:
    """Start mirroring the run in `folder`, detached, at low priority; it ends with the process `pid` (this one).

    Returns within milliseconds and never raises: without a mirror the journal still has everything.
    """
    try:
        words = ["-m", "segkd.tracking.follow", str(folder.resolve()), "--pid", str(pid or os.getpid())]
        (root / LOG).parent.mkdir(parents=True, exist_ok=True)
        with (root / LOG).open("ab") as output:
            subprocess.Popen(
                [sys.executable, *words],
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for training; the follower sees its end and finishes
            )
    except Exception as error:  # noqa: BLE001 -- whatever goes wrong here, training goes on
        log.warning("MLflow is not fed while this run trains: %s", error)


class Tail:
    """Reads the lines that a journal has gained. `restarted`: it was rewound, and is read from its beginning again."""

    def __init__(self, path: Path):
        self.path, self.restarted = path, False
        self._offset, self._file = 0, (0, 0)

    def read(self) -> list[dict[str, Any]]:
        """New whole lines; DataError where one is damaged."""
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                identity = (state.st_dev, state.st_ino)
                self.restarted = self._offset > 0 and (identity != self._file or state.st_size < self._offset)
                self._offset, self._file = (0 if self.restarted else self._offset), identity
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        end = content.rfind(b"\n") + 1
        self._offset += end
        return parse(content[:end], self.path)


class Follower:
    """Feeds one run's new lines to MLflow; keeps what MLflow would not take until it does."""

    def __init__(self, folder: Path, root: Path):
        self.run, self.root, self.folder = Run.parse(folder), root, folder
        self.params = load_params(root / "params.yaml")
        self.study = study_of(self.run, self.params, root)
        self.tail = Tail(folder / "metrics.jsonl")
        self._pending: list[Point] = []
        self._store: Store | None = None
        self._run_id = ""
        self._silent_until = 0.0

    def look(self) -> None:
        """Send what is new. MLflow's failures are logged, and tried again after a while."""
        new = records.journal_points(self.tail.read())
        self._pending = new if self.tail.restarted else self._pending + new
        self._run_id = "" if self.tail.restarted else self._run_id
        if time.monotonic() < self._silent_until or not self._pending:
            return
        try:
            self._send()
        except (TrackingError, OSError) as error:
            log.warning("%s: not mirrored: %s", self.run.name, scrub(error))
            self._store, self._run_id = None, ""  # a replay may have put another run in its place meanwhile
            self._silent_until = time.monotonic() + AGAIN

    def end(self) -> None:
        """The last lines, and how the run ended."""
        self._silent_until = 0.0
        self.look()
        if self._store is None or not self._run_id:
            return
        record = read_record(self.root, self.run, {})
        status, end = records.status(record)
        if status == "RUNNING":  # its process is gone without a word
            status, end = "FAILED", int(record.lines[-1]["time"] * 1000)
        try:
            self._store.finish(self._run_id, status, end)
        except TrackingError as error:
            log.warning("%s: its end is not mirrored: %s", self.run.name, scrub(error))

    def _send(self) -> None:
        store = self._store = self._store or Store(self.params.tracking.uri, self.root)
        if not self._run_id:
            self._open(store)
        store.measure(self._run_id, self._pending)
        self._pending = []

    def _open(self, store: Store) -> None:
        """Find or make the run, and make those values pending that it lacks."""
        record = read_record(self.root, self.run, describe(resolve(self.params, self.run)))
        wanted = records.points(record)
        experiment = store.experiment(f"segkd/{self.study}")
        tags = records.tags(record, self.study) | {
            "mlflow.parentRunId": open_cell(store, experiment, self.study, [record])
        }
        run_id, held, _ = open_run(store, experiment, record, wanted, tags, self.root)
        store.describe(run_id, records.params(record.config), tags)
        store.finish(run_id, "RUNNING", None)
        self._pending = [point for point in wanted if stored(point) not in held]
        self._run_id = run_id


def study_of(run: Run, params: Params, root: Path) -> str:
    """The study that a run belongs to: the first of those that params.yaml lists, else of all; `other` for none."""
    names = sorted(file.stem for file in (root / "workflow" / "studies").glob("*.yaml"))
    listed = [] if params.studies == "auto" else [name for name in params.studies if name in names]
    cell = (run.recipe, run.network, run.method, run.teacher)
    for name in dict.fromkeys([*listed, *names]):
        with suppress(SegkdError):
            study = load_study(name, root / "workflow" / "studies")
            if any(cell == (one.recipe, one.network, one.method, one.teacher) for one in study_runs(params, study)):
                return name
    return "other"


def follow(folder: Path, root: Path, pid: int, *, every: float = EVERY) -> None:
    """Mirror until run.json is there or the process `pid` is gone."""
    born = _birth(pid)
    follower = Follower(folder, root)
    while born and _birth(pid) == born and not (folder / "run.json").exists():
        follower.look()
        _wait(every, folder, pid)
    follower.end()


def _wait(every: float, folder: Path, pid: int) -> None:
    until = time.monotonic() + every
    while time.monotonic() < until and _birth(pid) and not (folder / "run.json").exists():
        time.sleep(min(1.0, every))


def _birth(pid: int) -> str:
    """What tells a living process from a later one of the same number; empty when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


def main() -> None:
    """Command line of the process: FOLDER --pid N [--every SECONDS], run from the project's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pid", type=int, required=True, help="the training process; its end is the follower's end")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between two looks")
    words = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    quiet_environment()
    with suppress(OSError):
        os.nice(10)
    try:
        follow(words.folder, Path.cwd(), words.pid, every=words.every)
    except (SegkdError, OSError) as error:
        log.warning("%s is no longer followed: %s", words.folder, scrub(error))


if __name__ == "__main__":
    main()
