"""What a run needs from outside before it can be made: data, ImageNet weights, a checkpoint that someone imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segkd.config.params import Params
from segkd.config.runs import RELEASED, Resolved, Run, resolve, teacher_of
from segkd.errors import DataError
from segkd.files import read_json


@dataclass(frozen=True, order=True)
class Thing:
    """A data set by its name in params.yaml, ImageNet weights by their name, or a run's imported checkpoint."""

    kind: Literal["data", "imagenet", "released"]
    name: str


def needed(params: Params, run: Run, root: Path = Path()) -> frozenset[Thing]:
    """What an unfinished run needs, its teacher included; nothing for a run that is trained and scored."""
    resolved = resolve(params, run)
    if is_done(resolved, run, root):
        return frozenset()
    return frozenset({Thing("data", resolved.recipe.dataset)}) | _to_train(params, run, root)


def _to_train(params: Params, run: Run, root: Path) -> frozenset[Thing]:
    """What is needed until the run's weights are there."""
    resolved = resolve(params, run)
    if is_trained(resolved, run, root):
        return frozenset()
    if run.method == RELEASED:
        return frozenset({Thing("released", run.name)})
    things = {Thing("data", resolved.recipe.dataset)}
    if resolved.network.pretrained:
        things.add(Thing("imagenet", resolved.network.pretrained))
    teacher = teacher_of(params, run)
    return frozenset(things) | (_to_train(params, teacher, root) if teacher else frozenset())


def is_done(resolved: Resolved, run: Run, root: Path = Path()) -> bool:
    """Whether the run is trained and scored under this configuration."""
    return is_trained(resolved, run, root) and (root / run.folder / "evaluation.json").exists()


def is_trained(resolved: Resolved, run: Run, root: Path = Path()) -> bool:
    """Whether the run's weights are there, trained under this configuration or, as released, imported."""
    record = root / run.folder / "run.json"
    if not record.exists():
        return False
    if run.method == RELEASED:
        return True
    try:
        return bool(read_json(record).get("config_sha256") == resolved.sha256())
    except DataError:
        return False
