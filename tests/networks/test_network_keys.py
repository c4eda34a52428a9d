"""State-dict keys and shapes: torchvision's, so that its weights can be laid over."""

from __future__ import annotations

import pytest
import torch

from segkd.config.network import NetworkConfig
from segkd.networks.build import build

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def shapes(backbone: str, stem: str = "conv7") -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = build(NetworkConfig.model_validate({"head": "fcn", "backbone": backbone, "stem": stem}), 2)
    return {name: tuple(tensor.shape) for name, tensor in network.backbone.state_dict().items()}


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": () if part == "num_batches_tracked" else (channels,) for part in NORM}


def torchvision_resnet(counts: tuple[int, ...], expansion: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of torchvision's ResNet, without fc, in order."""
    found: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    inside = 64
    for layer, (blocks, base) in enumerate(zip(counts, (64, 128, 256, 512), strict=True), start=1):
        for block in range(blocks):
            name, outside = f"layer{layer}.{block}", base * expansion
            kernels = [(base, inside, 3), (base, base, 3)]
            if expansion == 4:
                kernels = [(base, inside, 1), (base, base, 3), (outside, base, 1)]
            for k, (out, into, size) in enumerate(kernels, start=1):
                found |= {f"{name}.conv{k}.weight": (out, into, size, size)} | norm(f"{name}.bn{k}", out)
            if block == 0 and (layer > 1 or expansion == 4):
                found[f"{name}.downsample.0.weight"] = (outside, inside, 1, 1)
                found |= norm(f"{name}.downsample.1", outside)
            inside = outside
    return found


@pytest.mark.parametrize(
    ("backbone", "counts", "expansion"),
    [
        ("resnet18", (2, 2, 2, 2), 1),
        ("resnet34", (3, 4, 6, 3), 1),
        ("resnet50", (3, 4, 6, 3), 4),
        ("resnet101", (3, 4, 23, 3), 4),
    ],
)
def test_resnets_have_torchvisions_keys(backbone: str, counts: tuple[int, ...], expansion: int) -> None:
    assert shapes(backbone) == torchvision_resnet(counts, expansion)


def test_mobilenetv2_has_torchvisions_keys() -> None:
    found = shapes("mobilenetv2")
    assert len(found) == 314 - 2 - 6  # torchvision's, without classifier and features.18
    assert found["features.0.0.weight"] == (32, 3, 3, 3)
    assert found["features.1.conv.0.0.weight"] == (32, 1, 3, 3)
    assert found["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert found["features.2.conv.0.0.weight"] == (96, 16, 1, 1)
    assert found["features.2.conv.1.0.weight"] == (96, 1, 3, 3)
    assert found["features.2.conv.2.weight"] == (24, 96, 1, 1)
    assert found["features.17.conv.3.running_var"] == (320,)


def test_the_deep_stem_is_a_sequence_under_conv1() -> None:
    found = shapes("resnet18", "deep")
    stem = {name: shape for name, shape in found.items() if name.startswith("conv1.") and name.endswith("weight")}
    assert stem == {
        "conv1.0.weight": (64, 3, 3, 3),
        "conv1.1.weight": (64,),
        "conv1.3.weight": (64, 64, 3, 3),
        "conv1.4.weight": (64,),
        "conv1.6.weight": (128, 64, 3, 3),
    }
    assert found["bn1.weight"] == (128,)


def test_heads_stand_beside_the_backbone() -> None:
    fields = {"head": "deeplabv3plus", "backbone": "resnet18", "auxiliary": True, "attention": "cbam"}
    with torch.device("meta"):
        network = build(NetworkConfig.model_validate(fields), 2)
    assert {name.split(".")[0] for name in network.state_dict()} == {"backbone", "head", "auxiliary", "attention"}
    plain = NetworkConfig.model_validate({"head": "fcn", "backbone": "resnet18"})
    with torch.device("meta"):
        assert {name.split(".")[0] for name in build(plain, 2).state_dict()} == {"backbone", "head"}
