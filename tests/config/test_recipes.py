"""The papers' recipes, networks and weights in params.yaml against the facts that their sources give, written out here.

`INFERRED` marks what no source gives: the value that fits best, said in params.yaml.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

from segkd.config.load import load_params
from segkd.config.params import Params
from segkd.config.recipe import Recipe

TRAIN = {"voc": 1464, "voc-aug": 10_582, "cityscapes": 2975}
BGR = ("bgr", 1.0, (104.00698793, 116.66876762, 122.67891434), (1.0, 1.0, 1.0))
IMAGENET = ("rgb", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INFERRED = ("rgb", 255.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # KA: what Xception's weights were trained on

# name: data set, iterations, batch, crop (height, width), scale (low, high, step), lr, weight decay, input
BY_ITERATION: dict[str, tuple[Any, ...]] = {
    "ka-voc": ("voc-aug", 30_000, 16, (513, 513), (0.5, 2.0, None), 0.007, 4e-5, INFERRED),
    "ka-cityscapes": ("cityscapes", 90_000, 16, (769, 769), (0.5, 2.0, None), 0.007, 4e-5, INFERRED),
    "ka-context": ("context", 30_000, 16, (513, 513), (0.5, 2.0, None), 0.007, 4e-5, INFERRED),
    "dsd-cityscapes": ("cityscapes", 40_000, 8, (512, 512), (0.7, 2.1, 0.1), 0.01, 5e-4, BGR),
    "dsd-voc": ("voc-aug", 40_000, 8, (512, 512), (0.5, 1.6, 0.1), 0.01, 5e-4, BGR),
    "dsd-camvid": ("camvid", 40_000, 8, (360, 360), (0.7, 2.1, 0.1), 0.01, 5e-4, BGR),
    "dsd-ade20k": ("ade20k", 40_000, 8, (512, 512), (0.7, 2.1, 0.1), 0.01, 5e-4, BGR),
    "cirkd-cityscapes": ("cityscapes", 40_000, 16, (512, 1024), (0.5, 2.0, 0.1), 0.02, 1e-4, BGR),
    "cirkd-segformer": ("cityscapes", 160_000, 8, (1024, 1024), (0.5, 2.0, 0.1), 2e-4, 0.01, BGR),
    "cirkd-voc": ("voc-aug", 40_000, 16, (512, 512), (0.5, 2.0, 0.1), 0.02, 1e-4, BGR),
    "cirkd-camvid": ("camvid", 40_000, 16, (360, 360), (0.5, 2.0, 0.1), 0.02, 1e-4, BGR),
    "cirkd-ade20k": ("ade20k", 40_000, 16, (512, 512), (0.5, 2.0, 0.1), 0.02, 1e-4, BGR),
    "cirkd-coco-stuff-164k": ("coco-stuff-164k", 80_000, 16, (512, 512), (0.5, 2.0, 0.1), 0.02, 1e-4, BGR),
}
# name: data set, epochs, crop, short side, lr, value of padded labels
BY_EPOCH: dict[str, tuple[Any, ...]] = {
    "aicsd-voc-released": ("voc", 120, (513, 513), (256, 1026), 0.007, 0),
    "aicsd-voc-teacher": ("voc-aug", 120, (513, 513), (256, 1026), 0.007, 255),
    "aicsd-cityscapes-released": ("cityscapes", 200, (513, 513), (256, 1026), 0.01, 255),
    "aicsd-voc": ("voc-aug", 120, (513, 513), (256, 1026), 0.007, 255),
    "aicsd-cityscapes": ("cityscapes", 200, (512, 1024), (512, 2048), 0.01, 255),
}
# name: split, iterations between looks at val, short side, absent classes, classes of the mean where not all
SCORED: dict[str, tuple[Any, ...]] = {
    **{name: ("val", 0, None, "nan", None) for name in BY_ITERATION if name.startswith(("ka", "dsd"))},
    **{name: ("val", 800, None, "zero", None) for name in BY_ITERATION if name.startswith("cirkd")},
    "dsd-camvid": ("test", 0, None, "nan", None),
    "cirkd-camvid": ("test", 800, None, "zero", None),
    "cirkd-coco-stuff-164k": ("val", 800, None, "zero", 182),
    "aicsd-voc-released": ("val", 1464 // 6, 513, "nan", None),
    "aicsd-voc-teacher": ("val", 10_582 // 6, 513, "nan", None),
    "aicsd-cityscapes-released": ("val", 2975 // 6, 513, "nan", None),
    "aicsd-voc": ("val", 0, None, "nan", None),
    "aicsd-cityscapes": ("val", 0, None, "nan", None),
}
# name: cross-entropy over B, teacher's mode, epochs in which a taught student stands still
SLIPS: dict[str, tuple[bool, str, int]] = {
    "aicsd-voc-released": (True, "train", 1),
    "aicsd-voc-teacher": (True, "eval", 0),
    "aicsd-cityscapes-released": (True, "train", 1),
}
# name: head, backbone, stem, output stride, multi-grid, head channels, auxiliary head, attention, ImageNet weights
NETWORKS: dict[str, tuple[Any, ...]] = {
    "ka-teacher": ("deeplabv3plus", "xception41-released", 16, None, 256, False, "none", "xception41"),
    "ka-teacher-resnet50": ("deeplabv3plus", "resnet50", 16, None, 256, False, "none", "resnet50"),
    "mobilenetv2-os16": ("deeplabv3-no-aspp", "mobilenetv2", 16, None, 256, False, "none", "mobilenetv2"),
    "deeplabv3-resnet101": ("deeplabv3", "resnet101", 8, None, 256, True, "none", "resnet101-deep"),
    "deeplabv3-resnet18": ("deeplabv3", "resnet18", 8, None, 128, True, "none", "resnet18-deep"),
    "deeplabv3-mobilenetv2": ("deeplabv3", "mobilenetv2", 8, None, 128, False, "none", "mobilenetv2"),
    "pspnet-resnet101": ("pspnet", "resnet101", 8, None, 512, True, "none", "resnet101-deep"),
    "pspnet-resnet18": ("pspnet", "resnet18", 8, None, 128, True, "none", "resnet18-deep"),
    "pspnet-mobilenetv2": ("pspnet", "mobilenetv2", 8, None, 128, False, "none", "mobilenetv2"),
    "segformer-mit-b4": ("segformer", "mit-b4", 32, None, 768, False, "none", "mit-b4"),
    "segformer-mit-b0": ("segformer", "mit-b0", 32, None, 256, False, "none", "mit-b0"),
    "deeplabv3-resnet101-scratch": ("deeplabv3", "resnet101", 8, None, 256, True, "none", None),
    "deeplabv3-resnet101-scratch-cbam": ("deeplabv3", "resnet101", 8, None, 256, True, "cbam", None),
    "deeplabv3-resnet18-scratch": ("deeplabv3", "resnet18", 8, None, 128, True, "none", None),
    "deeplabv3plus-resnet101": ("deeplabv3plus", "resnet101", 16, (1, 2, 4), 256, False, "none", "resnet101"),
    "deeplabv3plus-resnet101-cbam": ("deeplabv3plus", "resnet101", 16, (1, 2, 4), 256, False, "cbam", "resnet101"),
    "deeplabv3plus-resnet18": ("deeplabv3plus", "resnet18", 16, None, 256, False, "none", "resnet18"),
    "deeplabv3plus-mobilenetv2": ("deeplabv3plus", "mobilenetv2", 16, None, 256, False, "none", "mobilenetv2"),
}
HINGE = {"adversarial": 0.001, "critic": 0.1, "game": "hinge", "critic_optimiser": "adam", "critic_lr": 4e-4}
CONSTANT_HINGE = HINGE | {"critic_poly": False}
MEMORY = {"kd": 1, "minibatch": 1, "temperature": 0.1, "group_size": 2, "region_memory": 2000, "per_class": 16}
CONTRAST = {"pixel_contrast": 4096, "region_contrast": 1024}
# name: class, and what counts among its hyper-parameters, defaults included
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "kd": ("kd", {"weight": 1, "temperature": 1, "reduction": "pixel", "resize": "refuse"}),
    "fitnet": ("fitnet", {"weight": 10, "kd": 1, "resize": "refuse"}),
    "cwd": ("cwd", {"preset": "paper", "logits": 3, "feature": 50, "temperature": 4, "kd": 0, "adversarial": 0}),
    "at-full": ("at", {"weight": 10_000, "kd": 1}),
    "skd-full": ("skd", {"pixel": 10, "pairwise": 0.5, "form": "skd", "adversarial": 0.1, "game": "wgan-gp"}),
    "ifvd-full": ("ifvd", {"weight": 200, "kd": 10, "kd_reduction": "element", "adversarial": 0.001}),
    "skd-cirkd": ("skd", {"pixel": 1, "pairwise": 10, "form": "cirkd", "preset": "paper", **CONSTANT_HINGE}),
    "ifvd-cirkd": ("ifvd", {"weight": 20, "kd": 1, "kd_reduction": "pixel", **CONSTANT_HINGE}),
    "cwd-cirkd": ("cwd", {"logits": 3, "feature": 50, "temperature": 4, "kd": 1, **CONSTANT_HINGE}),
    "cwd-segformer": ("cwd", {"logits": 0.3, "feature": 5, "temperature": 4, "kd": 1, **CONSTANT_HINGE}),
    "dsd": ("dsd", {"preset": "paper", "psd": 0.1, "csd": 10, "temperature": 4}),
    "dsd-released": ("dsd", {"preset": "released", "psd": 1000, "csd": 10, "temperature": 4}),
    "cirkd-full": ("cirkd", {"preset": "paper", "pixel": 0.1, "region": 0.1, "pixel_memory": 20_000} | MEMORY),
    "cirkd-full-released": (
        "cirkd",
        {"preset": "released", "pixel": 0.1, "region": 0.1, "pixel_memory": 20_000} | MEMORY | CONTRAST,
    ),
    "cirkd-voc": ("cirkd", {"preset": "paper", "pixel": 0.01, "region": 0.01, "pixel_memory": 20_000} | MEMORY),
    "cirkd-voc-released": (
        "cirkd",
        {"preset": "released", "pixel": 0.01, "region": 0.01, "pixel_memory": 20_000} | MEMORY | CONTRAST,
    ),
    "cirkd-segformer-released": (
        "cirkd",
        {"preset": "released", "pixel": 0.1, "region": 0.1, "pixel_memory": 2000} | MEMORY | CONTRAST,
    ),
    "kd-aicsd": ("kd", {"weight": 10, "temperature": 1, "reduction": "element", "resize": "image"}),
    "at-aicsd": ("at", {"weight": 10_000, "kd": 0}),
    "sp": ("sp", {"weight": 3000}),
    "ickd-aicsd": ("ickd", {"feature": 0, "logits": 2.5}),
    "icsd": ("icsd", {"preset": "paper", "icsd": 40, "kd": 10}),
    "icsd-released": ("icsd", {"preset": "released", "icsd": 9500, "kd": 10}),
    "aicsd": ("aicsd", {"preset": "paper", "icsd": 40, "kd": 10}),
    "aicsd-voc-released": ("aicsd", {"preset": "released", "icsd": 9500, "kd": 10, "epochs": 120}),
    "aicsd-cityscapes-released": ("aicsd", {"preset": "released", "icsd": 9500, "kd": 10, "epochs": 200}),
    "overhaul": ("overhaul", {"weight": 1e-5}),
    "dist": ("dist", {"inter": 1, "intra": 1, "temperature": 1, "auxiliary": 0.4}),
    "attnfd": ("attnfd", {"preset": "paper", "weight": 2}),
    "attnfd-released": ("attnfd", {"preset": "released", "weight": 2}),
    "ka": ("ka", {"adaptation": 50, "affinity": 1, "latent": 128, "sparsity": 1e-7, "pretrain_lr": 0.1}),
    "kd-ka-4": ("kd", {"weight": 1, "temperature": 4, "resize": "teacher"}),
}


@functools.cache
def params() -> Params:
    return load_params()


def read(recipe: Recipe) -> tuple[Any, ...]:
    rule = recipe.augmentation.normalise
    return rule.order, rule.divide, rule.mean, rule.std


def papers() -> set[str]:
    return {name for name in params().recipes if name.split("-")[0] in {"ka", "dsd", "cirkd", "aicsd", "attnfd"}}


def test_the_tables_name_every_recipe_and_network_of_the_papers() -> None:
    assert papers() == BY_ITERATION.keys() | BY_EPOCH.keys() == SCORED.keys()
    own = {name for name in params().networks if not name.startswith(("digits", "camvid"))}
    assert own == NETWORKS.keys()


@pytest.mark.parametrize("name", BY_ITERATION)
def test_recipes_counted_in_iterations(name: str) -> None:
    recipe = params().recipes[name]
    scale, optimiser = recipe.augmentation.scale, recipe.optimiser
    crop, rates = recipe.augmentation.crop, (optimiser.lr, optimiser.weight_decay)
    scales = (scale.low, scale.high, scale.step)
    assert (recipe.dataset, recipe.iterations, recipe.batch, crop, scales, *rates, read(recipe)) == BY_ITERATION[name]
    assert (scale.kind, recipe.augmentation.blur.probability) == ("factor", 0.0)
    assert (recipe.augmentation.pad_image, recipe.augmentation.pad_label) == ("mean", 255)
    assert optimiser.name == ("adamw" if name == "cirkd-segformer" else "sgd")
    assert (optimiser.momentum, optimiser.nesterov, optimiser.head_factor) == (0.9, False, 1.0)
    assert recipe.auxiliary_weight == 0.4


@pytest.mark.parametrize("name", BY_EPOCH)
def test_recipes_counted_in_epochs(name: str) -> None:
    recipe = params().recipes[name]
    seen, optimiser = recipe.augmentation, recipe.optimiser
    sides = (seen.scale.low, seen.scale.high)
    assert (recipe.dataset, recipe.epochs, seen.crop, sides, optimiser.lr, seen.pad_label) == BY_EPOCH[name]
    assert (seen.scale.kind, seen.scale.step, seen.pad_image) == ("short_side", None, "black")
    assert (seen.blur.probability, seen.blur.radius) == (0.5, (0.0, 1.0))
    assert (optimiser.name, optimiser.momentum, optimiser.nesterov) == ("sgd", 0.9, True)
    assert (optimiser.weight_decay, optimiser.head_factor, recipe.batch) == (5e-4, 10.0, 6)
    assert read(recipe) == IMAGENET


@pytest.mark.parametrize("name", SCORED)
def test_what_all_recipes_of_the_papers_share_and_how_each_is_scored(name: str) -> None:
    recipe = params().recipes[name]
    rule = recipe.evaluation
    found = (rule.split, rule.select_every, rule.short_side, rule.absent_classes, rule.averaged_over)
    assert found == SCORED[name]
    assert (rule.batch, rule.select_split) == (1, "val")
    assert (recipe.augmentation.flip, recipe.schedule.power, recipe.schedule.warmup) == (0.5, 0.9, 0)
    assert (recipe.input_scale, recipe.micro_batch, recipe.gradient_clip) == (1.0, None, None)
    slips = (recipe.cross_entropy_per_image, recipe.teacher_mode, recipe.still_epochs)
    assert slips == SLIPS.get(name, (False, "eval", 0))
    assert recipe.teacher_recipe == ("aicsd-voc-teacher" if name == "aicsd-voc-released" else None)


@pytest.mark.parametrize("name", [name for name in BY_EPOCH if name in SLIPS])
def test_the_best_is_looked_for_after_every_epoch(name: str) -> None:
    recipe = params().recipes[name]
    assert recipe.evaluation.select_every == TRAIN[recipe.dataset] // recipe.batch


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    found = params().networks[name]
    weights = found.pretrained and found.pretrained.removeprefix("imagenet-")
    parts = (found.head, found.backbone, found.output_stride, found.multi_grid, found.head_channels)
    assert (*parts, found.auxiliary, found.attention, weights) == NETWORKS[name]
    deep = found.head in {"deeplabv3", "pspnet"} and found.backbone.startswith("resnet")
    assert (found.stem, found.width) == ("deep" if deep else "conv7", 1.0)


@pytest.mark.parametrize("name", [name for name, facts in NETWORKS.items() if facts[-1]])
def test_imagenet_weights_are_those_of_the_backbone(name: str) -> None:
    from segkd.networks.catalogue import pick

    network = params().networks[name]
    entry = pick(str(network.pretrained))
    assert entry.backbone == network.backbone
    assert entry.stem in (None, network.stem)


@pytest.mark.parametrize("name", METHODS)
def test_weights_of_methods(name: str) -> None:
    from segkd.methods.registry import method_config

    entry = params().methods[name]
    method, facts = METHODS[name]
    found = method_config(entry.method, entry.options).model_dump()
    assert entry.method == method
    assert {key: found[key] for key in facts} == facts


def test_every_entry_is_valid() -> None:
    from segkd import steps

    assert set(steps.check()) == params().methods.keys()
