"""The command line: thin verbs over segkd.steps, one per step of the workflow. Heavy imports wait inside the verbs."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segkd.errors import SegkdError

if TYPE_CHECKING:
    from segkd.steps import Options

app = typer.Typer(
    help="Knowledge distillation for semantic segmentation, reproduced end to end.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # help as plain text: importing rich takes longer than everything else before a verb
)
track_app = typer.Typer(help="MLflow: mirror runs from their journals.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(track_app, name="track")

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="recipe/network/method[@teacher]/seed<k>, or its folder under data/models")
]
ConfigHash = Annotated[
    str | None, typer.Option(help="refuse to run if params.yaml resolves to another configuration than this hash")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="discard the state of an unfinished attempt and start over")]
AllowDrift = Annotated[
    bool, typer.Option("--allow-drift", help="go on under changed configuration, data or versions, and record it")
]
Workers = Annotated[
    int, typer.Option(min=0, help="threads that load data; 0: as the device gains from; never changes a result")
]
DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="a name under `datasets` in params.yaml")]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="a file in workflow/studies, without .yaml")]


@app.command()
def download(
    name: DatasetName,
    source: Annotated[
        Path | None, typer.Option("--from", help="a copy you have, archives or unpacked, instead of the network")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep-archives", help="leave archives in .archives after extraction")] = False,
) -> None:
    """Fetch and verify a data set as published, into data/raw."""
    from segkd import steps

    typer.echo(steps.download(name, source=source, keep=keep))


@app.command()
def prepare(name: DatasetName) -> None:
    """Check every image and label and write memory-mapped arrays, into data/prepared."""
    from segkd import steps

    typer.echo(steps.prepare(name))


@app.command()
def teacher(
    run: RunName,
    config_hash: ConfigHash = None,
    fresh: Fresh = False,
    allow_drift: AllowDrift = False,
    workers: Workers = 0,
) -> None:
    """Train a network that will teach."""
    _run("teacher", run, config_hash, fresh, allow_drift, workers)


@app.command()
def autoencoder(
    run: RunName,
    config_hash: ConfigHash = None,
    fresh: Fresh = False,
    allow_drift: AllowDrift = False,
    workers: Workers = 0,
) -> None:
    """Train what a method needs on the frozen teacher before any student."""
    _run("autoencoder", run, config_hash, fresh, allow_drift, workers)


@app.command()
def student(
    run: RunName,
    config_hash: ConfigHash = None,
    fresh: Fresh = False,
    allow_drift: AllowDrift = False,
    workers: Workers = 0,
) -> None:
    """Train a student, alone or with a teacher."""
    _run("student", run, config_hash, fresh, allow_drift, workers)


@app.command()
def evaluate(run: RunName, config_hash: ConfigHash = None) -> None:
    """Score a finished run."""
    _run("evaluate", run, config_hash)


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a checkpoint as its authors released it")],
    layout: Annotated[str, typer.Option("--from", help="whose names it has: cirkd, aicsd, attnfd, torchvision, mmseg")],
    network: Annotated[str, typer.Option(help="a name under `networks` in params.yaml")],
    recipe: Annotated[str, typer.Option(help="a name under `recipes`: on which data, and how, it will be scored")],
    rules: Annotated[Path | None, typer.Option(help="YAML file with rules for names that differ")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="replace an import of another file")] = False,
    root: Annotated[Path, typer.Option(help="the project's folder")] = Path(),
) -> None:
    """Make a run of a network that authors released, to be scored as it is: RECIPE/NETWORK/as-released/seed0."""
    from segkd import steps

    typer.echo(
        steps.import_checkpoint(file, layout, network=network, recipe=recipe, rules=rules, fresh=fresh, root=root)
    )


@app.command()
def report(study: StudyName) -> None:
    """Write a study's tables, figures and page, into reports."""
    from segkd import steps

    typer.echo(steps.report(study))


@app.command()
def landing() -> None:
    """Write the page over all studies, built or not: which published numbers hold."""
    from segkd import steps

    typer.echo(steps.landing())


@app.command()
def score(
    labels: Annotated[Path, typer.Option(help="folder of label PNGs")],
    predictions: Annotated[Path, typer.Option(help="folder of prediction PNGs with the same names")],
    dataset: Annotated[str, typer.Option(help="a name under `datasets` in params.yaml: classes and ignored id")],
    names: Annotated[
        Path | None, typer.Option(help="list of the labels to score, such as Pascal VOC's val.txt; default: all")
    ] = None,
) -> None:
    """Score anybody's prediction PNGs with the same code; prints JSON."""
    from segkd import steps

    typer.echo(steps.score(labels, predictions, dataset, names=names))


@app.command()
def plan(
    studies: Annotated[
        list[str] | None, typer.Argument(metavar="[STUDY]...", help="shown with every table; none: all, in one table")
    ] = None,
    tflops: Annotated[float, typer.Option(min=0.001, help="dense bfloat16 peak of the GPU; 312 is an A100")] = 312.0,
    utilisation: Annotated[float, typer.Option(min=0.001, max=1, help="share of it that training reaches")] = 0.25,
    json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Say what studies consist of, what they cost, and what this machine lacks for them; nothing is started."""
    from segkd import steps

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    text = steps.plan(studies or (), tflops=tflops, utilisation=utilisation, as_json=json, width=width)
    typer.echo(text, nl=json)


@app.command()
def check() -> None:
    """Validate params.yaml, the studies and every method's hyper-parameters, before anything long starts."""
    from segkd import steps

    typer.echo("\n".join(steps.check()))


@app.command()
def methods(
    write: Annotated[Path | None, typer.Option(help="put it into this file (docs/methods.md) instead")] = None,
) -> None:
    """Describe every method: source, formula, tensors, hyper-parameters, cost; prints Markdown."""
    from segkd import steps

    text = steps.methods(write=write)
    typer.echo(text if write is None else write)


@track_app.command()
def replay(study: StudyName) -> None:
    """Bring MLflow up to date with a study's runs, without duplicates."""
    from segkd import steps

    for name, answer in steps.track(study).items():
        typer.echo(f"{name}  {answer.get('mlflow_run_id') or answer.get('error')}")


def _run(
    step: str, run: str, config_hash: str | None, fresh: bool = False, allow_drift: bool = False, workers: int = 0
) -> None:
    from segkd import steps
    from segkd.config.runs import Run

    options: Options = steps.Options(config_hash=config_hash, fresh=fresh, allow_drift=allow_drift, workers=workers)
    getattr(steps, step)(Run.parse(run), options)


def main() -> None:
    """Entry point: errors that a user can act on are shown as text, with their own exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        app()
    except SegkdError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
