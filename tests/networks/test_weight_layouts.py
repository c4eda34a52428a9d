"""Published key layouts: written out as their publishers name them, brought back to ours."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import network
from torch import Tensor

from segkd.errors import CheckpointError
from segkd.networks.catalogue import CATALOGUE
from segkd.networks.layouts import deep_stem, mmseg
from segkd.networks.pretrained import load_pretrained
from segkd.networks.weights import load_into


def as_mmseg(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """MMSegmentation's MixVisionTransformer: layers.K = [patches, blocks, norm]; one projection for q, k and v."""
    found: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        kind, stage, rest = re.fullmatch(r"(patch_embed|block|norm)(\d)\.(.*)", name).groups()  # type: ignore[union-attr]
        prefix = f"layers.{int(stage) - 1}.{('patch_embed', 'block', 'norm').index(kind)}"
        if ".attn.kv." in name:
            continue
        if ".attn.q." in name:
            tensor = torch.cat([tensor, ours[name.replace(".q.", ".kv.")]])  # noqa: PLW2901
        rest = rest.replace("attn.q.", "attn.attn.in_proj_").replace("attn.proj.", "attn.attn.out_proj.")
        if rest in ("proj.weight", "proj.bias"):
            rest = rest.replace("proj", "projection")
        for one, other in (("mlp.fc1", "ffn.layers.0"), ("mlp.dwconv", "ffn.layers.1"), ("mlp.fc2", "ffn.layers.4")):
            if one in rest and rest.endswith("weight") and tensor.dim() == 2:
                tensor = tensor[..., None, None]  # noqa: PLW2901
            rest = rest.replace(one, other)
        found[f"{prefix}.{rest}"] = tensor
    return found


@pytest.mark.parametrize("size", ["mit-b0", "mit-b4"])
def test_mmsegs_transformer(size: str) -> None:
    ours = network(head="segformer", backbone=size, output_stride=32, seed=3).backbone.state_dict()
    theirs = as_mmseg(ours)
    names = set(theirs)
    assert {"layers.0.0.projection.weight", "layers.3.2.bias", "layers.1.1.0.attn.attn.in_proj_bias"} <= names
    assert {"layers.0.1.1.attn.sr.weight", "layers.2.1.1.ffn.layers.4.weight", "layers.0.1.0.attn.norm.bias"} <= names
    assert theirs["layers.0.1.0.ffn.layers.0.weight"].dim() == 4
    back = mmseg(theirs)
    assert set(back) == set(ours)
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_foreign_keys_stay_and_are_told() -> None:
    net = network(head="segformer", backbone="mit-b0", output_stride=32).backbone
    theirs = as_mmseg(net.state_dict()) | {"cls_token": torch.zeros(1), "layers.x.1.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"(?s)unexpected: cls_token.*unexpected: layers\.x\.1\.weight"):
        load_into(net, mmseg(theirs), where="a test")


def test_the_deep_stem_beside_the_layers() -> None:
    names = ["conv1.weight", "bn1.bias", "conv2.weight", "bn2.running_var", "conv3.weight", "bn3.num_batches_tracked"]
    names += ["layer1.0.conv2.weight", "layer4.1.bn3.bias", "fc.weight"]
    found = deep_stem({name: torch.full((1,), float(k)) for k, name in enumerate(names)})
    assert {name: int(tensor) for name, tensor in found.items()} == {
        "conv1.0.weight": 0,
        "conv1.1.bias": 1,
        "conv1.3.weight": 2,
        "conv1.4.running_var": 3,
        "conv1.6.weight": 4,
        "bn1.num_batches_tracked": 5,
        "layer1.0.conv2.weight": 6,
        "layer4.1.bn3.bias": 7,
        "fc.weight": 8,
    }


@pytest.mark.parametrize(
    ("name", "head", "left_out"),
    [
        ("imagenet-mit-b0", "segformer", []),
        ("imagenet-xception41", "deeplabv3plus", ["head.fc.weight", "head.fc.bias"]),
    ],
)
def test_published_files_fill_the_whole_backbone(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, head: str, left_out: list[str]
) -> None:
    entry = replace(CATALOGUE[name], file="published.pth")
    monkeypatch.setitem(CATALOGUE, name, entry)
    fields = {"head": head, "backbone": entry.backbone, "output_stride": 32}
    expected = network(seed=7, **fields).backbone.state_dict()
    theirs = as_mmseg(expected) if entry.keys == "mmseg" else expected
    cache.mkdir()
    torch.save(dict(theirs) | {key: torch.zeros(1) for key in left_out}, cache / entry.file)
    net = network(**fields)
    assert load_pretrained(net, name) == left_out
    assert all(torch.equal(tensor, expected[key]) for key, tensor in net.backbone.state_dict().items())
