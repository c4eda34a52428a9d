"""ImageNet weights of torchvision: where they are, fetching and checking them, laying them over a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segkd.config.network import NetworkConfig
from segkd.errors import CheckpointError, ConfigError, explain
from segkd.networks.build import Network
from segkd.networks.fetch import fetch
from segkd.networks.weights import load_into

BASE = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Entry:
    """A published file of weights. `sha256` is the start of its hash, which the publisher put into its name.

    `left_out`: prefixes of keys that a dense-prediction backbone has no place for.
    """

    file: str
    backbone: str
    left_out: tuple[str, ...] = ("fc.",)

    @property
    def sha256(self) -> str:
        """First 8 hex digits of the file's sha256."""
        return self.file.removesuffix(".pth").rsplit("-", 1)[1]


CATALOGUE = {
    "imagenet-resnet18": Entry("resnet18-5c106cde.pth", "resnet18"),
    "imagenet-resnet34": Entry("resnet34-b627a593.pth", "resnet34"),
    "imagenet-resnet50": Entry("resnet50-0676ba61.pth", "resnet50"),
    "imagenet-resnet101": Entry("resnet101-5d3b4d8f.pth", "resnet101"),
    "imagenet-mobilenetv2": Entry("mobilenet_v2-b0353104.pth", "mobilenetv2", ("classifier.", "features.18.")),
}


def load_pretrained(network: Network, name: str, *, source: str | Path | None = None) -> list[str]:
    """Lay ImageNet weights over a network's backbone and return the keys that were left out on purpose.

    source: see `fetch`. ConfigError for an unknown name, or weights of another backbone or stem; DownloadError where
    the file cannot be had; CheckpointError where it is no dictionary of tensors, or with every other key that does not
    fit.
    """
    entry = pick(name)
    _fits(entry, name, network.config)
    path = fetch(entry.file, BASE, entry.sha256, source=source)
    tensors, left_out = select(read(path), entry.left_out)
    fill_counters(network.backbone.state_dict(), tensors)
    load_into(network.backbone, tensors, where=path)
    return left_out


def pick(name: str) -> Entry:
    """The catalogue's entry; ConfigError says which there are."""
    if name not in CATALOGUE:
        raise ConfigError(
            explain(
                f"There are no weights {name!r}.",
                expected=f"one of {', '.join(CATALOGUE)}",
                found=name,
                where="params.yaml: networks: pretrained",
                fix="correct the name, or set pretrained: null",
            )
        )
    return CATALOGUE[name]


def _fits(entry: Entry, name: str, config: NetworkConfig) -> None:
    """ConfigError before anything is fetched, where the weights belong to another backbone or stem."""
    other_stem = config.stem != "conv7" and config.backbone != "mobilenetv2"  # which has but one
    if entry.backbone != config.backbone or other_stem:
        raise ConfigError(
            explain(
                f"Weights {name!r} do not fit the backbone.",
                expected=f"backbone {entry.backbone}, stem conv7",
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
