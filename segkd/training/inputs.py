"""What a run stands on: prepared data, a finished teacher, a finished pretraining, each checked by its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from segkd.config.network import NetworkConfig
from segkd.config.recipe import Recipe
from segkd.config.runs import PREPARED, Resolved, Run
from segkd.data.prepared import Prepared
from segkd.errors import CheckpointError, ConfigError, DataError, explain, listing
from segkd.files import read_json
from segkd.networks import weights
from segkd.networks.build import Network, build
from segkd.training.device import Place
from segkd.training.learner import freeze


@dataclass(frozen=True)
class Job:
    """One run to do: which, with what configuration, in which project folder, and how to treat an unfinished state."""

    root: Path
    run: Run
    resolved: Resolved
    step: str
    fresh: bool = False
    allow_drift: bool = False
    workers: int = 0

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.root / self.run.folder

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.resolved.recipe

    @property
    def command(self) -> str:
        """What redoes this run."""
        return f"segkd {self.step} {self.run.name}"


@dataclass(frozen=True)
class Finished:
    """A finished run that another one stands on."""

    run: str
    folder: Path
    record: dict[str, Any]

    @property
    def reference(self) -> dict[str, str]:
        """How run.json of the dependent run names it."""
        return {"run": self.run, "weights_sha256": self.record["weights"]["sha256"]}


def prepared(job: Job) -> Prepared:
    """The recipe's prepared data set; DataError where a split that the run needs is missing or has nothing labelled."""
    data = Prepared(job.root / PREPARED / job.recipe.dataset)
    rule = job.recipe.evaluation
    needed = dict.fromkeys(["train", rule.split, *([rule.select_split] if rule.select_every else [])])
    faults = [fault for name in needed if (fault := _unlabelled(data, name))]
    if faults:
        raise DataError(
            explain(
                f"Data set {data.name!r} cannot be trained on.",
                expected="at least one labelled pixel in each split that the recipe names",
                found="\n" + listing(faults),
                where=data.path,
                fix="correct the labels or their description, and prepare the data again",
            )
        )
    return data


def _unlabelled(data: Prepared, name: str) -> str:
    """What is wrong where a network could learn or show nothing; it would only be found after hours, or never."""
    ids = data.split(name).ids
    if data.class_pixels[name].sum():
        return ""
    return f"split {name}: every pixel of its {len(ids)} images is ignored (255), first {', '.join(ids[:3])}"


def finished(root: Path, run: Run) -> Finished:
    """A finished run by name; CheckpointError says how to make it if it is not there."""
    folder = root / run.folder
    if not (folder / "run.json").exists():
        step = "autoencoder" if run.seed is None else "teacher"
        raise CheckpointError(
            explain(
                f"Run {run.name!r} is needed first.",
                expected="a finished run with run.json",
                found="none",
                where=folder,
                fix=f"segkd {step} {run.name}",
            )
        )
    return Finished(run.name, folder, read_json(folder / "run.json"))


def load_weights(module: nn.Module, done: Finished) -> None:
    """Load a finished run's last weights, verified by the hash in its run.json."""
    path = done.folder / done.record["weights"]["file"]
    weights.load_into(module, weights.read(path, done.record["weights"]["sha256"]), where=str(path))


def load_teacher(job: Job, data: Prepared, place: Place) -> tuple[Network, Finished]:
    """The frozen teacher, in evaluation mode, after checking that it was trained on the same data and network."""
    resolved = job.resolved
    if resolved.teacher is None or resolved.teacher_run is None:
        raise ConfigError(f"run {job.run.name!r} has no teacher")
    done = finished(job.root, Run.parse(resolved.teacher_run))
    _same_network(done, resolved.teacher)
    _same_data(done, data)
    _same_input(done, job.recipe)
    teacher = build(resolved.teacher, len(data.classes))
    load_weights(teacher, done)
    return cast(Network, freeze(place.module(teacher))), done


def _same_network(done: Finished, config: NetworkConfig) -> None:
    found = NetworkConfig.model_validate(done.record["config"]["network"])
    if found != config:
        raise CheckpointError(
            explain(
                f"Teacher {done.run!r} was trained as another network than params.yaml says now.",
                expected=config.model_dump(exclude_defaults=True),
                found=found.model_dump(exclude_defaults=True),
                where=done.folder / "run.json",
                fix=f"train it again: segkd teacher {done.run}",
            )
        )


def _same_data(done: Finished, data: Prepared) -> None:
    found = done.record["data"]
    if found["name"] == data.name and found["sha256"] != data.sha256:
        raise DataError(
            explain(
                f"Teacher {done.run!r} was trained on other data than lies prepared now.",
                expected=found["sha256"],
                found=data.sha256,
                where=f"data set {data.name!r}",
                fix=f"restore that data, or train the teacher again: segkd teacher {done.run}",
            )
        )


def _same_input(done: Finished, recipe: Recipe) -> None:
    """Teacher and student see the same tensor, so the teacher's recipe must have normalised it the same way."""
    theirs = Recipe.model_validate(done.record["config"]["recipe"])
    mine = (recipe.augmentation.normalise, recipe.input_scale)
    if (theirs.augmentation.normalise, theirs.input_scale) != mine:
        raise ConfigError(
            explain(
                f"Teacher {done.run!r} expects other input than the student's recipe gives.",
                expected=f"{theirs.augmentation.normalise!r}, input_scale {theirs.input_scale}",
                found=f"{mine[0]!r}, input_scale {mine[1]}",
                where="params.yaml: recipes.*.augmentation.normalise, recipes.*.input_scale",
                fix="use the same values in both recipes",
            )
        )


def bytes_digest(module: nn.Module) -> str:
    """sha256 over all parameters and buffers: a teacher has the same before and after."""
    total = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return total.hexdigest()
