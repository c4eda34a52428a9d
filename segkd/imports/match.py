"""Which key of a checkpoint fills which key of a network: every key on both sides is accounted for, or nothing is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor

from segkd.errors import CheckpointError, listing
from segkd.imports.layout import OPTIONAL
from segkd.imports.rules import LeftOut, Rule, Rules, reason, rename

COUNTER = ".num_batches_tracked"
WIDENED = {torch.float16, torch.bfloat16}  # every value of these is one of float32


@dataclass
class Match:
    """One way to read a checkpoint. filled: the network's key -> the file's; left_out: the file's key -> why.

    counted: keys that files from before PyTorch 0.4.1 lack; used: how many keys each rule renamed;
    unmatched, misfits: faults of the file's keys; missing: keys of the network that nothing fills.
    """

    variant: str
    filled: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    counted: list[str] = field(default_factory=list)
    used: dict[Rule, int] = field(default_factory=dict)
    unmatched: dict[str, str] = field(default_factory=dict)
    misfits: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Keys that are not accounted for."""
        return len(self.unmatched) + len(self.misfits) + len(self.missing)

    def tensors(self, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The network's tensors by its own keys: halves widened, linear layers as 1x1 kernels, absent counters 0."""
        tensors = {key: found[name].to(own[key].dtype).reshape(own[key].shape) for key, name in self.filled.items()}
        return tensors | {key: torch.zeros_like(own[key]) for key in self.counted}

    def as_json(self) -> dict[str, Any]:
        """How the keys were accounted for, for run.json."""
        return {
            "variant": self.variant,
            "rules": [{"pattern": rule.pattern, "to": rule.to, "keys": count} for rule, count in self.used.items()],
            "keys": len(self.filled),
            "left_out": self.left_out,
            "counters_filled_in": len(self.counted),
        }


def match(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    variants: Mapping[str, list[Rules]],
    left_out: LeftOut,
    hints: LeftOut,
) -> Match:
    """The variant of a layout that accounts for every key of the file (`found`) and of the network (`own`).

    variants: by name, tables that a key passes through one after the other; left_out, hints: why keys that begin so
    have no place, in this network or in any. CheckpointError lists what stays
    unmatched in the variant that comes closest, on both sides, and what could belong together.
    """
    tried = [attempt(name, found, own, passes, left_out, hints) for name, passes in variants.items()]
    fitting = [one for one in tried if not one.faults]
    if any(one.filled != fitting[0].filled for one in fitting[1:]):
        names = ", ".join(one.variant for one in fitting)
        raise CheckpointError(f"The keys can be read in several ways ({names}); decide by --rules FILE.yaml.")
    if fitting:
        return fitting[0]
    raise CheckpointError(_message(min(tried, key=lambda one: one.faults), found, own))


def attempt(
    variant: str,
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    passes: list[Rules],
    left_out: LeftOut,
    hints: LeftOut,
) -> Match:
    """Read the file's keys by one variant's tables."""
    result = Match(variant)
    for name in found:
        key, rules = name.removeprefix("module."), []
        why = reason(key, left_out)
        for table in passes:
            key, rule = rename(key, table)
            rules += [rule] if rule else []
            why = why or reason(key, left_out)
        if why or (why := _absent_part(key, own)):
            result.left_out[name] = why
        elif not rules:
            result.unmatched[name] = reason(key, hints) or "no rule"
        elif key not in own:
            result.unmatched[name] = f"would be {key}, which the network does not have"
        else:
            _place(result, name, key, found, own)
        for rule in rules:
            result.used[rule] = result.used.get(rule, 0) + 1
    _finish(result, own)
    return result


def _absent_part(key: str, own: Mapping[str, Tensor]) -> str | None:
    """Why a key of a part that acts in training only has no place, or None where the network has that part."""
    for part, why in OPTIONAL.items():
        if key.startswith(f"{part}.") and not any(mine.startswith(f"{part}.") for mine in own):
            return why
    return None


def _place(result: Match, name: str, key: str, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Fill `key` by the file's `name`, unless it does not fit; a second name of the same tensor is left out."""
    tensor, wanted = found[name], own[key]
    if key in result.filled:
        first = result.filled[key]
        if tensor.dtype == found[first].dtype and torch.equal(tensor, found[first]):
            result.left_out[name] = f"the same tensor as {first}"
        else:
            result.unmatched[name] = f"would be {key}, which {first} is already, with other values"
        return
    widened = tensor.dtype in WIDENED and wanted.dtype == torch.float32
    shapes = {tensor.shape, (*tensor.shape, 1, 1)} if tensor.dim() == 2 else {tensor.shape}  # linear: 1x1 convolution
    if wanted.shape not in shapes or not (tensor.dtype == wanted.dtype or widened):
        result.misfits.append(f"{name} {_kind(tensor)} -> {key} {_kind(wanted)}")
    result.filled[key] = name


def _finish(result: Match, own: Mapping[str, Tensor]) -> None:
    for key in own:
        if key in result.filled:
            continue
        if key.endswith(COUNTER) and key.removesuffix(COUNTER) + ".running_mean" in result.filled:
            result.counted.append(key)
        else:
            result.missing.append(key)


def _kind(tensor: Tensor) -> str:
    """Shape, and the kind of number where it is not float32: (64, 3, 7, 7)."""
    kind = "" if tensor.dtype == torch.float32 else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"


def suggestions(
    unmatched: list[str], missing: list[str], found: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> list[tuple[str, str]]:
    """Pairs (the file's key, the network's) of equal last word and shape, in the order that both sides share."""

    def looks(names: list[str], tensors: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
        return [(name.rpartition(".")[2], tuple(tensors[name].shape)) for name in names]

    blocks = SequenceMatcher(None, looks(unmatched, found), looks(missing, own), autojunk=False).get_matching_blocks()
    return [(unmatched[a + k], missing[b + k]) for a, b, size in blocks for k in range(size)]


def _message(best: Match, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Everything that stays unmatched, each key once: beside the one it could belong to, or alone."""
    pairs = dict(suggestions(list(best.unmatched), best.missing, found, own))
    told = {name: f"{_kind(found[name])}: {why}" for name, why in best.unmatched.items()}
    parts = {
        "in the file, without a place in the network": [
            f"{name} {text}" for name, text in told.items() if name not in pairs
        ],
        "in the network, filled by nothing": [
            f"{key} {_kind(own[key])}" for key in best.missing if key not in pairs.values()
        ],
        "unmatched on both sides, could belong together by shape and order (file ~ network)": [
            f"{name} ~ {key} {told[name]}" for name, key in pairs.items()
        ],
        "of another shape or kind (file -> network)": best.misfits,
    }
    lists = "\n".join(f"  {title}:\n{listing(faults, limit=len(faults))}" for title, faults in parts.items() if faults)
    counts = (
        f"{len(best.unmatched)} in the file, {len(best.missing)} in the network, {len(best.misfits)} of another shape"
    )
    what = "The checkpoint's keys and the network's do not account for each other"
    return f"{what} ({counts}); nothing was written.\n{lists}"
