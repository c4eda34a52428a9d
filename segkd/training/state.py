"""The state of an unfinished run in one file: written in one step, named by its hash, two generations kept.

A state file is a safetensors file: all tensors (weights, optimiser moments, banks, random state), and the scalars as
JSON in its header. Its name carries iteration and sha256, so a reader knows a damaged file before it trusts it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from segkd import crash
from segkd.errors import CheckpointError, DriftError, explain, listing
from segkd.files import atomic_write, sha256_file

log = logging.getLogger(__name__)

_NAME = re.compile(r"state-(\d{8})-([0-9a-f]{16})\.safetensors$")
_KEEP = 2


@dataclass
class State:
    """What a run needs to go on as if it had never stopped."""

    tensors: dict[str, Tensor]
    scalars: dict[str, Any] = field(default_factory=dict)

    @property
    def iteration(self) -> int:
        """Updates done."""
        return int(self.scalars["iteration"])


def save_state(folder: Path, state: State) -> Path:
    """Write a state, then remove all but the newest two. The old ones stay until the new one is safe on disk."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
    content = save(tensors, metadata={"scalars": json.dumps(state.scalars, allow_nan=False)})
    sha = hashlib.sha256(content).hexdigest()[:16]
    path = folder / f"state-{state.iteration:08d}-{sha}.safetensors"
    atomic_write(path, content)
    crash.point("state written")
    for old in _found(folder)[_KEEP:]:
        old.unlink(missing_ok=True)
    return path


def load_state(folder: Path, damaged: list[str] | None = None) -> State | None:
    """The newest undamaged state; None where there is none. A damaged one is named and the one before it is used.

    damaged: a list that is told of the damaged ones. Raises CheckpointError where states exist but none can be trusted:
    starting over silently would lose work.
    """
    damaged = [] if damaged is None else damaged
    for path in _found(folder):
        fault = _fault(path)
        if fault is None:
            if damaged:
                log.warning("using the state before: %s", path.name)
            return _read(path)
        damaged.append(f"{path.name}: {fault}")
        log.warning("damaged state %s: %s", path, fault)
    if damaged:
        raise CheckpointError(
            f"No state of this run can be trusted.\n  where: {folder}\n{listing(damaged)}\n"
            "  to do: restore one from a backup, or start over with --fresh"
        )
    return None


def _found(folder: Path) -> list[Path]:
    """State files, newest iteration first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.match(path.name)), reverse=True)


def _fault(path: Path) -> str | None:
    want = _NAME.match(path.name)
    sha = sha256_file(path)[:16]
    if want is None or sha != want.group(2):
        return f"its content has sha256 {sha}..., its name says {want.group(2) if want else '?'}..."
    return None


def _read(path: Path) -> State:
    try:
        with safe_open(path, framework="pt") as file:
            scalars = json.loads((file.metadata() or {})["scalars"])
            return State({name: file.get_tensor(name) for name in file.keys()}, scalars)  # noqa: SIM118 -- no mapping
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"state {path} is not one of segkd's: {error}; start over with --fresh") from error


def discard(folder: Path) -> None:
    """Remove the states of a run, with their folder."""
    shutil.rmtree(folder, ignore_errors=True)


def pack_module(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a module under `prefix.`."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def unpack_module(prefix: str, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Inverse of pack_module; every key must fit."""
    own = {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
    module.load_state_dict(own, strict=True)


def pack_optimiser(prefix: str, optimiser: Optimizer) -> dict[str, Tensor]:
    """All tensors of an optimiser's state, by the position of their parameter."""
    states: dict[int, dict[str, Any]] = optimiser.state_dict()["state"]
    packed = {}
    for index, entries in states.items():
        for name, value in entries.items():
            if value is not None:
                packed[f"{prefix}.{index}.{name}"] = torch.as_tensor(value)
    return packed


def unpack_optimiser(prefix: str, optimiser: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of pack_optimiser; groups and hyper-parameters stay as they were built from the configuration.

    Moments get their parameter's memory layout back: fused kernels go through memory as it lies.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}."):
            _, index, entry = name.rsplit(".", 2)
            owner = parameters[int(index)]
            moment = tensor.shape == owner.shape
            laid = torch.empty_like(owner, dtype=tensor.dtype, device="cpu").copy_(tensor) if moment else tensor
            states.setdefault(int(index), {})[entry] = laid
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})


def pack_random(device: torch.device) -> dict[str, Tensor]:
    """The random state that a run draws from (dropout, memory banks); data order needs none, it is a function."""
    packed = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        packed["random.cuda"] = torch.cuda.get_rng_state(device)
    return packed


def unpack_random(device: torch.device, tensors: dict[str, Tensor]) -> None:
    """Inverse of pack_random."""
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


def check_drift(
    saved: dict[str, Any], now: dict[str, Any], *, where: Path, allow: bool, command: str = "the same command"
) -> list[str]:
    """Differences between what a run started with and what it would go on with; refused unless allowed.

    A condition is a hash, or a dict of `sha256` and `of`, what it is the hash of: every leaf that differs is named.
    command: what trains this run, for the message: whoever started it by Snakemake never typed it.
    """
    names = sorted(set(saved) | set(now))
    differences = [line for name in names if (line := _difference(name, saved.get(name), now.get(name)))]
    if differences and not allow:
        raise DriftError(
            explain(
                "This run started under other conditions than it would go on with.",
                expected="the conditions it started with",
                found="\n" + listing(differences),
                where=where,
                fix=f"bring the former conditions back; or `{command} --fresh` (or deleting {where / 'state'}) starts "
                f"over, `{command} --allow-drift` goes on and records the differences in run.json; then start "
                "Snakemake again, if it was Snakemake that stopped",
            )
        )
    return differences


def _difference(name: str, old: Any, new: Any) -> str:
    """What differs, in words; empty where nothing does."""
    hashes = [one["sha256"] if isinstance(one, dict) else one for one in (old, new)]
    if hashes[0] == hashes[1]:
        return ""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f"{name}: {hashes[0]} -> {hashes[1]}"
    before, after = _leaves(old["of"]), _leaves(new["of"])
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    return f"{name}: " + "; ".join(f"{key} {before.get(key)} -> {after.get(key)}" for key in keys)


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted path -> value, for every leaf of nested dicts."""
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, inner in value.items() for k, v in _leaves(inner, f"{path}.{key}".lstrip(".")).items()}
