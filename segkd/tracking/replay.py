"""Mirror a study's runs into MLflow. The files under data/models are the truth; this cannot touch them."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from segkd.config.load import load_params, load_study
from segkd.config.params import Params
from segkd.config.runs import REPORTS, Run, describe, resolve, study_runs
from segkd.errors import SegkdError
from segkd.files import write_json
from segkd.tracking.cells import cell_name, close_cell, open_cell
from segkd.tracking.mirror import mirror
from segkd.tracking.record import Record, read_record
from segkd.tracking.store import PATIENCE, Store, TrackingError, scrub

Answer = dict[str, str]
SECONDS = (60.0, 30.0)  # time limit of a whole replay: so many seconds, and so many more for each run
GIVE_UP = 2  # runs in a row that MLflow refused, after which the rest is not tried
log = logging.getLogger(__name__)


def track(study: str, root: Path = Path(), *, patience: float = PATIENCE) -> dict[str, Answer]:
    """Mirror every run of a study into MLflow and write reports/<study>/tracking.json.

    Returns what it writes: {run name: {"mlflow_run_id", "experiment_id"} or {"error": reason}}. MLflow absent, away,
    slow or locked is a reason, not an error; doing it again fills the gaps and duplicates nothing.
    patience: seconds that one request may wait for other writers.
    Raises ConfigError for a study that does not exist, OSError where tracking.json cannot be written.
    """
    params = load_params(root / "params.yaml")
    wanted = study_runs(params, load_study(study, root / "workflow" / "studies"))
    runs = _with_pretraining(wanted, root)
    answers, found = _read(runs, params, root)
    if found:
        try:
            answers |= _mirror_all(study, found, Store(params.tracking.uri, root, patience=patience), root)
        except Exception as error:  # noqa: BLE001 -- a mirror must never stop the pipeline
            reason = _reason(error, root)
            log.warning("MLflow has no copy of study %s: %s; later: segkd track replay %s", study, reason, study)
            answers |= {record.run.name: {"error": reason} for record in found}
    write_json(root / REPORTS / study / "tracking.json", dict(sorted(answers.items())))
    return answers


def _with_pretraining(runs: list[Run], root: Path) -> list[Run]:
    """The runs, and the pretraining beside them where there was one."""
    pretrained = [Run(run.recipe, run.network, run.method, run.teacher, None) for run in runs if run.teacher]
    return [*runs, *(run for run in dict.fromkeys(pretrained) if (root / run.folder / "run.json").exists())]


def _read(runs: list[Run], params: Params, root: Path) -> tuple[dict[str, Answer], list[Record]]:
    """Reasons for the runs that cannot be read, and the others' records."""
    answers: dict[str, Answer] = {}
    found: list[Record] = []
    for run in runs:
        try:
            config = {} if run.seed is None else describe(resolve(params, run))
            found.append(read_record(root, run, config))
        except Exception as error:  # noqa: BLE001 -- nor must one damaged file
            answers[run.name] = {"error": _reason(error, root)}
    return answers, found


def _mirror_all(study: str, found: list[Record], store: Store, root: Path) -> dict[str, Answer]:
    """Cell by cell: the parent, its seeds, then the parent's means."""
    deadline = time.monotonic() + SECONDS[0] + SECONDS[1] * len(found)
    experiment = store.experiment(f"segkd/{study}")
    answers: dict[str, Answer] = {}
    failures: list[str] = []
    for cell in _cells(found):
        parent = ""
        for record in cell:
            try:
                if len(failures) >= GIVE_UP:
                    raise TrackingError(f"not tried, since the runs before failed: {failures[-1]}")
                if time.monotonic() > deadline:
                    raise TrackingError("the time limit of this replay has passed")
                parent = parent or open_cell(store, experiment, study, cell)
                run_id = mirror(store, experiment, study, record, parent, root)
                answers[record.run.name] = {"mlflow_run_id": run_id, "experiment_id": experiment}
                failures.clear()
            except Exception as error:  # noqa: BLE001 -- one run's trouble must not keep the others from MLflow
                reason = _reason(error, root)
                answers[record.run.name] = {"error": reason}
                if isinstance(error, TrackingError):
                    failures.append(reason)
                log.warning("%s is not in MLflow: %s", record.run.name, reason)
        if parent and not failures:
            _close(store, parent, cell, root)
    return answers


def _cells(found: list[Record]) -> list[list[Record]]:
    """Runs that differ in nothing but the seed; a pretraining joins the runs it belongs to."""
    cells: dict[tuple[Any, ...], list[Record]] = {}
    for record in found:
        run = record.run
        cells.setdefault((run.recipe, run.network, run.method, run.teacher), []).append(record)
    return list(cells.values())


def _close(store: Store, parent: str, cell: list[Record], root: Path) -> None:
    try:
        close_cell(store, parent, cell)
    except Exception as error:  # noqa: BLE001 -- the runs are mirrored, and the answers must say so
        log.warning("MLflow has no means of %s: %s", cell_name(cell[0]), _reason(error, root))


def _reason(error: Exception, root: Path) -> str:
    """One line, without credentials and without the folders of this machine."""
    text = " ".join(scrub(error).split()) or type(error).__name__
    text = text if isinstance(error, SegkdError) else f"{type(error).__name__}: {text}"
    return text.replace(f"{root.resolve()}{os.sep}", "")[:500]
