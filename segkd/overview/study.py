"""A study before it is built: its runs, which are done, which cannot be made, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segkd.availability.decision import Missing, Need, find
from segkd.availability.needed import is_done, is_trained
from segkd.config.load import load_params, load_study
from segkd.config.params import Params
from segkd.config.runs import Run, cell_runs, pick, resolve, study_runs
from segkd.config.study import Cell, Study
from segkd.errors import SegkdError
from segkd.overview.cost import Costs, Machine
from segkd.plan import STUDIES, pretraining_of, study_names

State = Literal["done", "to do", "cannot be run"]


@dataclass(frozen=True)
class RunPlan:
    """A run. reason: why it cannot be made here; hours: on one GPU; weights, working: bytes that stay, and meanwhile.

    uncounted: why hours and bytes are not known, and stand as 0.
    """

    run: Run
    state: State
    reason: str
    hours: float
    weights: int
    working: int
    uncounted: str = ""


@dataclass(frozen=True)
class CellPlan:
    """A cell of a table with its runs; cannot_run: why nobody can run it."""

    method: str
    runs: tuple[RunPlan, ...]
    cannot_run: str = ""


@dataclass(frozen=True)
class TablePlan:
    """A table of a study."""

    name: str
    title: str
    cells: tuple[CellPlan, ...]


@dataclass(frozen=True)
class StudyPlan:
    """A study. runs: all of its runs, teachers and pretrainings too, each once; before: those in no cell of it.

    shared: how many of them other studies need as well; data: names of its data sets.
    """

    name: str
    title: str
    tables: tuple[TablePlan, ...]
    runs: tuple[RunPlan, ...]
    before: tuple[RunPlan, ...]
    shared: int
    data: tuple[str, ...]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return sum(len(table.cells) for table in self.tables)

    def count(self, state: State) -> int:
        """How many runs are in a state."""
        return sum(one.state == state for one in self.runs)


@dataclass(frozen=True)
class Disk:
    """Bytes of a data set on disk, raw and prepared; exact: False where that is an estimate."""

    raw: int | None
    prepared: int
    exact: bool


@dataclass(frozen=True)
class Overview:
    """Studies with their cost on `machine`. disk: per data set that can be looked at; needs: what cannot be had."""

    studies: tuple[StudyPlan, ...]
    machine: Machine
    disk: Mapping[str, Disk]
    needs: tuple[Need, ...]

    @property
    def runs(self) -> tuple[RunPlan, ...]:
        """The runs of all studies, each once."""
        return tuple({one.run: one for study in self.studies for one in study.runs}.values())


def overview(names: Iterable[str] = (), machine: Machine | None = None, root: Path = Path()) -> Overview:
    """What these studies (none: all there are) consist of, cost, and lack on this machine; nothing is started."""
    params, folder = load_params(root / "params.yaml"), root / STUDIES
    known = study_names(folder)
    studies = {name: load_study(name, folder) for name in dict.fromkeys([*names, *known])}
    chosen = {name: studies[name] for name in dict.fromkeys(names or known)}
    survey = _Survey(params, machine or Machine(), find(params, chosen, root), root)
    every = {name: set(_runs(params, study)) for name, study in studies.items()}
    plans = []
    for name, study in chosen.items():
        elsewhere = set().union(*(runs for other, runs in every.items() if other != name))
        plans.append(survey.study(name, study, elsewhere))
    names_ = sorted({data for plan in plans for data in plan.data})
    disk = {name: one for name in names_ if (one := survey.disk(name))}
    return Overview(tuple(plans), survey.machine, disk, survey.missing.needs)


def _runs(params: Params, study: Study) -> list[Run]:
    """A study's runs and their pretraining, each once."""
    runs = study_runs(params, study)
    before = [one for run in runs if run.method in params.methods and (one := pretraining_of(params, run))]
    return list(dict.fromkeys([*runs, *before]))


class _Survey:
    """Looks at runs once each."""

    def __init__(self, params: Params, machine: Machine, missing: Missing, root: Path) -> None:
        self.params, self.machine, self.missing, self.root = params, machine, missing, root
        self.costs, self._seen = Costs(params), dict[Run, RunPlan]()

    def study(self, name: str, study: Study, elsewhere: set[Run]) -> StudyPlan:
        runs = _runs(self.params, study)
        tables = [
            TablePlan(table.name, table.title, tuple(self.cell(study, cell) for cell in table.cells))
            for table in study.tables
        ]
        shown = {one.run for table in tables for cell in table.cells for one in cell.runs}
        return StudyPlan(
            name,
            study.title,
            tuple(tables),
            tuple(map(self.run, runs)),
            tuple(self.run(run) for run in runs if run not in shown),
            len(elsewhere.intersection(runs)),
            tuple(sorted({pick(self.params.recipes, run.recipe, "recipe").dataset for run in runs})),
        )

    def cell(self, study: Study, cell: Cell) -> CellPlan:
        return CellPlan(cell.method, tuple(map(self.run, cell_runs(study, cell))), cell.cannot_run)

    def run(self, run: Run) -> RunPlan:
        if run not in self._seen:
            self._seen[run] = self._look(run)
        return self._seen[run]

    def _look(self, run: Run) -> RunPlan:
        resolved = resolve(self.params, run)
        finished = is_trained if run.seed is None else is_done
        reason = self._reason(run)
        state: State = "done" if finished(resolved, run, self.root) else "cannot be run" if reason else "to do"
        try:
            cost = self.costs.of(run)
        except SegkdError as error:
            return RunPlan(run, state, reason, 0.0, 0, 0, str(error).partition("\n")[0])
        return RunPlan(run, state, reason, cost.hours(self.machine), cost.weights, cost.state)

    def _reason(self, run: Run) -> str:
        """Why the run cannot be made; of a pretraining, why its students cannot."""
        if run.seed is not None:
            return self.missing.runs.get(run.name, "")
        start = run.name.removesuffix("autoencoder")
        return next((why for name, why in self.missing.runs.items() if name.startswith(start)), "")

    def disk(self, dataset: str) -> Disk | None:
        try:
            known = self.costs.facts(dataset)
        except SegkdError:
            return None
        return Disk(known.raw, known.prepared, known.exact and known.raw is not None)
