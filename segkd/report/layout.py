"""Which line of a table shows which runs: one line per cell, teachers on top, a short name for every set of runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from segkd.config.params import Params
from segkd.config.runs import Run, cell_runs, teacher_of
from segkd.config.study import Cell, Study, Table

Identity = tuple[Run, ...]


@dataclass(frozen=True)
class Line:
    """A line of a table before anything was read: its cell, its runs (none where nobody can run it), its first run.

    `like` names recipe, network, method and teacher also where there are no runs. Runs of a line differ in seed only.
    """

    cell: Cell
    runs: Identity
    like: Run
    is_teacher: bool = False

    @property
    def identity(self) -> Identity:
        """Equal for lines that show the same runs."""
        return self.runs or (replace(self.like, seed=None),)


def layout(study: Study, table: Table, params: Params) -> list[Line]:
    """Teachers first, then the cells in the study's order; every cell is one line.

    A cell that holds a teacher's runs is that teacher's line. A teacher without a cell here gets a line of its own,
    with all seeds that the study trains of it; a value that another table publishes for it is left to that table.
    """
    lines = [_line(study, cell) for cell in table.cells]
    known = lines + [_line(study, cell) for other in study.tables for cell in other.cells]
    taught = dict.fromkeys(found for line in lines for run in line.runs if (found := teacher_of(params, run)))
    top: list[Line] = []
    for teacher in taught:
        own = [replace(line, is_teacher=True) for line in lines if teacher in line.runs]
        runs = next((line.runs for line in known if teacher in line.runs), (teacher,))
        top += own or [Line(Cell(method="none"), runs, runs[0], is_teacher=True)]
    return top + [line for line in lines if taught.keys().isdisjoint(line.runs)]


def _line(study: Study, cell: Cell) -> Line:
    """A cell with its runs; one for a cell without seeds, so that it is shown as not run."""
    if cell.cannot_run:
        defaults = study.defaults
        teacher = None if cell.method == "none" else cell.teacher or defaults.teacher
        like = Run(cell.recipe or defaults.recipe or "", cell.student or defaults.student or "", cell.method, teacher)
        return Line(cell, (), like)
    runs = tuple(cell_runs(study, cell) or cell_runs(study, cell.model_copy(update={"seeds": (0,)})))
    return Line(cell, runs, runs[0])


def keys(lines: Iterable[Line]) -> dict[Identity, str]:
    """Short names that tell the sets of runs of a study apart: the method alone where that is enough."""
    kinds: dict[Identity, bool] = {}
    for line in lines:
        kinds[line.identity] = kinds.get(line.identity, False) or line.is_teacher
    names: dict[Identity, str] = {}
    for first, wanted in (("teacher", True), ("", False)):
        names |= _distinct(first, [identity for identity, is_teacher in kinds.items() if is_teacher is wanted])
    return names


def _distinct(first: str, group: list[Identity]) -> dict[Identity, str]:
    last = [] if first else ["method"]
    names: dict[Identity, str] = {}
    for fields in (last, ["network", *last], ["recipe", "network", *last], ["recipe", "network", "teacher", *last]):
        names = {runs: _dotted(first, runs[0], fields) for runs in group}
        if len(set(names.values())) == len(group):
            return names
    return {runs: f"{name}.{_seeds(runs)}" for runs, name in names.items()}


def _seeds(runs: Identity) -> str:
    seeds = [str(run.seed) for run in runs if run.seed is not None]
    return f"seeds{'-'.join(seeds)}" if seeds else "nobody"


def _dotted(first: str, run: Run, fields: list[str]) -> str:
    return ".".join(part for part in (first, *(getattr(run, field) for field in fields)) if part)
