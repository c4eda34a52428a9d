"""Published ImageNet weights: where they are, and whether this machine has them. Imports no torch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segkd.errors import ConfigError, explain
from segkd.networks import fetch

TORCHVISION = "https://download.pytorch.org/models/"
CIRKD = "https://github.com/winycg/CIRKD/releases/download/backbonev0.1/"
TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
OPENMMLAB = "https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer/"
_CAFFE = "trained on BGR minus (104.00698793, 116.66876762, 122.67891434), not divided: recipe with that `normalise`"


@dataclass(frozen=True)
class Entry:
    """A published file of weights, and what a network must be to take it.

    base: URL of its folder; "" where it can only be had by hand, from `page`. stem: that of a ResNet. keys: how the
    file names its tensors (see `layouts`). left_out: prefixes of keys that a dense-prediction backbone has no place
    for. note: what else one must know to use it.
    """

    file: str
    backbone: str
    base: str = TORCHVISION
    page: str = ""
    stem: Literal["conv7", "deep"] | None = None
    keys: Literal["own", "deep-stem", "mmseg"] = "own"
    left_out: tuple[str, ...] = ("fc.",)
    note: str = ""

    @property
    def sha256(self) -> str:
        """First 8 hex digits of the file's sha256, which the publisher put into its name; "" where not."""
        found = re.search(r"-([0-9a-f]{8})\.pth$", self.file)
        return found[1] if found else ""


CATALOGUE = {
    "imagenet-resnet18": Entry("resnet18-5c106cde.pth", "resnet18", stem="conv7"),
    "imagenet-resnet34": Entry("resnet34-b627a593.pth", "resnet34", stem="conv7"),
    "imagenet-resnet50": Entry("resnet50-0676ba61.pth", "resnet50", stem="conv7"),
    "imagenet-resnet101": Entry("resnet101-5d3b4d8f.pth", "resnet101", stem="conv7"),
    "imagenet-resnet18-deep": Entry(
        "resnet18-imagenet.pth", "resnet18", CIRKD, stem="deep", keys="deep-stem", note=_CAFFE
    ),
    "imagenet-resnet101-deep": Entry(
        "resnet101-imagenet.pth",
        "resnet101",
        base="",
        page="https://drive.google.com/file/d/1V8-E4wm2VMsfnNiczSIDoSM7JJBMARkP/view",
        stem="deep",
        keys="deep-stem",
        note=_CAFFE,
    ),
    "imagenet-mobilenetv2": Entry("mobilenet_v2-b0353104.pth", "mobilenetv2", left_out=("classifier.", "features.18.")),
    "imagenet-xception41": Entry(
        "tf_xception_41-e6439c97.pth",
        "xception41-released",
        TIMM,
        left_out=("head.",),
        note="port of the authors' TensorFlow weights; trained on RGB / 255 with mean and std 0.5",
    ),
    "imagenet-mit-b0": Entry("mit_b0_20220624-7e0fe6dd.pth", "mit-b0", OPENMMLAB, keys="mmseg", left_out=()),
    "imagenet-mit-b4": Entry("mit_b4_20220624-d588d980.pth", "mit-b4", OPENMMLAB, keys="mmseg", left_out=()),
}


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


def obtain(name: str, *, source: str | Path | None = None) -> Path:
    """Path of the weights' verified file in the cache, fetched where it is not there yet.

    source: see `fetch`. ConfigError for an unknown name; DownloadError where it cannot be had.
    """
    entry = pick(name)
    return fetch.fetch(entry.file, entry.base, entry.sha256, page=entry.page, source=source)


def available(name: str) -> str:
    """What is missing of these weights, and what to do, in one line; "" where they are in the cache or $SEGKD_WEIGHTS.

    Nothing is fetched. An address on the network is taken at its word: what it holds shows when it is asked.
    ConfigError for an unknown name.
    """
    entry, folder = pick(name), fetch.cache_folder()
    if fetch.right(folder / entry.file, entry.sha256):
        return ""
    offered, places = os.environ.get("SEGKD_WEIGHTS"), str(folder)
    if offered:
        path = fetch.local(fetch.address(entry.file, offered))
        if path is None or fetch.right(path, entry.sha256 or fetch.recorded(folder / entry.file)):
            return ""
        places += f" or {offered}"
    missing = f"weights {name}: there is no undamaged {entry.file} in {places}"
    by_hand = f"put it into {folder}, or set SEGKD_WEIGHTS to a folder that holds it"
    if not entry.base:
        return f"{missing}; download it from {entry.page} by hand, then {by_hand}"
    return f"{missing}; training fetches it from {entry.base}{entry.file}; where there is no network, {by_hand}"
