"""What the workflow reads from params.yaml and studies: which studies to build, each step's slice of the values.

A slice is what a step's result depends on, as labelled text. Snakemake compares the texts with those recorded for the
step's output and runs the step again where one differs. It compares them as a set, so each text carries its label.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkd.config.base import canonical, digest
from segkd.config.data import DatasetConfig, FolderData
from segkd.config.fingerprint import code_fingerprint, declares
from segkd.config.load import load_study
from segkd.config.params import Params
from segkd.config.runs import Run, pick, resolve, study_runs, teacher_of
from segkd.config.study import Study
from segkd.errors import ConfigError

STUDIES = Path("workflow/studies")
EMBEDDED = "quickstart"
Slice = dict[str, str]

_fingerprint = functools.cache(code_fingerprint)
_declares = functools.cache(declares)


@dataclass(frozen=True)
class Choice:
    """The studies to build and, in a few words, why these."""

    names: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"building {', '.join(self.names)} ({self.why})"


def study_names(folder: Path = STUDIES) -> list[str]:
    """Names of all studies there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def choose(params: Params, *, gpu: bool, asked: Iterable[str] = (), folder: Path = STUDIES) -> Choice:
    """The studies to build: those asked for on the command line, else what `studies` in params.yaml says.

    `auto` is the embedded study on a machine that offers no GPU, and every study where one is offered.
    """
    known = study_names(folder)
    if named := tuple(name for name in known if name in set(asked)):
        return Choice(named, "named on the command line")
    if params.studies != "auto":
        return Choice(params.studies, "listed under `studies` in params.yaml")
    if gpu:
        return Choice(tuple(known), "studies: auto; a GPU is offered")
    return Choice((EMBEDDED,), "studies: auto; no GPU offered, add --resources gpu=N for every paper's study")


def teacher_names(params: Params, folder: Path = STUDIES) -> set[str]:
    """Names of the runs that teach in any study, built now or not: which rule makes a run must not depend on that."""
    runs = {run for one in _usable(params, folder) for run in one}
    return {teacher.name for run in runs if (teacher := teacher_of(params, run))}


def _usable(params: Params, folder: Path) -> Iterator[list[Run]]:
    """Runs of each study; a study that cannot be read is left to the moment when it is built."""
    for name in study_names(folder):
        try:
            yield study_runs(params, load_study(name, folder))
        except ConfigError:
            continue


def pretraining_of(params: Params, run: Run) -> Run | None:
    """The pretraining that a student's method needs, or None; read from its source, without importing torch."""
    method = pick(params.methods, run.method, "method").method
    if run.teacher is None or not _declares(method, "pretraining"):
        return None
    return Run(run.recipe, run.network, run.method, run.teacher, None)


def data_slice(config: DatasetConfig, step: str) -> Slice:
    """What download and prepare depend on: the data set's configuration and source, and the code."""
    return {"data": f"data: {_source(canonical(config), config)}", "code": f"code: {_fingerprint(step)}"}


_sources: dict[str, str] = {}


def _source(key: str, config: DatasetConfig) -> str:
    """The data set's fingerprint, computed once: a `folder` data set is read for it, where there is one."""
    from segkd.data.fingerprint import source_fingerprint

    if isinstance(config, FolderData) and not Path(config.root, config.description).is_file():
        return "not there"  # it can be planned; what would be built from it is left out
    if key not in _sources:
        _sources[key] = source_fingerprint(config)
    return _sources[key]


def training_slice(params: Params, run: Run, step: str) -> Slice:
    """What training depends on, beside its input files (the data's hashes, the teacher's run.json)."""
    resolved = resolve(params, run)
    recipe = resolved.recipe.model_dump(mode="json")
    del recipe["evaluation"]["split"]
    if not resolved.recipe.evaluation.select_every:
        del recipe["evaluation"]  # looked at after training only
    return {
        "recipe": f"recipe: {canonical(recipe)}",
        "network": f"network: {canonical(resolved.network)}",
        "method": f"method: {canonical(resolved.method)}",
        "teacher": f"teacher: {resolved.teacher_run} {canonical(resolved.teacher) if resolved.teacher else ''}",
        "code": f"training code: {_fingerprint(step, resolved.method.method)}",
    }


def evaluation_slice(params: Params, run: Run) -> Slice:
    """What scoring depends on, beside the run and the data: the recipe's evaluation and input, and the code."""
    resolved = resolve(params, run)
    recipe = resolved.recipe
    asked: dict[str, Any] = {
        "evaluation": recipe.evaluation.model_dump(mode="json"),
        "normalise": recipe.augmentation.normalise.model_dump(mode="json"),
        "input_scale": recipe.input_scale,
        "threads": recipe.threads,
    }
    return {
        "evaluation": f"evaluation: {canonical(asked)}",
        "code": f"evaluation code: {_fingerprint('evaluate')}",
    }


def study_slice(name: str, study: Study, step: str) -> Slice:
    """What track and report depend on, beside the runs: the study's own words and the code."""
    return {"study": f"study: {name} {digest(study)}", "code": f"code: {_fingerprint(step)}"}


def reasons_slice(reasons: Mapping[str, str]) -> Slice:
    """What a study's page says of runs that cannot be made here; reason per run."""
    return {"missing": f"missing: {canonical(dict(reasons))}"}


def landing_slice(params: Params, folder: Path = STUDIES) -> Slice:
    """What the page over all studies depends on, beside the built ones: all studies' words, and what names mean."""
    studies = {name: _words_of(name, folder) for name in study_names(folder)}
    meant = {
        "datasets": {name: recipe.dataset for name, recipe in params.recipes.items()},
        "methods": {name: entry.method for name, entry in params.methods.items()},
    }
    return {
        "studies": f"studies: {digest(studies)}",
        "names": f"names: {digest(meant)}",
        "code": f"code: {_fingerprint('landing')}",
    }


def _words_of(name: str, folder: Path) -> str:
    """What a study says, or why it cannot be used, which the page then shows."""
    try:
        return digest(load_study(name, folder))
    except ConfigError as error:
        return str(error)


def check_slice(params: Params) -> Slice:
    """What the check of hyper-parameters depends on: all methods' entries, and the code that checks each."""
    entries = {name: entry.model_dump(mode="json") for name, entry in params.methods.items()}
    code = {entry.method: _fingerprint("student", entry.method) for entry in params.methods.values()}
    return {"methods": f"methods: {canonical(entries)}", "code": f"code: {digest(code)}"}
