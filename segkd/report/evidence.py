"""What one run left behind, read without trust: whatever is missing or contradicts itself is said, never a crash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from pydantic import ValidationError

from segkd.config.params import Params
from segkd.config.runs import Resolved, Run, resolve, teacher_of
from segkd.errors import DataError
from segkd.evaluation.per_image import PerImage
from segkd.files import read_json
from segkd.report.missing import NOT_MADE, log_end
from segkd.tracking import journal

FORMAT = 1
PERCENT = 100.0  # scores are kept as fractions, and shown and compared in percent
_NEEDED = {"scores", "classes", "per_class", "split", "protocol", "data_sha256", "weights_sha256", "cost"}


@dataclass(frozen=True)
class Evidence:
    """What one run left: run.json (`record`), evaluation.json, MLflow's ids; `missing` says why there is no score."""

    run: Run
    record: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    pretraining: dict[str, Any] | None = None
    mlflow: dict[str, Any] | None = None
    missing: str = ""
    flags: tuple[str, ...] = ()

    def score(self, name: str) -> float | None:
        """A score of the last checkpoint, fraction 0..1; None where the run has none."""
        value = self.evaluation["scores"].get(name) if self.evaluation else None
        return None if value is None else float(value)

    def best(self) -> float | None:
        """mIoU of the checkpoint that was best on val, fraction; None where none was kept."""
        best = self.evaluation.get("best") if self.evaluation else None
        value = best["scores"].get("miou") if best else None
        return None if value is None else float(value)

    def chosen(self, selection: str) -> float | None:
        """mIoU, percent, of the checkpoint that a published value asks for: `last`, or `best` on val."""
        value = self.best() if selection == "best" else self.score("miou")
        return None if value is None else PERCENT * value


def read_object(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Content of a JSON object and what is wrong with it (`absent`, or why it cannot be used)."""
    if not path.exists():
        return None, "absent"
    try:
        content = read_json(path)
    except DataError:
        return None, f"{path.name} is damaged"
    return (content, "") if isinstance(content, dict) else (None, f"{path.name} is damaged")


def read_evidence(
    run: Run, params: Params, root: Path, tracked: Mapping[str, Any], reasons: Mapping[str, str]
) -> Evidence:
    """All of a run's evidence; `tracked`: MLflow's ids by name of run, `reasons`: why runs cannot be made here."""
    folder = root / run.folder
    record, no_record = read_object(folder / "run.json")
    evaluation, no_evaluation = read_object(folder / "evaluation.json")
    pretraining = (
        read_object(root / replace(run, seed=None).folder / "run.json")[0]
        if record and record.get("pretraining")
        else None
    )
    if evaluation is not None and (evaluation.get("format") != FORMAT or not evaluation.keys() >= _NEEDED):
        evaluation, no_evaluation = None, "evaluation.json has another format"
    missing = ""
    if evaluation is None:
        damaged = next((fault for fault in (no_evaluation, no_record) if fault not in {"", "absent"}), "")
        missing = damaged or reasons.get(run.name) or _unfinished(folder, trained=record is not None)
    found = Evidence(run, record, evaluation, pretraining, tracked.get(run.name), missing)
    return replace(found, flags=tuple(_faults(found, params, root)))


def _unfinished(folder: Path, *, trained: bool) -> str:
    """Why a run has no score, as far as its logs tell."""
    if trained:
        return f"trained, not evaluated ({end})" if (end := log_end(folder / "evaluation.txt")) else "not evaluated"
    return log_end(folder / "log.txt") or NOT_MADE


def _faults(found: Evidence, params: Params, root: Path) -> Iterable[str]:
    """Where the files of a run contradict each other or the configuration, or imported weights their origin."""
    record, evaluation = found.record, found.evaluation
    if evaluation and not record:
        yield "run.json is missing, so the score has no origin"
    if not record:
        return
    for difference in (record.get("import") or {}).get("differences", ()):
        yield f"not quite the released network: {difference}"
    if not _same_training(record.get("config"), resolve(params, found.run)):
        yield "trained under another configuration than params.yaml has now"
    if evaluation and evaluation["weights_sha256"] != record.get("weights", {}).get("sha256"):
        yield "evaluation.json scores other weights than run.json names"
    teacher, named = teacher_of(params, found.run), record.get("teacher")
    if teacher and named:
        now, _ = read_object(root / teacher.folder / "run.json")
        if now and now.get("weights", {}).get("sha256") != named.get("weights_sha256"):
            yield "learned from other teacher weights than the teacher's run.json names"


def _same_training(config: Any, now: Resolved) -> bool:
    """Do both decide the same weights? How to score may differ, data are compared by content, new settings count as
    their defaults."""
    try:
        then = Resolved.model_validate(config)
    except ValidationError:
        return False
    recipe = then.recipe.model_copy(update={"evaluation": now.recipe.evaluation})
    return then.model_copy(update={"recipe": recipe, "dataset": now.dataset}) == now


def read_sums(root: Path, run: Run) -> PerImage | None:
    """per_image.npz of a run; None where it is missing or damaged."""
    try:
        return PerImage.load(root / run.folder / "per_image.npz")
    except DataError:
        return None


def read_samples(root: Path, run: Run) -> dict[str, Int[np.ndarray, "h w"]]:
    """Predicted labels of the fixed sample images by image id, uint8 (H, W); empty where samples.npz is missing."""
    path = root / run.folder / "samples.npz"
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {str(name): file[f"prediction_{number}"] for number, name in enumerate(file["ids"])}


def read_journal(root: Path, run: Run) -> list[dict[str, Any]]:
    """metrics.jsonl of a run; empty where it is missing or damaged: curves are an illustration, not a result."""
    try:
        return journal.read(root / run.folder / "metrics.jsonl")
    except DataError:
        return []
