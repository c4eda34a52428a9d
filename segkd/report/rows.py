"""The numbers of a row, computed once: means over seeds, gain over the student without teacher, cost, verdicts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from segkd.config.runs import Run
from segkd.report import text
from segkd.report.collect import Entry, StudyEvidence
from segkd.report.estimate import Estimate, estimate
from segkd.report.evidence import PERCENT
from segkd.report.gains import Gain, gain
from segkd.report.published_gains import PublishedGain, published_gains
from segkd.report.verdict import Verdict, judge

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Row:
    """A row as printed. Scores in percent, gains in points, times in seconds, memory in bytes."""

    entry: Entry
    name: str  # within its table, whose other columns say which network, recipe and teacher
    label: str  # in figures and sentences
    miou: Estimate | None
    pixel_accuracy: Estimate | None
    class_accuracy: Estimate | None
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
    compared: Estimate | None  # the mIoU that the published value asks for: of the last checkpoint, or the best on val
    verdict: Verdict | None
    published_gain: PublishedGain | None
    published_as: str = ""  # what the study publishes of released weights that are scored again

    @property
    def key(self) -> str:
        """Name of the row's runs in metrics.json and in links; rows that show the same runs share it."""
        return self.entry.key

    @property
    def is_baseline(self) -> bool:
        """Is it a student without teacher, which gains refer to?"""
        return self.entry.alone and not self.entry.is_teacher

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
    def distinct(self) -> tuple[Row, ...]:
        """The rows with each set of runs once: what figures show."""
        first: dict[str, Row] = {}
        for row in self.rows:
            first.setdefault(row.key, row)
        return tuple(first.values())

    @property
    def flags(self) -> tuple[str, ...]:
        """All rows' flags, each once, with the runs that it is about."""
        about: dict[str, dict[str, None]] = {}
        for one in (one for row in self.rows for one in row.entry.evidence):
            for flag in one.flags:
                about.setdefault(flag, {})[one.run.name] = None
        return tuple(f"{flag}: {', '.join(runs)}" for flag, runs in about.items())

    @property
    def has_best(self) -> bool:
        """Was a best-on-val checkpoint kept by any row?"""
        return any(row.best_miou for row in self.rows)

    @property
    def scored(self) -> bool:
        """Has any row a score?"""
        return any(row.entry.scored for row in self.rows)

    @property
    def recipes(self) -> frozenset[str]:
        """The recipes of its students."""
        return frozenset(row.entry.run.recipe for row in self.rows if not row.entry.is_teacher)

    def publishes(self, *fields: str) -> bool:
        """Does any row's published value come with one of these fields?"""
        values = (row.entry.published for row in self.rows if row.entry.published)
        return any(getattr(one, name) is not None for one in values for name in fields)

    @property
    def judged(self) -> bool:
        """Has any row a published value?"""
        return any(row.verdict for row in self.rows)

    @property
    def gains_judged(self) -> bool:
        """Has any row a published gain?"""
        return any(row.published_gain for row in self.rows)


def study_rows(study: StudyEvidence, *, gains: bool = True) -> tuple[TableRows, ...]:
    """All tables of a study with their numbers; without `gains` no image is looked at, which is quick."""
    baselines = _baselines(study)
    done: dict[str, tuple[Gain | None, str]] = {}
    tables = []
    for place, table in enumerate(study.tables, 1):
        rows = []
        for entry, published in zip(table.entries, published_gains(table, study.tables), strict=True):
            if gains and entry.key not in done:
                done[entry.key] = gain(study, entry, baselines.get(_student(entry.run)))
            row = _row(entry, _label(entry, table.entries), *done.get(entry.key, (None, "")), published)
            rows.append(replace(row, published_as=_published_as(entry, study)))
        name = table.table.name if _SAFE.fullmatch(table.table.name) else f"table{place}"
        tables.append(TableRows(name, table.table.title, tuple(rows)))
    return tuple(tables)


def verdicts(tables: Sequence[TableRows]) -> Counter[str]:
    """How many published values have which verdict."""
    return Counter(row.verdict.word for table in tables for row in table.rows if row.verdict)


def gain_verdicts(tables: Sequence[TableRows]) -> Counter[str]:
    """How many published gains have which verdict."""
    return Counter(row.published_gain.verdict.word for table in tables for row in table.rows if row.published_gain)


def _published_as(entry: Entry, study: StudyEvidence) -> str:
    """The values of the network that released weights belong to, from wherever the study has them."""
    if not entry.released or entry.published:
        return ""
    entries = (one for table in study.tables for one in table.entries if one.alone)
    alike = (one for one in entries if _student(one.run) == _student(entry.run))
    values = (one.published for one in alike if one.published)
    return ", ".join(dict.fromkeys(f"{text.number(one.miou)} on {one.split}" for one in values))


def _baselines(study: StudyEvidence) -> Mapping[tuple[str, str], Entry]:
    """Per student its row without teacher, the one with most seeds."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in study.entries:
        student = _student(entry.run)
        if entry.alone and (student not in found or len(entry.evidence) > len(found[student].evidence)):
            found[student] = entry
    return found


def _student(run: Run) -> tuple[str, str]:
    return run.recipe, run.network


def _label(entry: Entry, others: Iterable[Entry]) -> str:
    """What a row is called in figures and sentences."""
    if entry.is_teacher:
        alike = {one.key for one in others if one.is_teacher}
        return "teacher" if len(alike) == 1 else f"teacher {entry.run.network}"
    name = _name(entry)
    students = [one.run for one in others if not one.is_teacher]
    if len({run.network for run in students}) > 1:
        name += f" · {entry.run.network}"
    if len({run.recipe for run in students}) > 1:
        name += f" · {entry.run.recipe}"
    teachers = {one.run.teacher for one in others if _untaught(one) == _untaught(entry)}
    return f"{name} · {entry.run.teacher}" if len(teachers) > 1 else name


def _name(entry: Entry) -> str:
    if entry.is_teacher:
        return "teacher"
    return "as released, rescored" if entry.released else "student alone" if entry.alone else entry.cell.method


def _untaught(entry: Entry) -> tuple[str, str, str]:
    return entry.run.recipe, entry.run.network, entry.run.method


def _row(entry: Entry, label: str, gain: Gain | None, no_gain: str, published_gain: PublishedGain | None) -> Row:
    scored = entry.scored
    miou = _percent(one.score("miou") for one in scored)
    records = [one.record for one in scored if one.record]
    trained = [] if entry.released else records
    costs = [one.evaluation["cost"] for one in scored if one.evaluation]
    pretrained = [one.pretraining["timing"]["wall_seconds"] for one in scored if one.pretraining]
    peak, device = _peak([record.get("memory", {}) for record in records])
    split = scored[0].evaluation["split"] if scored and scored[0].evaluation else None
    selection = entry.published.selection if entry.published else "last"
    compared = estimate([value for one in scored if (value := one.chosen(selection)) is not None])
    return Row(
        entry=entry,
        name=_name(entry),
        label=label,
        miou=miou,
        pixel_accuracy=_percent(one.score("pixel_accuracy") for one in scored),
        class_accuracy=_percent(one.score("class_accuracy") for one in scored),
        boundary_iou=_percent(one.score("boundary_iou") for one in scored),
        ece=_percent(one.score("ece") for one in scored),
        best_miou=_percent(one.best() for one in scored),
        gain=gain,
        no_gain=no_gain,
        parameters=next((cost.get("parameters") for cost in costs), None),
        flops=next((cost.get("flops") for cost in costs), None),
        seconds=estimate([float(record["timing"]["wall_seconds"]) for record in trained if "timing" in record]),
        pretraining_seconds=pretrained[0] if pretrained else None,
        peak_bytes=peak,
        peak_device=device,
        compared=compared,
        verdict=judge(entry.published, compared, split, entry.missing or "no score"),
        published_gain=published_gain,
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
