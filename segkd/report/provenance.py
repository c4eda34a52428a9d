"""Where every number comes from: runs with their files, and what data, code, software and hardware they share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkd.config.runs import RELEASED, REPORTS, Run
from segkd.errors import without_credentials
from segkd.report import text
from segkd.report.collect import Entry, StudyEvidence, import_command
from segkd.report.evidence import PERCENT, Evidence
from segkd.report.noise import noise_floor

MLFLOW = "http://127.0.0.1:5000"
_FILES = ("run.json", "evaluation.json", "metrics.jsonl", "log.txt")


@dataclass(frozen=True)
class RunLine:
    """One run as the page lists it. `files`: (name, link relative to the page); `mlflow`: (id, link), or None."""

    name: str
    seed: int | None
    miou: float | None
    files: tuple[tuple[str, str], ...]
    mlflow: tuple[str, str] | None
    no_mlflow: str
    weights: str
    started: str
    wall: str
    command: str
    note: str


def run_lines(study: StudyEvidence, entry: Entry) -> list[RunLine]:
    """The runs of a row."""
    return [_line(study, entry, one) for one in entry.evidence]


def _line(study: StudyEvidence, entry: Entry, one: Evidence) -> RunLine:
    record = one.record or {}
    timing, score = record.get("timing", {}), one.score("miou")
    page = study.root / REPORTS / study.name
    folder = study.root / one.run.folder
    files = tuple((name, _relative(folder / name, page)) for name in _FILES if (folder / name).exists())
    mlflow, no_mlflow = _mlflow(one)
    return RunLine(
        name=one.run.name,
        seed=one.run.seed,
        miou=None if score is None else PERCENT * score,
        files=files,
        mlflow=mlflow,
        no_mlflow=no_mlflow,
        weights=str(record.get("weights", {}).get("sha256", "")),
        started=str(timing.get("started", "")),
        wall=text.duration(timing.get("wall_seconds")),
        command=str(record.get("command") or _command(entry, one.run)),
        note="; ".join(note for note in (one.missing, *one.flags) if note),
    )


def _command(entry: Entry, run: Run) -> str:
    """What would make a run."""
    if entry.cell.checkpoint:
        return import_command(entry.cell.checkpoint, run)
    return f"segkd {'teacher' if entry.is_teacher else 'student'} {run.name}"


def _relative(target: Path, page: Path) -> str:
    """A link from the page's folder; the template quotes what a URL cannot hold."""
    return Path(os.path.relpath(target, page)).as_posix()


def _mlflow(one: Evidence) -> tuple[tuple[str, str] | None, str]:
    found = one.mlflow or {}
    run, experiment = str(found.get("mlflow_run_id", "")), str(found.get("experiment_id", ""))
    if re.fullmatch(r"[0-9a-f]{8,64}", run) and re.fullmatch(r"[0-9]{1,32}", experiment):
        return (run, f"{MLFLOW}/#/experiments/{experiment}/runs/{run}"), ""
    return None, str(found.get("error") or "not mirrored")


def store(uri: str) -> str:
    """The tracking URI without user and password."""
    return without_credentials(uri)


def facts(study: StudyEvidence) -> list[tuple[str, list[str]]]:
    """Data, code, software and hardware of all runs; more than one value in a line means that runs differ in it."""
    runs = [one for entry in study.entries for one in entry.evidence]
    records = [one.record for one in runs if one.record]
    trained = [one.record for one in runs if one.record and one.run.method != RELEASED]
    scored = [one.evaluation for one in runs if one.evaluation]
    lines = {
        "data (sha256 of content)": [_data(record) for record in records],
        "scored on": [_terms(evaluation) for evaluation in scored],
        "code (fingerprint of what a step runs)": [_code(record) for record in records],
        "git commit": [_commit(record.get("code", {})) for record in records],
        "software": [
            ", ".join(f"{name} {value}" for name, value in record.get("versions", {}).items()) for record in records
        ],
        "hardware": [_hardware(record.get("hardware", {})) for record in records],
        "two runs of the same differ by": noise_floor(study),
        "latency measured on": [_latency(evaluation["cost"]) for evaluation in scored],
        "trained between": _span(record.get("timing", {}) for record in trained),
        "training time, sum of all runs": [text.duration(sum(_wall(record) for record in trained))] if trained else [],
    }
    return [(name, [one for one in dict.fromkeys(values) if one]) for name, values in lines.items()]


def _wall(record: dict[str, Any]) -> float:
    return float(record.get("timing", {}).get("wall_seconds", 0.0))


def _data(record: dict[str, Any]) -> str:
    data = record.get("data", {})
    return f"{data.get('name')}: {data['sha256']}" if data.get("sha256") else ""  # none: weights from elsewhere


def _code(record: dict[str, Any]) -> str:
    name = str(record.get("config", {}).get("method", {}).get("method", ""))
    method = f" ({name})" if record.get("step") == "student" and name != "none" else ""
    return f"{record.get('step')}{method}: {record.get('code', {}).get('fingerprint')}"


def _commit(code: dict[str, Any]) -> str:
    commit = code.get("git_commit")
    return (
        f"{commit}{', with uncommitted changes' if code.get('git_dirty') else ''}" if commit else "not in a repository"
    )


def _terms(evaluation: dict[str, Any]) -> str:
    protocol = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in evaluation["protocol"].items() if value is not None
    )
    return f"{evaluation['split']}, {evaluation.get('images', '?')} images ({protocol})"


def _hardware(found: dict[str, Any]) -> str:
    parts = [str(found.get("cpu", "")), f"{found.get('cores')} cores", f"{found.get('threads')} thread(s) a run"]
    parts += [f"GPU {found['gpu']}"] if found.get("gpu") else ["no GPU"]
    return ", ".join([*parts, f"{found.get('memory_gb')} GB memory"]) if found else ""


def _latency(cost: dict[str, Any]) -> str:
    device = cost.get("latency_device")
    size = " x ".join(map(str, cost.get("input", [])))
    return f"{device}, {cost.get('latency_threads')} thread(s), input {size}" if device else ""


def _span(timings: Iterable[dict[str, Any]]) -> list[str]:
    times = [timing for timing in timings if timing.get("started") and timing.get("finished")]
    if not times:
        return []
    return [f"{min(str(one['started']) for one in times)} and {max(str(one['finished']) for one in times)}"]
