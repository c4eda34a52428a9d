"""The door to MLflow: imports it late, sets its SQLite store up once, retries, gives up within a time limit.

Every failure comes out as `TrackingError`, with credentials removed from its message.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from segkd.errors import SegkdError, without_credentials
from segkd.files import atomic_open
from segkd.tracking.record import Dataset, Point

BATCH = 1000  # metrics in one request: MLflow's limit
PROXY = "mlflow-artifacts:/"  # artifacts below ./mlartifacts of wherever the server was started
PATIENCE = 60.0  # seconds that one request may wait for other writers
_LOCKED = ("database is locked", "database table is locked", "database is busy")
_LARGEST = 1.7976931348623157e308  # what MLflow stores for infinity

Result = TypeVar("Result")


class TrackingError(SegkdError):
    """MLflow is not installed, not reachable, too slow, or refuses. Nothing is lost: the journal has it."""


def quiet_environment() -> None:
    """No telemetry, and time limits on a server that hangs; what the user has set stays."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")


def scrub(text: object) -> str:
    """A message without user names, passwords and tokens."""
    found = without_credentials(text)
    found = re.sub(r"(?i)(bearer|basic)\s+[\w.~+/=-]{8,}", r"\1 ***", found)
    found = re.sub(r"(?i)((?:password|passwd|token|secret|key)=)[^&\s'\"]+", r"\1***", found)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if os.environ.get(name):
            found = found.replace(os.environ[name], "***")
    return found


def locate(uri: str, root: Path) -> tuple[str, Path | None, bool]:
    """(address for MLflow, SQLite file or None, whether it was relative). Relative files lie in the project."""
    if not uri.startswith("sqlite:///"):
        return uri, None, False
    written = Path(uri.removeprefix("sqlite:///"))
    file = (root / written).resolve()
    return f"sqlite:///{file}", file, not written.is_absolute()


class Store:
    """One connection to one MLflow store. `client` is MLflow's own; go through `call` for anything that may fail."""

    def __init__(self, uri: str, root: Path, *, patience: float = PATIENCE):
        quiet_environment()
        self.patience = patience
        self.uri, self.file, self.relative = locate(os.environ.get("MLFLOW_TRACKING_URI") or uri, root)
        try:
            from mlflow.tracking import MlflowClient
        except Exception as error:  # noqa: BLE001 -- a broken installation raises anything
            raise TrackingError(f"MLflow cannot be imported: {_reason(error)}") from None
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are told once, by TrackingError
        self._lock = FileLock(f"{self.file or root.resolve() / 'mlflow.db'}.lock")
        if self.file:
            self._set_up(self.file)
        self.client = self.call(lambda: MlflowClient(tracking_uri=self.uri))

    def call(self, action: Callable[[], Result]) -> Result:
        """Do one thing to the store. On SQLite one process at a time: its own waiting gives up under eight writers."""
        deadline, pause = time.monotonic() + self.patience, 0.05
        while True:
            try:
                if self.file is None:
                    return action()
                with self._lock.acquire(timeout=max(deadline - time.monotonic(), 0.0), poll_interval=0.01):
                    return action()
            except Timeout:
                raise TrackingError(self._held()) from None
            except Exception as error:  # noqa: BLE001 -- whatever MLflow raises, training must not hear of it
                if not _busy(error) or time.monotonic() + pause > deadline:
                    raise TrackingError(f"{scrub(self.uri)}: {_reason(error)}") from None
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def exclusively(self, action: Callable[[], Result]) -> Result:
        """Look and then write without another process of this project between the two."""
        try:
            with self._lock.acquire(timeout=self.patience, poll_interval=0.01):
                return action()
        except Timeout:
            raise TrackingError(self._held()) from None
        except OSError as error:
            raise TrackingError(f"the lock {self._lock.lock_file} cannot be had: {error}") from None

    def _held(self) -> str:
        return f"other writers held {self._lock.lock_file} for {self.patience:g} seconds"

    def experiment(self, name: str) -> str:
        """Id of the experiment, made where missing and restored where deleted."""
        location = (
            f"{PROXY}{name}" if self.relative else str(self.file.parent / "mlartifacts" / name) if self.file else None
        )

        def find_or_make() -> str:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                return str(self.client.create_experiment(name, artifact_location=location))
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)

        return self.exclusively(lambda: self.call(find_or_make))

    def find(self, experiment: str, identity: str) -> list[Any]:
        """MLflow's runs that mirror one training, oldest first."""
        query = f"tags.`segkd.identity` = '{identity}'"
        found = self.call(lambda: self.client.search_runs([experiment], query, order_by=["attributes.start_time ASC"]))
        return list(found)

    def create(self, experiment: str, name: str, start: int, tags: dict[str, str]) -> str:
        """Id of a new run that began at `start`, milliseconds since 1970."""
        made = self.call(lambda: self.client.create_run(experiment, start_time=start, tags=tags, run_name=name))
        return str(made.info.run_id)

    def delete(self, run_id: str) -> None:
        """Hide a run (MLflow keeps it until `mlflow gc`)."""
        self.call(lambda: self.client.delete_run(run_id))

    def latest(self, run_id: str) -> dict[str, float]:
        """The values that MLflow shows for a run."""
        return dict(self.call(lambda: self.client.get_run(run_id)).data.metrics)

    def history(self, run_id: str, keys: Sequence[str]) -> set[Point]:
        """Every value that a run holds of these metrics."""
        found = [entry for key in keys for entry in self.call(partial(self.client.get_metric_history, run_id, key))]
        return {stored(Point(entry.key, entry.value, entry.timestamp, entry.step)) for entry in found}

    def describe(self, run_id: str, params: dict[str, str], tags: dict[str, str]) -> None:
        """Set parameters (once; equal values may be repeated) and tags (again and again)."""
        from mlflow.entities import Param, RunTag

        rows: list[Any] = [Param(*item) for item in params.items()] + [RunTag(*item) for item in tags.items()]
        for start in range(0, len(rows), 100):
            part = rows[start : start + 100]
            some_params = [row for row in part if isinstance(row, Param)]
            some_tags = [row for row in part if isinstance(row, RunTag)]
            self.call(partial(self.client.log_batch, run_id, params=some_params, tags=some_tags))

    def measure(self, run_id: str, points: Sequence[Point]) -> None:
        """Send metrics in batches; a value that is there already changes nothing."""
        from mlflow.entities import Metric

        for start in range(0, len(points), BATCH):
            batch = [Metric(*point) for point in points[start : start + BATCH]]
            self.call(partial(self.client.log_batch, run_id, metrics=batch))

    def inputs(self, run_id: str, datasets: Sequence[Dataset]) -> None:
        """List data sets among the run's inputs."""
        from mlflow.entities import Dataset as Entity
        from mlflow.entities import DatasetInput, InputTag

        rows = [
            DatasetInput(
                Entity(one.name, one.digest, "local", f'{{"uri": "{one.source}"}}'),
                [InputTag("mlflow.data.context", one.context)],
            )
            for one in datasets
        ]
        if rows:
            self.call(lambda: self.client.log_inputs(run_id, datasets=rows))

    def artifacts(self, run_id: str, folder: Path) -> None:
        """Copy a folder's files to the run; files of the same name are replaced."""
        target = self.call(lambda: self.client.get_run(run_id)).info.artifact_uri
        if self.file is None or not target.startswith(PROXY):
            self.call(lambda: self.client.log_artifacts(run_id, str(folder)))
            return
        place = self.file.parent / "mlartifacts" / target.removeprefix(PROXY)
        try:
            for file in (found for found in sorted(folder.rglob("*")) if found.is_file()):
                with atomic_open(place / file.relative_to(folder)) as copy, file.open("rb") as source:
                    shutil.copyfileobj(source, copy)
        except OSError as error:
            raise TrackingError(f"artifacts cannot be written to {place}: {error}") from None

    def finish(self, run_id: str, status: str, end: int | None) -> None:
        """Set the run's status and, where it has ended, when (milliseconds since 1970)."""
        if end is None:
            self.call(lambda: self.client.update_run(run_id, status=status))
        else:
            self.call(lambda: self.client.set_terminated(run_id, status, end))

    def _set_up(self, file: Path) -> None:
        """Make the SQLite file under the lock and put it in place whole: many processes may come first at once."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self.exclusively(lambda: None if file.exists() else self.call(lambda: _make_database(file)))
            with closing(sqlite3.connect(file, timeout=min(self.patience, 20.0))) as connection:
                connection.execute("BEGIN IMMEDIATE")  # so that a lock shows now and not in every request
                connection.rollback()
        except (OSError, sqlite3.Error) as error:
            raise TrackingError(f"{file} cannot be used: {error}") from None


def _make_database(file: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    SqlAlchemyStore(f"sqlite:///{new}", PROXY).engine.dispose()
    new.replace(file)


def stored(point: Point) -> Point:
    """A point as it comes back from the store, with NaN made comparable."""
    if math.isnan(point.value):
        return point._replace(key=f"{point.key} (nan)", value=0.0)
    return point._replace(value=max(-_LARGEST, min(_LARGEST, point.value)))


def _busy(error: Exception) -> bool:
    return any(words in str(error).lower() for words in _LOCKED)


def _reason(error: Exception) -> str:
    lines = [line for line in scrub(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]
