"""The import step: a released checkpoint in, a run's folder out, as if it had been trained here."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import torch

from segkd.config.fingerprint import code_fingerprint
from segkd.config.load import load_params
from segkd.config.runs import RELEASED, Resolved, Run, describe, resolve
from segkd.data.catalogue import info_of
from segkd.errors import CheckpointError, explain
from segkd.files import read_json, sha256_file, write_json
from segkd.imports.convert import Converted, convert
from segkd.imports.layout import differences
from segkd.imports.layouts import layout_of
from segkd.imports.read import Foreign, read_checkpoint
from segkd.imports.rules import UserRules, load_rules
from segkd.networks import weights
from segkd.training import manifest
from segkd.training.device import Place

log = logging.getLogger(__name__)
STEP = "import"


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
    """Turn a checkpoint that authors released into the run <recipe>/<network>/as-released/seed0; returns its folder.

    layout: whose names its keys have; rules: a user's YAML file for names that differ; fresh: put it in the place of an
    import of another file. The recipe says the data set, hence the classes, and how the network is scored.
    CheckpointError for a file that cannot be read or does not fit, or in whose place another import lies; ConfigError
    for a name that does not exist, or a network that the layout cannot become.
    """
    started = manifest.now()
    run = Run(recipe, network, RELEASED)
    resolved = resolve(load_params(root / "params.yaml"), run)
    table, own = layout_of(layout), load_rules(rules)
    foreign, folder = read_checkpoint(file), root / run.folder
    _keep_other(folder, foreign, fresh)
    done = convert(foreign, layout, resolved.network, len(info_of(resolved.dataset).classes), own)
    differing = differences(table, resolved.network, resolved.recipe)
    for one in differing:
        log.warning("%s: not quite the released network: %s", run.name, one)
    origin = _origin(resolved, root)
    account = _account(foreign, layout, done, own, rules) | {"differences": differing}
    words = ["segkd", "import-checkpoint", file.name, "--from", layout, "--network", network, "--recipe", recipe]
    command = shlex.join([*words, *(["--rules", rules.name] if rules else [])])
    made = {"weights": _write(folder, done), "best": None, STEP: account, **_manifest(done, started)}
    record = {"format": 1, "run": run.name, "step": STEP, "seed": run.seed, **origin, **made, "command": command}
    write_json(folder / "run.json", record)
    log.info("%s: imported %s, %d tensors", run.name, file.name, len(done.match.filled))
    return folder


def _keep_other(folder: Path, foreign: Foreign, fresh: bool) -> None:
    """CheckpointError where something else lies in this place, which only `fresh` may replace."""
    path = folder / "run.json"
    if fresh or not path.exists():
        return
    before = read_json(path).get(STEP) or {}
    if before.get("sha256") != foreign.sha256:
        raise CheckpointError(
            explain(
                "Another checkpoint was imported here.",
                expected=f"sha256 {before.get('sha256')} ({before.get('file')})",
                found=f"sha256 {foreign.sha256} ({foreign.path.name})",
                where=path,
                fix="--fresh puts this one in its place; evaluate again afterwards",
            )
        )


def _origin(resolved: Resolved, root: Path) -> dict[str, Any]:
    """As a trained run says it, but on which data the weights were trained is not known by content."""
    return {
        "config": describe(resolved),
        "config_sha256": resolved.sha256(),
        "code": {"fingerprint": code_fingerprint(STEP)} | manifest.git(root),
        "data": {"name": resolved.recipe.dataset, "sha256": None},
        "teacher": None,
        "pretraining": None,
    }


def _write(folder: Path, done: Converted) -> dict[str, Any]:
    """Write the weights; run.json, which names them, goes first where there is an older one."""
    (folder / "run.json").unlink(missing_ok=True)
    path = folder / "weights.safetensors"
    sha = weights.write(path, done.network.state_dict())
    return {"file": path.name, "sha256": sha, "bytes": path.stat().st_size}


def _account(foreign: Foreign, layout: str, done: Converted, own: UserRules, rules: Path | None) -> dict[str, Any]:
    """Which file, read how, and what became of each of its keys."""
    return {
        "file": foreign.path.name,
        "sha256": foreign.sha256,
        "bytes": foreign.size,
        "layout": layout,
        "under": foreign.holder,
        "beside": foreign.beside,
        "reader": foreign.network,
        "rules_file": {"file": rules.name, "sha256": sha256_file(rules), **own.model_dump(mode="json")}
        if rules
        else None,
        **done.match.as_json(),
    }


def _manifest(done: Converted, started: str) -> dict[str, Any]:
    """What a trained run tells of its training, in the form that tracking and report read: there was none here."""
    return {
        "versions": manifest.versions(),
        "hardware": manifest.hardware(Place(torch.device("cpu"))),
        "timing": {
            "started": started,
            "finished": manifest.now(),
            "wall_seconds": 0.0,
            "iterations": 0,
            "iterations_per_second": None,
            "resumes": 0,
        },
        "memory": {},
        "drift": [],
        "parameters": sum(parameter.numel() for parameter in done.network.parameters()),
    }
