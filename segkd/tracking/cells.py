"""The runs of one table cell under one parent in MLflow, which shows their mean."""

from __future__ import annotations

import hashlib
import statistics
import time
from typing import Any

from segkd.config.base import canonical
from segkd.tracking import record as records
from segkd.tracking.record import Point, Record
from segkd.tracking.store import Store


def cell_name(record: Record) -> str:
    """Name of the parent run: kd@large · digits-small."""
    run = record.run
    learning = f"{run.method}@{run.teacher}" if run.teacher else run.method
    return f"{learning} · {run.recipe}-{run.network}"


def shared(record: Record) -> dict[str, Any]:
    """The configuration that a cell's runs have in common: everything but name and seed."""
    return {key: value for key, value in record.config.items() if key not in ("run", "seed")}


def open_cell(store: Store, experiment: str, study: str, cell: list[Record]) -> str:
    """The run that stands for a table's cell: found by study, cell and configuration, or made."""
    first = cell[0]
    name, config = cell_name(first), shared(first)
    identity = hashlib.sha256(f"cell {study} {name} {canonical(config)}".encode()).hexdigest()
    start = min(int(records.started(record.lines, record.done) * 1000) for record in cell)
    tags = {"segkd.identity": identity, "study": study, "recipe": first.run.recipe, "network": first.run.network}
    tags |= {"method": first.run.method} | ({"teacher": first.run.teacher} if first.run.teacher else {})

    def find_or_make() -> str:
        found = store.find(experiment, identity)
        return str(found[0].info.run_id) if found else store.create(experiment, name, start, tags)

    parent = store.exclusively(find_or_make)
    store.describe(parent, records.params(config), {})
    return parent


def close_cell(store: Store, parent: str, cell: list[Record]) -> None:
    """Mean, sd over seeds (n - 1) and n of the cell's mIoU; finished when every seed is."""
    wanted, shown = means(cell), store.latest(parent)
    if any(shown.get(name) != value for name, value in wanted.items()):
        now = int(time.time() * 1000)  # the newest value is the one that MLflow shows
        store.measure(parent, [Point(name, value, now, 0) for name, value in wanted.items()])
    ends = [records.status(record)[1] for record in cell]
    finished = all(record.done for record in cell)
    store.finish(parent, "FINISHED" if finished else "RUNNING", max(end or 0 for end in ends) if finished else None)


def means(cell: list[Record]) -> dict[str, float]:
    """<split>/miou_mean, _sd and _n over the cell's scored runs; fractions 0..1; no sd of one run."""
    scored = [record.scores for record in cell if record.scores.get("scores", {}).get("miou") is not None]
    if not scored:
        return {}
    key, values = f"{scored[0]['split']}/miou", [float(scores["scores"]["miou"]) for scores in scored]
    found = {f"{key}_mean": statistics.fmean(values), f"{key}_n": float(len(values))}
    return found | ({f"{key}_sd": statistics.stdev(values)} if len(values) > 1 else {})
