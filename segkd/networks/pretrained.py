"""Published ImageNet weights, laid over a backbone. What there is and where it is: `catalogue`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from segkd.config.network import NetworkConfig
from segkd.errors import CheckpointError, ConfigError, explain
from segkd.networks.build import Network
from segkd.networks.catalogue import Entry, obtain, pick
from segkd.networks.fetch import remember
from segkd.networks.layouts import LAYOUTS
from segkd.networks.weights import load_into


def load_pretrained(network: Network, name: str, *, source: str | Path | None = None) -> list[str]:
    """Lay ImageNet weights over a network's backbone and return the keys that were left out on purpose.

    source: see `fetch`. ConfigError for an unknown name, or weights of another backbone or stem; DownloadError where
    the file cannot be had; CheckpointError where it is no dictionary of tensors, or with every other key that does not
    fit. A file without published hash is remembered by its own once it has fitted, and must stay the same from then on.
    """
    entry = pick(name)
    _fits(entry, name, network.config)
    path = obtain(name, source=source)
    tensors, left_out = select(read(path), entry.left_out)
    tensors = LAYOUTS[entry.keys](tensors)
    fill_counters(network.backbone.state_dict(), tensors)
    load_into(network.backbone, tensors, where=path)
    if not entry.sha256:
        remember(path)
    return left_out


def _fits(entry: Entry, name: str, config: NetworkConfig) -> None:
    """ConfigError before anything is fetched, where the weights belong to another backbone or stem."""
    if entry.backbone != config.backbone or entry.stem not in (None, config.stem):
        raise ConfigError(
            explain(
                f"Weights {name!r} do not fit the backbone.",
                expected=f"backbone {entry.backbone}" + (f", stem {entry.stem}" if entry.stem else ""),
                found=f"backbone {config.backbone}, stem {config.stem}",
                where="params.yaml: networks: pretrained",
                fix="choose the weights of this backbone, or set pretrained: null",
            )
        )


def read(path: Path) -> dict[str, Tensor]:
    """Tensors of a PyTorch checkpoint, read without running code from it (weights_only).

    CheckpointError where it is damaged, holds other objects, or is not a flat dictionary of tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 -- a damaged pickle makes its reader stumble in any way
        first = str(error).partition("\n")[0]  # the rest of PyTorch's message advises to load unsafely
        raise _foreign(path, f"{type(error).__name__}: {first}") from None
    if not isinstance(content, dict):
        raise _foreign(path, f"a {type(content).__name__}")
    odd = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if odd:
        raise _foreign(path, f"other things at {', '.join(odd[:10])}")
    return dict(content)


def select(tensors: dict[str, Tensor], left_out: tuple[str, ...]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors whose key starts with none of the prefixes, and the keys of the others."""
    dropped = [name for name in tensors if name.startswith(left_out)]
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(left_out)}
    return kept, dropped


def fill_counters(own: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    """Add the batch counters of batch norms, which files from before PyTorch 0.4.1 do not have, in place.

    They are only read where momentum is None, which no network here uses.
    """
    for name, tensor in own.items():
        if name.endswith(".num_batches_tracked"):
            tensors.setdefault(name, torch.zeros_like(tensor))


def _foreign(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        explain(
            "ImageNet weights cannot be read.",
            expected="a dictionary of tensors",
            found=found,
            where=path,
            fix="delete the file, so that it is fetched again",
        )
    )
