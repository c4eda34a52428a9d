"""The numbers of a row, computed once: means over seeds, gain over the student without teacher, cost, verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from segkd.config.runs import Run
from segkd.report.collect import Entry, StudyEvidence
from segkd.report.estimate import Estimate, estimate
from segkd.report.evidence import Evidence, read_sums
from segkd.report.verdict import Verdict, judge

RESAMPLES = 2000
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
PERCENT = 100.0


@dataclass(frozen=True)
class Gain:
    """Difference of mIoU to the student without teacher, points, with its paired 95 % interval, and what it means."""

    mean: float
    low: float
    high: float
    seeds: int
    per_seed: tuple[float, ...]

    @property
    def words(self) -> str:
        """better, worse, or no gain visible: on which side of zero the interval lies."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no gain visible"


@dataclass(frozen=True)
class Row:
    """A row as printed. Scores in percent, gains in points, times in seconds, memory in bytes."""

    entry: Entry
    label: str
    miou: Estimate | None
    pixel_accuracy: Estimate | None
    boundary_iou: Estimate | None
    ece: Estimate | None
    best_miou: Estimate | None
    gain: Gain | None
    no_gain: str  # why there is no gain
    parameters: float | None
    flops: float | None
    seconds: Estimate | None
    pretraining_seconds: float | None
    peak_bytes: float | None
    peak_device: str
    verdict: Verdict | None

    @property
    def key(self) -> str:
        """Name of the row in metrics.json and in links."""
        return self.entry.key

    @property
    def is_baseline(self) -> bool:
        """Is it a student without teacher, which gains refer to?"""
        return self.entry.cell.method == "none" and not self.entry.is_teacher

    @property
    def flags(self) -> tuple[str, ...]:
        """What does not fit together in this row's files, with the seeds concerned."""
        return tuple(f"{one.run.name}: {flag}" for one in self.entry.evidence for flag in one.flags)


@dataclass(frozen=True)
class TableRows:
    """A table's name, title and rows, teachers first."""

    name: str  # safe in file names and links
    title: str
    rows: tuple[Row, ...]

    @property
    def students(self) -> tuple[Row, ...]:
        """The rows that are no teachers."""
        return tuple(row for row in self.rows if not row.entry.is_teacher)

    @property
    def flags(self) -> tuple[str, ...]:
        """All rows' flags, each once."""
        return tuple(dict.fromkeys(flag for row in self.rows for flag in row.flags))

    @property
    def has_best(self) -> bool:
        """Was a best-on-val checkpoint kept by any row?"""
        return any(row.best_miou for row in self.rows)

    @property
    def judged(self) -> bool:
        """Has any row a published value?"""
        return any(row.verdict for row in self.rows)


def study_rows(study: StudyEvidence) -> tuple[TableRows, ...]:
    """All tables of a study with their numbers."""
    baselines = {_student(entry.run): entry for entry in study.entries if entry.cell.method == "none"}
    done: dict[tuple[str, bool], tuple[Gain | None, str]] = {}
    tables = []
    for place, table in enumerate(study.tables, 1):
        rows = []
        for entry in table.entries:
            key = entry.key, entry.is_teacher
            if key not in done:
                done[key] = _gain(study, entry, baselines.get(_student(entry.run)))
            rows.append(_row(entry, _label(entry, table.entries), *done[key]))
        name = table.table.name if _SAFE.fullmatch(table.table.name) else f"table{place}"
        tables.append(TableRows(name, table.table.title, tuple(rows)))
    return tuple(tables)


def _student(run: Run) -> tuple[str, str]:
    return run.recipe, run.network


def _label(entry: Entry, others: Iterable[Entry]) -> str:
    """What a row is called in figures and sentences."""
    if entry.is_teacher:
        alike = [one for one in others if one.is_teacher]
        return "teacher" if len(alike) == 1 else f"teacher {entry.run.network}"
    name = "student alone" if entry.cell.method == "none" else entry.cell.method
    students = {_student(one.run) for one in others if not one.is_teacher}
    if len({network for _, network in students}) > 1:
        name += f" · {entry.run.network}"
    if len({recipe for recipe, _ in students}) > 1:
        name += f" · {entry.run.recipe}"
    return name


def _row(entry: Entry, label: str, gain: Gain | None, no_gain: str) -> Row:
    scored = entry.scored
    miou = _percent(one.score("miou") for one in scored)
    records = [one.record for one in scored if one.record]
    costs = [one.evaluation["cost"] for one in scored if one.evaluation]
    pretrained = [one.pretraining["timing"]["wall_seconds"] for one in scored if one.pretraining]
    peak, device = _peak([record.get("memory", {}) for record in records])
    split = scored[0].evaluation["split"] if scored and scored[0].evaluation else None
    return Row(
        entry=entry,
        label=label,
        miou=miou,
        pixel_accuracy=_percent(one.score("pixel_accuracy") for one in scored),
        boundary_iou=_percent(one.score("boundary_iou") for one in scored),
        ece=_percent(one.score("ece") for one in scored),
        best_miou=_percent(one.best() for one in scored),
        gain=gain,
        no_gain=no_gain,
        parameters=next((cost.get("parameters") for cost in costs), None),
        flops=next((cost.get("flops") for cost in costs), None),
        seconds=estimate([float(record["timing"]["wall_seconds"]) for record in records if "timing" in record]),
        pretraining_seconds=pretrained[0] if pretrained else None,
        peak_bytes=peak,
        peak_device=device,
        verdict=judge(entry.published, miou, split, entry.missing or "no score"),
    )


def _percent(fractions: Iterable[float | None]) -> Estimate | None:
    return estimate([PERCENT * value for value in fractions if value is not None])


def _peak(memories: list[dict[str, float | None]]) -> tuple[float | None, str]:
    """Largest peak over seeds: of the GPU where one was used, else of the process."""
    for name, device in (("peak_gpu_bytes", "GPU"), ("peak_rss_bytes", "RAM")):
        values = [value for memory in memories if (value := memory.get(name))]
        if values:
            return max(values), device
    return None, ""


def _gain(study: StudyEvidence, entry: Entry, baseline: Entry | None) -> tuple[Gain | None, str]:
    """Paired gain over the same student without teacher on the seeds that both have, or why there is none."""
    if entry.is_teacher:
        return None, ""
    if entry.cell.method == "none":
        return None, "reference"
    if baseline is None:
        return None, "no student without teacher in this study"
    ours, theirs = ({one.run.seed: one for one in rows.scored} for rows in (entry, baseline))
    if not ours:
        return None, entry.missing
    seeds = sorted(seed for seed in ours.keys() & theirs.keys() if seed is not None)
    if not seeds:
        return None, f"student without teacher: {baseline.missing}"
    return _paired(study, [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def _paired(study: StudyEvidence, ours: list[Evidence], theirs: list[Evidence]) -> tuple[Gain | None, str]:
    sums, base = ([read_sums(study.root, one.run) for one in group] for group in (ours, theirs))
    if any(one is None for one in (*sums, *base)):
        return None, "per_image.npz is missing or damaged"
    pairs = [(mine, other) for mine, other in zip(sums, base, strict=True) if mine and other]
    if any(mine.ids != other.ids or mine.label.shape != other.label.shape for mine, other in pairs):
        return None, "scored on other images than the student without teacher"
    from segkd.evaluation.stats import paired_gain_interval

    absent: Any = ours[0].evaluation["protocol"]["absent_classes"] if ours[0].evaluation else "nan"
    gain, low, high = paired_gain_interval(
        [mine.sums for mine, _ in pairs], [other.sums for _, other in pairs], resamples=RESAMPLES, seed=0, absent=absent
    )
    if math.isnan(gain + low + high):
        return None, "no class occurs in label or prediction"
    seeds = zip(ours, theirs, strict=True)
    differences = tuple(PERCENT * ((a.score("miou") or 0.0) - (b.score("miou") or 0.0)) for a, b in seeds)
    return Gain(PERCENT * gain, PERCENT * low, PERCENT * high, len(pairs), differences), ""
