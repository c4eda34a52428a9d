"""Lay out a study: which runs fill which row of which table, and do their scores belong together?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segkd.config.base import canonical
from segkd.config.params import Params
from segkd.config.runs import REPORTS, Run, pick
from segkd.config.study import Cell, Checkpoint, Published, Study, Table
from segkd.report.evidence import Evidence, read_evidence, read_object
from segkd.report.layout import Line, keys, layout
from segkd.report.missing import NOT_MADE, Missing, read_missing


@dataclass(frozen=True)
class Entry:
    """A row of a table: one cell with its runs, or a teacher that has no cell there.

    `key` is shared by rows that show the same runs; all runs of an entry differ in their seed only. `run` is the first
    one, named also where nobody can run the cell.
    """

    key: str
    cell: Cell
    run: Run
    evidence: tuple[Evidence, ...]
    preset: str = ""
    is_teacher: bool = False

    @property
    def scored(self) -> tuple[Evidence, ...]:
        """The evidence that has scores."""
        return tuple(one for one in self.evidence if one.evaluation)

    @property
    def published(self) -> Published | None:
        """What the paper says about this row."""
        return self.cell.published

    @property
    def released(self) -> bool:
        """Are these weights that the authors published?"""
        return self.cell.checkpoint is not None

    @property
    def alone(self) -> bool:
        """Is it a network trained here without a teacher, which gains can refer to?"""
        return self.cell.method == "none" and not self.released

    @property
    def trained(self) -> bool:
        """Is any of its runs finished, scored or not?"""
        return any(one.record for one in self.evidence)

    @property
    def missing(self) -> str:
        """Why runs of this row lack, e.g. `seeds 1, 2: not made yet`, or the reason alone where all lack for it."""
        if self.cell.cannot_run:
            return self.cell.cannot_run
        reasons: dict[str, list[str]] = {}
        for one in self.evidence:
            if one.missing:
                reasons.setdefault(one.missing, []).append(str(one.run.seed))
        if [len(seeds) for seeds in reasons.values()] == [len(self.evidence)]:
            return next(iter(reasons))
        return "; ".join(f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {why}" for why, seeds in reasons.items())


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
        """The rows of every table that have runs, each set of runs once."""
        unique: dict[tuple[Run, ...], Entry] = {}
        for table in self.tables:
            for entry in table.entries:
                if entry.evidence:
                    unique.setdefault(tuple(one.run for one in entry.evidence), entry)
        return tuple(unique.values())


def collect(
    name: str,
    study: Study,
    params: Params,
    root: Path = Path(),
    *,
    missing: Missing | None = None,
    seen: dict[Run, Evidence] | None = None,
) -> StudyEvidence:
    """Read everything that the study's runs wrote under `root`; errors of the configuration are ConfigErrors.

    `missing` is what cannot be had here, by default what root/data/receipts/missing.json says; `seen` is filled with
    what was read, so that several studies read a shared run once (MLflow's ids are then those of the first).
    """
    tracked = _tracking(root / REPORTS / name / "tracking.json")
    missing = read_missing(root) if missing is None else missing
    seen = {} if seen is None else seen
    drafts = [(table, layout(study, table, params)) for table in study.tables]
    names = keys(line for _, lines in drafts for line in lines)
    for run in (run for _, lines in drafts for line in lines for run in line.runs):
        if run not in seen:
            seen[run] = read_evidence(run, params, root, tracked, missing.runs)
    tables = []
    for table, lines in drafts:
        entries = [_entry(names[line.identity], line, params, seen) for line in lines]
        tables.append(TableEvidence(table, _same_terms(entries)))
    return StudyEvidence(name, study, params, root, tuple(tables))


def _entry(key: str, line: Line, params: Params, seen: dict[Run, Evidence]) -> Entry:
    evidence = tuple(seen[run] for run in line.runs)
    if checkpoint := line.cell.checkpoint:
        evidence = tuple(replace(one, missing=_to_import(one, checkpoint)) if one.missing else one for one in evidence)
    return Entry(key, line.cell, line.like, evidence, _preset(params, line.cell), line.is_teacher)


def import_command(checkpoint: Checkpoint, run: Run) -> str:
    """What brings a released checkpoint in, with FILE in place of the file that was fetched by hand."""
    return f"segkd import-checkpoint FILE --from {checkpoint.layout} --network {run.network} --recipe {run.recipe}"


def _to_import(one: Evidence, checkpoint: Checkpoint) -> str:
    """Why a released checkpoint was not scored, with the way to it where it is not here."""
    if one.record:
        return one.missing
    first = "" if one.missing == NOT_MADE else f"{one.missing}; "
    return f"{first}import it: {import_command(checkpoint, one.run)}, where FILE is from {checkpoint.where}"


def _preset(params: Params, cell: Cell) -> str:
    if cell.method == "none" or (cell.cannot_run and cell.method not in params.methods):
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
