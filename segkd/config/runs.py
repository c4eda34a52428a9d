"""Runs: which one a path names, what it depends on, and its whole configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from segkd.config.base import Closed, digest
from segkd.config.data import DatasetConfig
from segkd.config.network import NetworkConfig
from segkd.config.params import MethodEntry, Params
from segkd.config.recipe import Recipe
from segkd.config.study import Cell, Study
from segkd.errors import ConfigError, explain

MODELS = Path("data/models")
PREPARED = Path("data/prepared")
RAW = Path("data/raw")
REPORTS = Path("reports")
RELEASED = "as-released"  # in a method's place: weights that authors published, imported and never trained here

Entry = TypeVar("Entry")
_PATH = re.compile(
    r"(?P<recipe>[^/@]+)/(?P<network>[^/@]+)/(?P<method>[^/@]+)(@(?P<teacher>[^/@]+))?/(seed(?P<seed>\d+)|(?P<auto>autoencoder))$"
)


@dataclass(frozen=True, order=True)
class Run:
    """(recipe, network, method, teacher, seed): one folder, one set of weights, one MLflow run.

    `seed` None names the pretraining of (method, teacher, student network): the DAG's autoencoder step.
    """

    recipe: str
    network: str
    method: str = "none"
    teacher: str | None = None
    seed: int | None = 0

    @property
    def name(self) -> str:
        """recipe/network/method[@teacher]/seed<k>, or .../autoencoder."""
        learning = f"{self.method}@{self.teacher}" if self.teacher else self.method
        last = "autoencoder" if self.seed is None else f"seed{self.seed}"
        return f"{self.recipe}/{self.network}/{learning}/{last}"

    @property
    def folder(self) -> Path:
        """Where everything about this run lies, relative to the project."""
        return MODELS / self.name

    @classmethod
    def parse(cls, text: str | Path) -> Run:
        """The run that a name or a path under data/models means."""
        found = _PATH.search(str(text).rstrip("/"))
        if not found:
            raise ConfigError(
                explain(
                    "This does not name a run.",
                    expected="recipe/network/method[@teacher]/seed<k>, e.g. digits/small/kd@large/seed0",
                    found=text,
                    where="command line",
                    fix="take a name from the report, or a folder under data/models",
                )
            )
        seed = None if found["auto"] else int(found["seed"])
        return cls(found["recipe"], found["network"], found["method"], found["teacher"], seed)


class Resolved(Closed):
    """Everything that decides a run's result, names resolved: the slice of params.yaml that its rule hands over."""

    run: str
    recipe: Recipe
    dataset: DatasetConfig
    network: NetworkConfig
    method: MethodEntry
    teacher: NetworkConfig | None = None
    teacher_run: str | None = None
    seed: int | None = None

    def sha256(self) -> str:
        """Hash of the canonical JSON: two runs with equal hashes compute the same thing."""
        return digest(self)


def pick(entries: dict[str, Entry], name: str, kind: str) -> Entry:
    """An entry of params.yaml by name; ConfigError says which there are."""
    if name not in entries:
        raise ConfigError(
            explain(
                f"There is no {kind} {name!r}.",
                expected=f"one of {', '.join(sorted(entries))}",
                found=name,
                where=f"params.yaml: {kind}s",
                fix="add it there, or correct the name",
            )
        )
    return entries[name]


def teacher_of(params: Params, run: Run) -> Run | None:
    """The run whose weights teach this one, or None."""
    if run.teacher is None:
        return None
    recipe = pick(params.recipes, run.recipe, "recipe")
    return Run(recipe.teacher_recipe or run.recipe, run.teacher)


def resolve(params: Params, run: Run) -> Resolved:
    """Look up every name of a run in params.yaml."""
    recipe = pick(params.recipes, run.recipe, "recipe")
    method = MethodEntry(method="none") if run.method == RELEASED else pick(params.methods, run.method, "method")
    if (method.method == "none") != (run.teacher is None):
        raise ConfigError(
            f"run {run.name!r}: method `none` takes no teacher, every other one needs a teacher after '@'"
        )
    teacher = teacher_of(params, run)
    return Resolved(
        run=run.name,
        recipe=recipe,
        dataset=pick(params.datasets, recipe.dataset, "dataset"),
        network=pick(params.networks, run.network, "network"),
        method=method,
        teacher=pick(params.networks, run.teacher, "network") if run.teacher else None,
        teacher_run=teacher.name if teacher else None,
        seed=run.seed,
    )


def cell_runs(study: Study, cell: Cell) -> list[Run]:
    """The runs of one cell, a seed each, defaults filled in; none for a cell that nobody can run."""
    if cell.cannot_run:
        return []
    recipe, student = cell.recipe or study.defaults.recipe, cell.student or study.defaults.student
    if recipe is None or student is None:
        raise ConfigError(
            f"study {study.title!r}: a cell for {cell.method!r} names no recipe or student, nor do the defaults"
        )
    if cell.checkpoint:
        return [Run(recipe, student, RELEASED)]
    teacher = None if cell.method == "none" else (cell.teacher or study.defaults.teacher)
    if cell.method != "none" and teacher is None:
        raise ConfigError(
            f"study {study.title!r}: the cell for method {cell.method!r} names no teacher, and neither do the defaults"
        )
    seeds = study.defaults.seeds if cell.seeds is None else cell.seeds
    return [Run(recipe, student, cell.method, teacher, seed) for seed in seeds]


def study_runs(params: Params, study: Study) -> list[Run]:
    """All runs that a study's tables need: its cells' and their teachers', each once, in order of need."""
    cells = [run for table in study.tables for cell in table.cells for run in cell_runs(study, cell)]
    teachers = [teacher for run in cells if (teacher := teacher_of(params, run))]
    return list(dict.fromkeys([*teachers, *cells]))


def describe(resolved: Resolved) -> dict[str, Any]:
    """The JSON form of a resolved run, as written to run.json."""
    return resolved.model_dump(mode="json")
