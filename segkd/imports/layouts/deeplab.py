"""AICSD's and AttnFD's networks: DeepLabV3+ under the names of pytorch-deeplab-xception (MIT), on which they build.

A file is {'state_dict', 'epoch', 'optimizer', 'best_pred'}; `best_pred` may be a numpy number. MobileNetV2's blocks
stand there twice, as `features` and as `low_level_features` and `high_level_features`: the same tensors.
AttnFD's files also have `cbam` keys: in its own forward pass they feed the loss only, so that they are left out for
a network without attention. For one with `attention: cbam` they are taken over, below `backbone`, `aspp` and `decoder`
and under the names of the CBAM authors' code (MIT): an assumption, which `--rules` can correct.

Same numbers: upsampling with align_corners True; ASPP 6/12/18 at output stride 16; 48 low-level channels. Their blocks
end before the last ReLU, which acts where the map is read: the values are the same before and after.
What differs and changes numbers is in `differs`: MobileNetV2's padding and dilation. ResNet-101 has multi-grid 1, 2, 4
(`multi_grid: [1, 2, 4]`), whose first block is dilated too.
"""

from __future__ import annotations

from dataclasses import replace

from segkd.imports.layout import Layout, under
from segkd.imports.layouts.backbones import (
    MOBILENET_FLAT,
    MOBILENET_LEFT_OUT,
    MOBILENET_TORCHVISION,
    RESNET,
    RESNET_LEFT_OUT,
)
from segkd.imports.rules import Rule, Rules, pair

LOW = 4  # blocks of `low_level_features`; `high_level_features` counts on from there
ALIASES: Rules = (
    Rule(r"backbone\.low_level_features", "backbone.features"),
    *(Rule(rf"backbone\.high_level_features\.{k}", f"backbone.features.{k + LOW}") for k in range(14)),
)

AICSD = Layout(
    backbones={
        "resnet": {"only": under("backbone", RESNET)},
        "mobilenetv2": {
            "flat": under("backbone", MOBILENET_FLAT),
            "torchvision": under("backbone", MOBILENET_TORCHVISION),
        },
    },
    heads={
        "deeplabv3plus": (
            *(
                rule
                for k in range(4)
                for rule in pair(rf"aspp\.aspp{k + 1}", f"head.aspp.branches.{k}", "atrous_conv", "bn")
            ),
            *pair(r"aspp\.global_avg_pool", "head.aspp.image", "1", "2"),
            *pair("aspp", "head.aspp.project", "conv1", "bn1"),
            *pair("decoder", "head.low", "conv1", "bn1"),
            *pair(r"decoder\.last_conv", "head.fuse", "0", "1"),
            *pair(r"decoder\.last_conv", "head.decode", "4", "5"),
            Rule(r"decoder\.last_conv\.8", "head.classifier"),
        )
    },
    aliases=ALIASES,
    left_out={"resnet": RESNET_LEFT_OUT, "mobilenetv2": MOBILENET_LEFT_OUT},
    expects={"": {"output_stride": 16}, "resnet101": {"multi_grid": (1, 2, 4)}},
    differs={
        "mobilenetv2": (
            "MobileNetV2: the code base pads a block's input before its 1x1 expansion, so that the border is the "
            "norm's shift and not 0, and at output stride 16 dilates the 320-channel block only; this network pads the "
            "expanded map with 0 and dilates the 160-channel blocks too"
        )
    },
)


def _cbam(place: str, to: str) -> Rules:
    """One CBAM below a part of the network."""
    return (
        Rule(rf"{place}\.cbam\.ChannelGate\.mlp\.1", f"{to}.channel.mlp.0"),
        Rule(rf"{place}\.cbam\.ChannelGate\.mlp\.3", f"{to}.channel.mlp.2"),
        Rule(rf"{place}\.cbam\.SpatialGate\.spatial\.conv", f"{to}.spatial.conv"),
        Rule(rf"{place}\.cbam\.SpatialGate\.spatial\.bn", f"{to}.spatial.norm"),
    )


ATTNFD = replace(
    AICSD,
    parts=(
        *_cbam("backbone", "attention"),
        *_cbam("aspp", "head.attention.context"),
        *_cbam("decoder", "head.attention.decoder"),
    ),
    differs={
        **AICSD.differs,
        "cbam": "CBAM: this network goes on with the refined maps; the code base's forward pass goes on without them",
    },
)
