"""One run of segkd as one run of MLflow: found again by its identity, never twice, never with another's values."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from segkd.tracking import record as records
from segkd.tracking.artifacts import write_artifacts
from segkd.tracking.cells import cell_name
from segkd.tracking.record import Point, Record
from segkd.tracking.store import Store, stored


class Mirrored(NamedTuple):
    """A run in MLflow: its id, the values it holds already, and whether it has everything."""

    run_id: str
    held: set[Point]
    complete: bool


def open_run(
    store: Store, experiment: str, record: Record, wanted: list[Point], tags: dict[str, str], root: Path
) -> Mirrored:
    """The MLflow run of this training, made with `tags` if there is none.

    MLflow cannot take a value back. So a run that holds values beyond `wanted` (a killed run went back to its last
    checkpoint after they were mirrored; it was evaluated again), or another configuration, is hidden and a new one
    takes its place.
    """
    start = records.started(record.lines, record.done)
    identity = records.identity(record.run, start)
    expected = {stored(point) for point in wanted}

    def find_or_make() -> Mirrored:
        for found in store.find(experiment, identity):
            run_id = str(found.info.run_id)
            if found.data.tags.get("segkd.content") == record.content:
                return Mirrored(run_id, expected, complete=True)
            held = store.history(run_id, sorted(found.data.metrics))
            known = found.data.params.items() <= records.params(record.config).items()
            if known and (held <= expected or held <= _today(record, root)):
                return Mirrored(run_id, held, complete=False)
            store.delete(run_id)
        born = tags | {"segkd.identity": identity}
        return Mirrored(store.create(experiment, run_name(record), int(start * 1000), born), set(), complete=False)

    return store.exclusively(find_or_make)


def _today(record: Record, root: Path) -> set[Point]:
    """What the run's files say by now: since they were read, its follower may have mirrored more of them."""
    return {stored(point) for point in records.points(records.read_record(root, record.run, record.config))}


def run_name(record: Record) -> str:
    """Short name for MLflow's list: kd@large · digits-small · seed 0."""
    last = "autoencoder" if record.run.seed is None else f"seed {record.run.seed}"
    return f"{cell_name(record)} · {last}"


def mirror(store: Store, experiment: str, study: str, record: Record, parent: str, root: Path) -> str:
    """Bring MLflow's copy of a run up to date; returns its MLflow id. Nothing is sent twice.

    TrackingError where MLflow fails on the way: the next call goes on from there.
    """
    wanted = records.points(record)
    tags = records.tags(record, study) | {"mlflow.parentRunId": parent}
    run_id, held, complete = open_run(store, experiment, record, wanted, tags, root)
    if not complete:
        store.describe(run_id, records.params(record.config), tags)
        store.measure(run_id, [point for point in wanted if stored(point) not in held])
        store.inputs(run_id, records.datasets(record))
        with tempfile.TemporaryDirectory() as folder:
            write_artifacts(record, root, Path(folder))
            store.artifacts(run_id, Path(folder))
    store.finish(run_id, *records.status(record))
    store.describe(run_id, {}, {"mlflow.parentRunId": parent, "segkd.content": record.content})
    return run_id
