"""Weights on disk: safetensors only, so that reading a file never runs code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from segkd.errors import CheckpointError, explain, listing
from segkd.files import atomic_write


def write(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors in one step and return the file's sha256 (hex).

    The bytes depend on names and values alone: not on order, device, memory format or whether a gradient is wanted.
    """
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    atomic_write(path, content)
    return hashlib.sha256(content).hexdigest()


def read(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU.

    sha256: the expected hash of the file; without it a damaged header is still found, a changed value is not.
    CheckpointError where the file is missing, is not the expected one, or is no safetensors file.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, "a file of weights", error) from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise CheckpointError(
            explain(
                "A file of weights is not the one that was written.",
                expected=f"sha256 {sha256}",
                found=f"sha256 {found} ({len(content)} bytes)",
                where=path,
                fix="it was damaged or replaced: fetch it again (dvc pull), or delete its run's folder and train again",
            )
        )
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise _unreadable(path, "a complete safetensors file", error) from None


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, where: object) -> None:
    """Copy tensors into a module's parameters and buffers of the same names; all of them, or none.

    CheckpointError lists every key that is missing, not expected, or of another shape or kind of number, and leaves
    the module as it was. `where` names the tensors' source in that message.
    """
    own = module.state_dict()
    faults = mismatches(own, tensors)
    if faults:
        raise CheckpointError(
            f"Weights do not fit the network ({len(faults)} key{'s' * (len(faults) > 1)}); nothing was loaded.\n"
            f"{listing(faults)}\n  where:    {where}\n"
            "  to do:    use weights of the same network (head, backbone, stem, width, attention) and number of classes"
        )
    module.load_state_dict(dict(tensors))


def mismatches(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps `tensors` from taking the place of `own`, one line per key, own keys first."""
    faults = [f"missing: {name} {tuple(own[name].shape)}" for name in own if name not in tensors]
    faults += [f"unexpected: {name} {tuple(tensors[name].shape)}" for name in tensors if name not in own]
    for name in own:
        if name in tensors and tensors[name].shape != own[name].shape:
            faults.append(f"shape of {name}: expected {tuple(own[name].shape)}, found {tuple(tensors[name].shape)}")
        elif name in tensors and tensors[name].dtype != own[name].dtype:
            faults.append(f"type of {name}: expected {own[name].dtype}, found {tensors[name].dtype}")
    return faults


def _unreadable(path: Path, expected: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        explain(
            "Weights cannot be read.",
            expected=expected,
            found=f"{type(error).__name__}: {error}",
            where=path,
            fix="run the step that makes the file, or fetch it again (dvc pull)",
        )
    )
