"""One function per step: download -> prepare -> teacher -> [autoencoder] -> student -> evaluate -> track, report.

Here the rooms meet: training gets its journal and its validation handed in, so that it imports neither. A step checks
names and configuration before it imports what computes: an answer to a typing error must not wait for torch.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segkd.config.load import load_params, load_study
from segkd.config.params import Params
from segkd.config.runs import PREPARED, RAW, RELEASED, Run, pick, resolve, study_runs
from segkd.errors import ConfigError, SegkdError, explain

if TYPE_CHECKING:
    from segkd.training.inputs import Job
    from segkd.training.loop import Journal as LoopJournal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to do a run; none of this changes its result."""

    root: Path = Path()
    config_hash: str | None = None
    fresh: bool = False
    allow_drift: bool = False
    workers: int = 0
    save_seconds: float = 60.0


def download(name: str, *, root: Path = Path(), source: Path | None = None, keep: bool = False) -> Path:
    """Fetch and verify a data set as published, or take it from `source`; returns data/raw/<name>/manifest.json.

    keep: leave the archives in data/raw/<name>/.archives when they are extracted.
    """
    config = pick(load_params(root / "params.yaml").datasets, name, "dataset")
    from segkd.data.download import download as fetch

    return fetch(name, config, root / RAW / name, source=source, keep=keep)


def prepare(name: str, *, root: Path = Path()) -> Path:
    """Check every image and label, and turn them into memory-mapped arrays; returns data/prepared/<name>."""
    config = pick(load_params(root / "params.yaml").datasets, name, "dataset")
    from segkd.data.prepare import prepare as make
    from segkd.data.restore import give_receipt

    made = make(name, config, root / RAW / name, root / PREPARED / name)
    give_receipt(name, root)
    return made


def teacher(run: Run, options: Options) -> None:
    """Train a network that will teach: cross-entropy alone."""
    _train("teacher", run, options)


def student(run: Run, options: Options) -> None:
    """Train a student, alone (method `none`) or with a teacher."""
    _train("student", run, options)


def autoencoder(run: Run, options: Options) -> None:
    """Train what a method needs on the frozen teacher before any student (KA's autoencoder)."""
    params = load_params(options.root / "params.yaml")
    _ready("autoencoder", run, params, options)
    from segkd.training.pretrain import pretrain

    job = _job("autoencoder", run, params, options)
    if not _left_to_others(job, options):
        with _at_work(job, params, options) as journal:
            pretrain(job, journal, save_seconds=options.save_seconds)


def evaluate(run: Run, options: Options) -> Path:
    """Score a finished run on its recipe's split; writes evaluation.json, per_image.npz and samples.npz."""
    params = load_params(options.root / "params.yaml")
    _expect(params, run, options.config_hash)
    _have_data(params, [run], options.root)
    from segkd.evaluation.step import evaluate as score

    return score(run, root=options.root)


def import_checkpoint(
    file: Path,
    layout: str,
    *,
    network: str,
    recipe: str,
    rules: Path | None = None,
    fresh: bool = False,
    root: Path = Path(),
) -> Path:
    """Make a run of a checkpoint that authors released, every key accounted for; returns its folder."""
    params = load_params(root / "params.yaml")
    pick(params.networks, network, "network")
    pick(params.recipes, recipe, "recipe")
    from segkd.imports.step import import_checkpoint as bring

    return bring(file, layout, network=network, recipe=recipe, rules=rules, fresh=fresh, root=root)


def track(study: str, *, root: Path = Path()) -> dict[str, dict[str, str]]:
    """Mirror a study's runs into MLflow, if MLflow is there; returns the MLflow run of each run, or why none."""
    _have_data_of(study, root)
    from segkd.tracking.replay import track as replay

    return replay(study, root=root)


def report(study: str, *, root: Path = Path()) -> Path:
    """Write a study's tables, figures and page; returns reports/<study>."""
    _have_data_of(study, root)
    from segkd.report.build import report as build

    return build(study, root=root)


def landing(*, root: Path = Path()) -> Path:
    """Write the page over all studies: the score over all published numbers; returns reports/index.html."""
    from segkd.report.landing import landing as build

    return build(root)


def score(labels: Path, predictions: Path, name: str, *, names: Path | None = None, root: Path = Path()) -> str:
    """Score prediction PNGs against label PNGs of a data set; returns the scores as JSON text.

    names: file that lists the labels to score, one a line; none: all.
    """
    import json

    config = pick(load_params(root / "params.yaml").datasets, name, "dataset")
    from segkd.evaluation.score import read_names, score_dataset

    chosen = read_names(names) if names is not None else None
    return json.dumps(score_dataset(labels, predictions, config, names=chosen).as_json(), indent=1)


def plan(
    studies: Sequence[str] = (),
    *,
    tflops: float = 312.0,
    utilisation: float = 0.25,
    as_json: bool = False,
    width: int | None = None,
    root: Path = Path(),
) -> str:
    """What studies (none: all) consist of, cost and lack here, as text or JSON; named ones with every table.

    tflops, utilisation: the GPU that hours are stated for; width: of the terminal, None for plain text.
    """
    import json

    from segkd.overview.as_json import as_json as describe
    from segkd.overview.cost import Machine
    from segkd.overview.show import text
    from segkd.overview.study import overview

    found = overview(studies, Machine(tflops, utilisation), root)
    return json.dumps(describe(found), indent=1) if as_json else text(found, details=bool(studies), width=width)


def check(*, root: Path = Path()) -> list[str]:
    """Validate params.yaml down to every method's hyper-parameters; returns the names of the methods."""
    params = load_params(root / "params.yaml")
    from segkd.methods.registry import method_config

    for name, entry in params.methods.items():
        if entry.method != "none":
            method_config(entry.method, entry.options, where=f"params.yaml: methods.{name}")
    return sorted(params.methods)


def methods(*, write: Path | None = None) -> str:
    """Describe every registered method as Markdown, and put it into the file `write`; returns the text."""
    from segkd.files import atomic_write
    from segkd.report.methods_page import methods_page

    text = methods_page()
    if write is not None:
        atomic_write(write, text)
    return text


def _train(step: str, run: Run, options: Options) -> None:
    params = load_params(options.root / "params.yaml")
    _ready(step, run, params, options)
    from segkd.evaluation.quick import miou
    from segkd.training.run import train

    job = _job(step, run, params, options)
    if not _left_to_others(job, options):
        with _at_work(job, params, options) as journal:
            train(job, journal, miou, save_seconds=options.save_seconds)


def _left_to_others(job: Job, options: Options) -> bool:
    """Start the processes of a recipe with `gpus` above 1 and wait for them, unless this is one of them already."""
    if job.recipe.gpus == 1 or "RANK" in os.environ:
        return False
    import json

    from segkd.training.launch import launch

    words = json.dumps(asdict(options) | {"root": str(options.root)})
    launch([job.step, job.run.name, words], job.recipe.gpus)
    return True


@contextmanager
def _at_work(job: Job, params: Params, options: Options) -> Iterator[LoopJournal]:
    """A run's journal, mirrored into MLflow; of several processes the first alone writes."""
    from segkd.tracking.journal import Journal
    from segkd.training.processes import Silent, joined, rank

    with joined(job.recipe.gpus):
        if rank():
            yield Silent()
            return
        with Journal(job.folder / "metrics.jsonl") as journal, _mirrored(job.folder, params, options.root):
            yield journal


def _ready(step: str, run: Run, params: Params, options: Options) -> None:
    """Refuse what cannot be trained, and see to its data."""
    if run.method == RELEASED:
        raise ConfigError(
            explain(
                f"{run.name!r} cannot be trained: it stands for weights that its authors released.",
                expected="their checkpoint, imported",
                found=f"segkd {step}",
                where=options.root / run.folder,
                fix=f"segkd import-checkpoint FILE --from LAYOUT --network {run.network} --recipe {run.recipe}",
            )
        )
    _expect(params, run, options.config_hash)
    _have_data(params, [run], options.root)


def _job(step: str, run: Run, params: Params, options: Options) -> Job:
    from segkd.training.inputs import Job

    return Job(
        root=options.root,
        run=run,
        resolved=resolve(params, run),
        step=step,
        fresh=options.fresh,
        allow_drift=options.allow_drift,
        workers=options.workers,
    )


def _have_data(params: Params, runs: list[Run], root: Path) -> None:
    """Make prepared data again that only their receipts are left of: DVC passes on results, never data sets."""
    from segkd.data.restore import restore

    for name in {resolve(params, run).recipe.dataset for run in runs}:
        restore(name, params.datasets[name], root)


def _have_data_of(study: str, root: Path) -> None:
    """The data that a study's pictures show; where they cannot be had again, there are none, and the page says so."""
    params = load_params(root / "params.yaml")
    runs = study_runs(params, load_study(study, root / "workflow/studies"))
    first = {resolve(params, run).recipe.dataset: run for run in runs}
    for name, run in first.items():
        try:
            _have_data(params, [run], root)
        except SegkdError as error:
            log.warning("study %s without pictures of %s: %s", study, name, error)


def _expect(params: Params, run: Run, config_hash: str | None) -> None:
    """Refuse to run under another configuration than the workflow planned with: params.yaml may have changed since."""
    found = resolve(params, run).sha256()
    if config_hash is not None and found != config_hash:
        raise ConfigError(
            explain(
                f"params.yaml changed after {run.name!r} was planned.",
                expected=config_hash,
                found=found,
                where="params.yaml",
                fix="start snakemake again",
            )
        )


@contextmanager
def _mirrored(folder: Path, params: Params, root: Path) -> Iterator[None]:
    """Mirror a run that lasts longer than tracking.live_after seconds into MLflow while it runs, by another process."""
    from segkd.tracking.follow import start_follower

    words = {"root": root, "pid": os.getpid()}
    timer = threading.Timer(params.tracking.live_after, start_follower, args=(folder,), kwargs=words)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
