"""Lay out a study: which runs fill which row of which table, and do their scores belong together?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segkd.config.base import canonical
from segkd.config.params import Params
from segkd.config.runs import REPORTS, Run, cell_runs, pick, teacher_of
from segkd.config.study import Cell, Published, Study, Table
from segkd.report.evidence import Evidence, read_evidence, read_object


@dataclass(frozen=True)
class Entry:
    """A row of a table: one cell's runs, or a teacher's."""

    key: str
    cell: Cell
    evidence: tuple[Evidence, ...]
    preset: str = ""
    is_teacher: bool = False

    @property
    def run(self) -> Run:
        """The first run; all runs of an entry differ in their seed only."""
        return self.evidence[0].run

    @property
    def scored(self) -> tuple[Evidence, ...]:
        """The evidence that has scores."""
        return tuple(one for one in self.evidence if one.evaluation)

    @property
    def published(self) -> Published | None:
        """What the paper says about this row."""
        return self.cell.published

    @property
    def missing(self) -> str:
        """Why runs of this row lack, e.g. `not run: seeds 1, 2`; empty where all are there."""
        reasons: dict[str, list[str]] = {}
        for one in self.evidence:
            if one.missing:
                reasons.setdefault(one.missing, []).append(str(one.run.seed))
        return "; ".join(f"{why}: seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" for why, seeds in reasons.items())


@dataclass(frozen=True)
class TableEvidence:
    """One table: teachers first, then the cells in the study's order."""

    table: Table
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class StudyEvidence:
    """All that a page says comes from here. Paths are relative to `root`."""

    name: str
    study: Study
    params: Params
    root: Path
    tables: tuple[TableEvidence, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every row of every table, each set of runs once."""
        unique: dict[tuple[Run, ...], Entry] = {}
        for table in self.tables:
            for entry in table.entries:
                unique.setdefault(tuple(one.run for one in entry.evidence), entry)
        return tuple(unique.values())


def collect(name: str, study: Study, params: Params, root: Path = Path()) -> StudyEvidence:
    """Read everything that the study's runs wrote under `root`; errors of the configuration are ConfigErrors."""
    tracked = _tracking(root / REPORTS / name / "tracking.json")
    seen: dict[Run, Evidence] = {}

    def evidence(run: Run) -> Evidence:
        if run not in seen:
            seen[run] = read_evidence(run, params, root, tracked)
        return seen[run]

    drafts = [(table, _rows(study, table, params)) for table in study.tables]
    keys = _keys([row for _, rows in drafts for row in rows])
    tables = []
    for table, rows in drafts:
        entries = [
            Entry(keys[runs], cell, tuple(map(evidence, runs)), _preset(params, cell), is_teacher)
            for is_teacher, runs, cell in rows
        ]
        tables.append(TableEvidence(table, _same_terms(entries)))
    return StudyEvidence(name, study, params, root, tuple(tables))


Row = tuple[bool, tuple[Run, ...], Cell]  # is it a teacher?, its runs, what the study says about it


def _runs(study: Study, cell: Cell) -> tuple[Run, ...]:
    """A cell's runs; one for a cell without seeds, so that it is shown as not run instead of vanishing."""
    return tuple(cell_runs(study, cell) or cell_runs(study, cell.model_copy(update={"seeds": (0,)})))


def _rows(study: Study, table: Table, params: Params) -> list[Row]:
    """Teachers on top; a cell that holds a teacher's own runs becomes the teacher's row, published value included."""
    cells = [(_runs(study, cell), cell) for cell in table.cells]
    known = cells + [(_runs(study, cell), cell) for other in study.tables for cell in other.cells]
    teachers = dict.fromkeys(found for runs, _ in cells for run in runs if (found := teacher_of(params, run)))
    top: list[Row] = []
    for teacher in teachers:
        runs, cell = next((pair for pair in known if teacher in pair[0]), ((teacher,), Cell(method="none")))
        top.append((True, runs, cell))
    shown = [runs for _, runs, _ in top]
    return top + [(False, runs, cell) for runs, cell in cells if runs not in shown]


def _keys(rows: list[Row]) -> dict[tuple[Run, ...], str]:
    """Short names that tell the rows of a study apart: the method alone where that is enough."""
    teachers = {runs for is_teacher, runs, _ in rows if is_teacher}
    keys: dict[tuple[Run, ...], str] = {}
    for first, group in (("teacher", teachers), ("", {runs for _, runs, _ in rows} - teachers)):
        last = [] if first else ["method"]
        for fields in (last, ["network", *last], ["recipe", "network", *last], ["recipe", "network", "teacher", *last]):
            names = {runs: _dotted(first, runs[0], fields) for runs in group}
            if len(set(names.values())) == len(group):
                break
        else:  # they differ in their seeds only
            names = {runs: f"{name}.seeds{'-'.join(str(run.seed) for run in runs)}" for runs, name in names.items()}
        keys |= names
    return keys


def _dotted(first: str, run: Run, fields: list[str]) -> str:
    return ".".join(part for part in (first, *(getattr(run, field) for field in fields)) if part)


def _preset(params: Params, cell: Cell) -> str:
    if cell.method == "none":
        return ""
    return str(pick(params.methods, cell.method, "method").options.get("preset", "paper"))


def _tracking(path: Path) -> dict[str, Any]:
    """MLflow's ids per run; nothing where the mirror was not made, since the report does not depend on it."""
    content, _ = read_object(path)
    return content or {}


def _same_terms(entries: list[Entry]) -> tuple[Entry, ...]:
    """Flag evaluations on other data, split or protocol than most of the table."""
    terms = Counter(_terms(one.evaluation) for entry in entries for one in entry.scored if one.evaluation)
    if len(terms) < 2:
        return tuple(entries)
    usual = terms.most_common(1)[0][0]

    def check(one: Evidence) -> Evidence:
        if not one.evaluation or _terms(one.evaluation) == usual:
            return one
        parts = zip(("data", "split", "protocol"), _terms(one.evaluation), usual, strict=True)
        differing = " and ".join(name for name, here, there in parts if here != there)
        return replace(one, flags=(*one.flags, f"scored under another {differing} than most of this table"))

    return tuple(replace(entry, evidence=tuple(map(check, entry.evidence))) for entry in entries)


def _terms(evaluation: dict[str, Any]) -> tuple[str, str, str]:
    return evaluation["data_sha256"], evaluation["split"], canonical(evaluation["protocol"])
