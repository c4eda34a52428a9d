"""Checkpoints under other code bases' names come to their places, bit for bit, or nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import foreign_names as names
import pytest
import torch
from torch import Tensor

from segkd.config.recipe import Recipe
from segkd.config.study import Checkpoint
from segkd.errors import CheckpointError, ConfigError
from segkd.imports.convert import convert
from segkd.imports.layout import differences
from segkd.imports.layouts import LAYOUTS, layout_of
from segkd.imports.read import Foreign
from segkd.imports.rules import UserRules
from segkd.networks.build import Network

IMAGE = torch.randn((1, 3, 49, 65), generator=torch.Generator().manual_seed(1))
NO_RULES = UserRules()


def foreign(state: Mapping[str, Tensor]) -> Foreign:
    return Foreign(Path("theirs.pth"), "0" * 64, 1, dict(state), "", {}, "")


def check_same(ours: Network, layout: str, state: Mapping[str, Tensor], rules: UserRules = NO_RULES) -> dict:
    done = convert(foreign(state), layout, ours.config, names.CLASSES, rules)
    with torch.no_grad():
        wanted, found = ours(IMAGE), done.network(IMAGE)
    assert wanted.logits.flatten(2).std(2).min() > 1e-3, "this network does not look at its image"
    assert torch.equal(wanted.logits, found.logits)
    imported = done.network.state_dict()
    for key, tensor in ours.state_dict().items():
        assert torch.equal(tensor, imported[key]), key
    return done.match.as_json()


def faults_of(ours: Network, layout: str, state: Mapping[str, Tensor], rules: UserRules = NO_RULES) -> str:
    with pytest.raises(CheckpointError) as caught:
        convert(foreign(state), layout, ours.config, names.CLASSES, rules)
    return str(caught.value)


CASES = {
    "cirkd-deeplabv3-resnet18": (
        "cirkd",
        ("deeplabv3", "resnet18", {"stem": "deep", "auxiliary": True}),
        names.CIRKD_DEEPLABV3,
    ),
    "cirkd-pspnet-resnet18": ("cirkd", ("pspnet", "resnet18", {"stem": "deep", "auxiliary": True}), names.CIRKD_PSPNET),
    "cirkd-conv7": ("cirkd", ("deeplabv3", "resnet18", {}), names.CIRKD_DEEPLABV3),
    **{
        f"cirkd-{head}-mobilenetv2-{variant}": (
            "cirkd",
            (head, "mobilenetv2", {}),
            {**table, **names.mobilenet(variant, "pretrained")},
        )
        for head, table in (("deeplabv3", names.CIRKD_DEEPLABV3), ("pspnet", names.CIRKD_PSPNET))
        for variant in ("torchvision", "flat", "named")
    },
    "aicsd-resnet18": ("aicsd", ("deeplabv3plus", "resnet18", {"output_stride": 16}), names.DEEPLAB),
    "attnfd-resnet18": ("attnfd", ("deeplabv3plus", "resnet18", {"output_stride": 16}), names.DEEPLAB),
    "attnfd-cbam": (
        "attnfd",
        ("deeplabv3plus", "resnet18", {"output_stride": 16, "attention": "cbam"}),
        names.CBAM,
    ),
    "aicsd-mobilenetv2": (
        "aicsd",
        ("deeplabv3plus", "mobilenetv2", {"output_stride": 16}),
        {**names.DEEPLAB, **names.mobilenet("flat")},
    ),
    "torchvision-deeplabv3": (
        "torchvision",
        ("deeplabv3", "resnet18", {"auxiliary": True}),
        names.TORCHVISION_DEEPLABV3,
    ),
    "torchvision-fcn": ("torchvision", ("fcn", "resnet18", {}), names.TORCHVISION_FCN),
    "mmseg-pspnet": ("mmseg", ("pspnet", "resnet18", {"auxiliary": True}), names.MMSEG_PSPNET),
    "cirkd-stem-of-three": (
        "cirkd",
        ("deeplabv3", "resnet18", {"stem": "deep"}),
        {**names.CIRKD_DEEPLABV3, **names.STEM_OF_THREE},
    ),
    "mmseg-segformer": ("mmseg", ("segformer", "mit-b0", {"output_stride": 32}), names.SEGFORMER),
    "mmseg-pspnet-deep": (
        "mmseg",
        ("pspnet", "resnet18", {"stem": "deep"}),
        {**names.MMSEG_PSPNET, **names.MMSEG_DEEP_STEM},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_key_finds_its_place(case: str) -> None:
    layout, (head, backbone, options), table = CASES[case]
    ours = names.network(head, backbone, **options)
    state = names.renamed(ours, table)
    account = check_same(ours, layout, state)
    assert account["keys"] == len(state)
    assert account["left_out"] == {}


@pytest.mark.parametrize("case", ["cirkd-deeplabv3-resnet18", "aicsd-mobilenetv2"])
def test_prefix_of_data_parallel_is_stripped(case: str) -> None:
    layout, (head, backbone, options), table = CASES[case]
    ours = names.network(head, backbone, **options)
    check_same(ours, layout, {f"module.{key}": tensor for key, tensor in names.renamed(ours, table).items()})


def test_the_naming_that_fits_is_told() -> None:
    ours = names.network("deeplabv3", "mobilenetv2")
    for variant in ("torchvision", "flat", "named"):
        state = names.renamed(ours, {**names.CIRKD_DEEPLABV3, **names.mobilenet(variant, "pretrained")})
        assert check_same(ours, "cirkd", state)["variant"] == variant


def test_second_names_of_one_tensor() -> None:
    ours = names.network("deeplabv3plus", "mobilenetv2", output_stride=16)
    once = names.renamed(ours, {**names.DEEPLAB, **names.mobilenet("flat")})
    twice = names.with_second_names(once)
    account = check_same(ours, "aicsd", twice)
    assert len(account["left_out"]) == len(twice) - len(once) > 200
    changed = "backbone.high_level_features.0.conv.6.weight"
    twice[changed] = twice[changed] + 1
    text = faults_of(ours, "aicsd", twice)
    assert f"{changed} {tuple(twice[changed].shape)}" in text
    assert "with other values" in text and text.count("high_level_features") == 1


def test_training_parts_are_left_out_with_a_reason() -> None:
    ours = names.network("deeplabv3", "resnet18", auxiliary=True)
    state = names.renamed(ours, names.CIRKD_DEEPLABV3)
    state["pretrained.fc.weight"], state["pretrained.fc.bias"] = torch.zeros(10, 8), torch.zeros(10)
    plain = names.network("deeplabv3", "resnet18")
    plain.load_state_dict(ours.state_dict(), strict=False)
    account = check_same(plain, "cirkd", state)
    left = account["left_out"]
    assert {name for name in left if name.startswith("auxlayer.")} == {n for n in state if n.startswith("auxlayer.")}
    assert left["pretrained.fc.weight"] == left["pretrained.fc.bias"] == "ImageNet's classifier"
    assert len(left) == 10  # a convolution, five of its norm, a classifier's two, and ImageNet's two
    assert account["keys"] + len(left) == len(state)


def test_attention_that_the_network_does_not_have_is_left_out() -> None:
    ours = names.network("deeplabv3plus", "resnet18", output_stride=16, attention="cbam")
    state = names.renamed(ours, names.CBAM)
    done = convert(
        foreign(state), "attnfd", ours.config.model_copy(update={"attention": "none"}), names.CLASSES, NO_RULES
    )
    assert {name for name in state if ".cbam." in name} == set(done.match.left_out)
    assert "forward pass" in done.match.left_out["aspp.cbam.ChannelGate.mlp.1.weight"]
    assert "cbam" in faults_of(ours, "aicsd", state)  # AICSD has none: not left out silently


def test_counters_of_old_files_are_filled_in() -> None:
    ours = names.network("pspnet", "resnet18")
    state = names.renamed(ours, names.CIRKD_PSPNET)
    old = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    done = convert(foreign(old), "cirkd", ours.config, names.CLASSES, NO_RULES)
    assert done.match.as_json()["counters_filled_in"] == len(state) - len(old) > 20
    with torch.no_grad():
        assert torch.equal(done.network(IMAGE).logits, ours(IMAGE).logits)


def test_half_precision_is_widened_and_double_refused() -> None:
    ours = names.network("fcn", "resnet18")
    for tensor in ours.state_dict().values():
        tensor.copy_(tensor.half())
    state = names.renamed(ours, names.TORCHVISION_FCN)
    floats = {key: tensor for key, tensor in state.items() if tensor.is_floating_point()}
    check_same(ours, "torchvision", state | {key: tensor.half() for key, tensor in floats.items()})
    text = faults_of(ours, "torchvision", state | {"classifier.4.bias": state["classifier.4.bias"].double()})
    assert "classifier.4.bias (5,) float64 -> head.classifier.bias (5,)" in text


@pytest.mark.fault("P3", "a released checkpoint with many faults")
def test_every_fault_stands_in_one_error() -> None:
    ours = names.network("deeplabv3", "resnet18")
    state = names.renamed(ours, names.CIRKD_DEEPLABV3)
    state["head.block.4.weight"] = torch.zeros(7, 4, 1, 1)
    state["extra.thing"] = torch.zeros(3)
    state["head.block.9.weight"] = torch.zeros(2)
    state["pretrained.stem.weight"] = state.pop("pretrained.conv1.weight")
    del state["pretrained.bn1.running_mean"]
    text = faults_of(ours, "cirkd", state)
    assert "3 in the file, 2 in the network, 1 of another shape" in text
    for line in (
        "extra.thing (3,): no rule",
        "head.block.9.weight (2,): no rule",
        "- backbone.bn1.running_mean (8,)",
        "head.block.4.weight (7, 4, 1, 1) -> head.classifier.weight (5, 4, 1, 1)",
        "pretrained.stem.weight ~ backbone.conv1.weight (8, 3, 7, 7): no rule",
    ):
        assert line in text, line
    assert "--rules" in text and "theirs.pth" in text


def test_a_foreign_checkpoint_gets_suggestions_for_every_key() -> None:
    ours = names.network("fcn", "resnet18")
    state = {key.replace("backbone.", "encoder.body."): tensor for key, tensor in ours.state_dict().items()}
    text = faults_of(ours, "torchvision", state)
    for key in ours.state_dict():
        if key.startswith("backbone."):
            assert f"{key.replace('backbone.', 'encoder.body.')} ~ {key} " in text


def test_rules_of_the_user_come_first() -> None:
    ours = names.network("fcn", "resnet18")
    theirs = {"backbone.": "encoder.body.", "head.conv.": "top.", "head.classifier.": "top.last."}
    state = names.renamed(ours, theirs)
    state["ema.decay"] = torch.zeros(())
    rules = UserRules.model_validate(
        {
            "rules": [
                {"pattern": r"encoder\.body", "to": "backbone"},
                {"pattern": r"top\.last", "to": "head.classifier"},
                {"pattern": r"top\.([01])", "to": r"classifier.\1"},
            ],
            "left_out": {"ema": "not a weight"},
        }
    )
    account = check_same(ours, "torchvision", state, rules)
    assert account["left_out"] == {"ema.decay": "not a weight"}
    used = {rule["pattern"]: rule["keys"] for rule in account["rules"]}
    assert used[r"encoder\.body"] == sum(key.startswith("encoder") for key in state)
    assert used[r"top\.last"] == 2


@pytest.mark.fault("P3", "a network that is not the released one")
@pytest.mark.parametrize(
    ("layout", "head", "backbone", "said"),
    [
        ("mmseg", "deeplabv3", "resnet18", "3x3 convolution"),
        ("mmseg", "deeplabv3plus", "resnet18", "depthwise"),
        ("mmseg", "pspnet", "mobilenetv2", "first block of a group"),
        ("torchvision", "deeplabv3", "mobilenetv2", "knows the backbones resnet"),
        ("aicsd", "deeplabv3", "resnet18", "knows the heads deeplabv3plus"),
        ("cirkd", "deeplabv3plus", "resnet18", "knows the heads deeplabv3, pspnet"),
    ],
)
def test_networks_that_cannot_stand_for_the_released_one(layout: str, head: str, backbone: str, said: str) -> None:
    ours = names.network(head, backbone)
    with pytest.raises(ConfigError, match=said):
        convert(foreign(ours.state_dict()), layout, ours.config, names.CLASSES, NO_RULES)


@pytest.mark.fault("P3", "released weights that are not finite")
def test_weights_that_are_not_finite_are_not_taken() -> None:
    ours = names.network("fcn", "resnet18")
    state = names.renamed(ours, names.TORCHVISION_FCN)
    state["classifier.1.running_var"] = torch.full_like(state["classifier.1.running_var"], torch.nan)
    assert "head.conv.1.running_var" in faults_of(ours, "torchvision", state)


def test_differences_are_named() -> None:
    recipe = Recipe.model_validate(
        {
            "dataset": "voc",
            "iterations": 1,
            "batch": 1,
            "augmentation": {"crop": [32, 32]},
            "optimiser": {"name": "sgd", "lr": 0.1},
        }
    )
    mobile = names.network("deeplabv3plus", "mobilenetv2", output_stride=8).config
    said = differences(layout_of("aicsd"), mobile, recipe)
    assert len(said) == 2
    assert "pads" in said[0] and said[1].startswith("output_stride: the code base's networks have 16")
    plain = names.network("deeplabv3", "resnet18").config
    assert [line.partition(":")[0] for line in differences(layout_of("cirkd"), plain, recipe)] == ["input"]
    bgr = {"order": "bgr", "divide": 1, "mean": [104.00698793, 116.66876762, 122.67891434], "std": [1, 1, 1]}
    given = recipe.model_dump() | {"augmentation": {"crop": [32, 32], "normalise": bgr}}
    assert differences(layout_of("cirkd"), plain, Recipe.model_validate(given)) == []
    assert "align_corners" in differences(layout_of("torchvision"), plain, recipe)[0]


def test_studies_and_importer_know_the_same_layouts() -> None:
    assert set(get_args(Checkpoint.model_fields["layout"].annotation)) == set(LAYOUTS)
    with pytest.raises(ConfigError, match="cirkd, aicsd"):
        layout_of("unknown")
