"""A run's folder read for MLflow: who it is, its parameters, tags, metrics, data, times. No MLflow in here."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from segkd.config.base import digest
from segkd.config.runs import Run
from segkd.errors import DataError, explain
from segkd.files import read_json
from segkd.tracking import journal

FORMAT = 2  # of what is mirrored; another number makes the next replay send everything again
PARAM_LENGTH = 5999  # MLflow keeps 6000 characters of a parameter
TAG_LENGTH = 7999  # and 8000 of a tag
QUIET_SECONDS = 600.0  # a run without an end whose journal is older than this has died


class Point(NamedTuple):
    """One value of one metric; `timestamp` in milliseconds since 1970, `step` in finished updates."""

    key: str
    value: float
    timestamp: int
    step: int


class Record(NamedTuple):
    """Everything that a run's folder says. `done` is run.json, `scores` evaluation.json; {} where there is none.

    `content` is a hash of the files; equal hashes need no second replay.
    """

    run: Run
    folder: Path
    config: dict[str, Any]
    config_sha256: str
    lines: list[dict[str, Any]]
    done: dict[str, Any]
    scores: dict[str, Any]
    content: str


@dataclass(frozen=True)
class Dataset:
    """A data set as MLflow lists it among a run's inputs; MLflow keeps 36 characters of a digest."""

    name: str
    digest: str
    source: str
    context: str


def read_record(root: Path, run: Run, config: dict[str, Any]) -> Record:
    """Read a run's folder; `config` is used while there is no run.json. DataError where nothing was trained yet."""
    folder = root / run.folder
    content = _content(folder)  # before all else: a file that grows from here on makes the next replay look again
    done = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    lines = journal.read(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    if not done and not lines:
        raise DataError(
            explain(
                "Nothing was trained yet.",
                expected="run.json or metrics.jsonl",
                found="neither",
                where=run.folder,
                fix=f"train it: snakemake --cores all {run.folder}/run.json",
            )
        )
    scores = read_json(folder / "evaluation.json") if (folder / "evaluation.json").exists() else {}
    used = done.get("config", config)
    return Record(run, folder, used, done.get("config_sha256", digest(used)), lines, done, scores, content)


def identity(run: Run, started: float | str) -> str:
    """One training of one run, whoever mirrors it: hash of its name and of when it began."""
    return hashlib.sha256(f"{run.name} {started}".encode()).hexdigest()


def started(lines: list[dict[str, Any]], done: dict[str, Any]) -> float:
    """When this training began, seconds since 1970: its last `start` (a run begun anew keeps older ones)."""
    starts = [line["time"] for line in lines if line.get("event") == "start"] or [line["time"] for line in lines[:1]]
    return float(starts[-1]) if starts else seconds(done["timing"]["started"])


def seconds(stamp: str) -> float:
    """Seconds since 1970 of an ISO 8601 time."""
    return datetime.fromisoformat(stamp).timestamp()


def status(record: Record) -> tuple[str, int | None]:
    """MLflow's word for how the run stands, and its end in milliseconds since 1970 (None while it runs)."""
    if record.done:
        return "FINISHED", int(seconds(record.done["timing"]["finished"]) * 1000)
    last = record.lines[-1]
    if last.get("event") == "stop":
        return "KILLED", int(last["time"] * 1000)
    changed = (record.folder / "metrics.jsonl").stat().st_mtime
    return ("RUNNING", None) if time.time() - changed < QUIET_SECONDS else ("FAILED", int(last["time"] * 1000))


def _content(folder: Path) -> str:
    digest_ = hashlib.sha256(f"format {FORMAT}".encode())
    for name in ("run.json", "evaluation.json", "metrics.jsonl", "samples.npz"):
        path = folder / name
        digest_.update(name.encode() + (path.read_bytes() if path.exists() else b""))
    return digest_.hexdigest()


def name_of(text: str) -> str:
    """A key that MLflow takes: letters, digits and `_-. /`, and nothing that would lead elsewhere as a path."""
    parts = re.sub(r"[^\w\-. /]", "_", text, flags=re.ASCII)[:250].split("/")
    name = "/".join("_" * len(part) if part in (".", "..") else part for part in parts if part) or "_"
    return re.sub(r"^\.\.", "__", name)


def params(config: dict[str, Any]) -> dict[str, str]:
    """The configuration with dotted keys; lists as JSON, long values cut."""
    flat = {name_of(key): value if isinstance(value, str) else json.dumps(value) for key, value in _flatten(config, "")}
    return {
        key: value if len(value) <= PARAM_LENGTH else value[: PARAM_LENGTH - 1] + "…" for key, value in flat.items()
    }


def _flatten(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, value


def journal_points(lines: list[dict[str, Any]]) -> list[Point]:
    """Every value of a journal, as train/<name> and val/<name>; NaN and infinity come back from their notes."""
    return [
        Point(
            name_of(f"{line['kind']}/{name}"), _number(line, name, value), int(line["time"] * 1000), line["iteration"]
        )
        for line in lines
        for name, value in line.get("values", {}).items()
    ]


def _number(line: dict[str, Any], name: str, value: float | None) -> float:
    return float(line.get("note", {}).get(name, "nan") if value is None else value)


def final_points(record: Record) -> list[Point]:
    """The result: <split>/<score>, best_on_val/<score> and cost/<what>, dated at the end of training."""
    if not record.done:
        return []
    timing, scores = record.done["timing"], record.scores
    found = [(f"{scores['split']}/{name}", value) for name, value in scores["scores"].items()] if scores else []
    found += [(f"cost/{name}", value) for name, value in _cost(record).items()]
    end = int(seconds(timing["finished"]) * 1000)
    points = [Point(name_of(key), float(value), end, timing["iterations"]) for key, value in found if _is_number(value)]
    best = scores.get("best") or {}
    for name, value in best.get("scores", {}).items():
        if _is_number(value):
            points.append(Point(name_of(f"best_on_val/{name}"), float(value), end, best["iteration"]))
    return points


def _cost(record: Record) -> dict[str, Any]:
    timing = {f"training_{name}": value for name, value in record.done["timing"].items()}
    parameters = {"parameters": record.done.get("parameters")}
    return {**timing, **record.done.get("memory", {}), **parameters, **record.scores.get("cost", {})}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def points(record: Record) -> list[Point]:
    """All metrics of a run, each once."""
    return list(dict.fromkeys([*journal_points(record.lines), *final_points(record)]))


def tags(record: Record, study: str) -> dict[str, str]:
    """What one searches runs by: names, seed, versions of code, data and teacher, and the command that redoes it."""
    run, done, method = record.run, record.done, record.config.get("method", {})
    code, data, teacher = done.get("code", {}), done.get("data", {}), done.get("teacher") or {}
    found = {
        "study": study,
        "run": run.name,
        "recipe": run.recipe,
        "network": run.network,
        "method": run.method,
        "preset": _preset(method),
        "teacher": run.teacher,
        "seed": run.seed,
        "step": done.get("step"),
        "dataset": data.get("name"),
        "data_sha256": data.get("sha256"),
        "teacher_run": teacher.get("run"),
        "teacher_sha256": teacher.get("weights_sha256"),
        "config_sha256": record.config_sha256,
        "weights_sha256": done.get("weights", {}).get("sha256"),
        "code_fingerprint": code.get("fingerprint"),
        "git_commit": code.get("git_commit"),
        "git_dirty": code.get("git_dirty"),
        "command": done.get("command"),
        "hardware": done.get("hardware"),
        "versions": done.get("versions"),
        "mlflow.source.git.commit": code.get("git_commit"),
        "mlflow.source.name": done.get("command", "segkd"),
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": _note(record),
    }
    return {key: _text(value)[:TAG_LENGTH] for key, value in found.items() if value not in (None, {})}


def _preset(method: dict[str, Any]) -> str | None:
    """The preset of a method as params.yaml gives it: `paper` unless it says another; None without a teacher."""
    return None if method.get("method", "none") == "none" else method.get("preset", "paper")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _note(record: Record) -> str:
    command = record.done.get("command")
    again = f"\n\nTo do it again: `{command}`" if command else ""
    return f"`{record.run.name}`, mirrored from `{record.run.folder}`, which holds the weights.{again}"


def datasets(record: Record) -> list[Dataset]:
    """The data set as input: the split trained on and the one scored on."""
    data = record.done.get("data")
    if not data:
        return []
    scored, trained = record.scores.get("split"), data["sha256"]
    source = f"data/prepared/{data['name']}"
    contexts = [*(["train"] if trained else []), *([scored] if scored else [])]  # imported weights: trained elsewhere
    digest_ = (trained or record.scores.get("data_sha256") or "")[:36]
    return [Dataset(f"{data['name']}-{context}", digest_, source, context) for context in contexts]
