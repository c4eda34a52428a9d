"""MMSegmentation's networks (Apache-2.0) and SegFormer's as its authors released it, on MMSegmentation.

A file is {'state_dict', 'meta'}. `backbone`, `decode_head` (its classifier is `conv_seg`) and `auxiliary_head`; a
ConvModule has `conv` and `bn`. ResNetV1c has a deep stem of 32, 32 and 64 channels where ours has 64, 64 and 128: such
files are refused by shape. The plain ResNets (`r50b`, `r101b` in their file names) fit.

SegFormer: the authors' names, `backbone.block1.0.attn.q` and `decode_head.linear_c1.proj`, whose linear layers are 1x1
convolutions here. MMSegmentation's own SegFormer has norm and ReLU after each stage's linear layer, which ours has not.

Not to be had, since the released networks compute what no network here does (`refused`): the ASPP head joins image
pooling FIRST and goes on with one 3x3 convolution, where ours projects by 1x1 before a 3x3; DeepLabV3+ uses depthwise
separable convolutions; MobileNetV2 dilates only the first block of a group; FCN has two convolutions and a third over
both. What differs in those that can be had is in `differs`.
"""

from __future__ import annotations

from segkd.imports.layout import Layout, under
from segkd.imports.layouts.backbones import RESNET, RESNET_LEFT_OUT
from segkd.imports.rules import Rule, pair

LAYOUT = Layout(
    backbones={
        "resnet": {
            "only": (
                Rule(r"backbone\.stem\.([0-6])", r"backbone.conv1.\1"),
                Rule(r"backbone\.stem\.7", "backbone.bn1"),
                *under("backbone", RESNET),
            )
        },
        "mit": {
            "only": (
                Rule(r"backbone\.(block[1-4]\.\d+)\.mlp\.dwconv\.dwconv", r"backbone.\1.mlp.dwconv"),
                Rule(r"backbone\.(patch_embed[1-4]|block[1-4]|norm[1-4])", r"backbone.\1"),
            )
        },
    },
    heads={
        "pspnet": (
            *(
                rule
                for k in range(4)  # 0 is the pooling itself
                for rule in pair(rf"decode_head\.psp_modules\.{k}\.1", f"head.pools.{k}", "conv", "bn")
            ),
            *pair(r"decode_head\.bottleneck", "head.fuse", "conv", "bn"),
            Rule(r"decode_head\.conv_seg", "head.classifier"),
        ),
        "segformer": (
            *(Rule(rf"decode_head\.linear_c{k + 1}\.proj", f"head.linear.{k}") for k in range(4)),
            *pair(r"decode_head\.linear_fuse", "head.fuse", "conv", "bn"),
            Rule(r"decode_head\.linear_pred", "head.classifier"),
        ),
    },
    parts=(
        *pair(r"auxiliary_head\.convs\.0", "auxiliary.conv", "conv", "bn"),
        Rule(r"auxiliary_head\.conv_seg", "auxiliary.classifier"),
    ),
    hints={r"decode_head\.convs": "the head of MMSegmentation's own SegFormer: norm and ReLU after each linear layer"},
    left_out={
        "resnet": RESNET_LEFT_OUT,
        "segformer": {r"decode_head\.conv_seg": "a classifier that this head does not use"},
    },
    expects={"resnet": {"output_stride": 8, "multi_grid": None}},
    differs={
        "": "logits are enlarged with align_corners False there, True here",
        "pspnet": "pooled maps are enlarged with align_corners False there, True here",
        "mit": (
            "layer norms of patch embedding and reduction have epsilon 1e-5 in the authors' code, 1e-6 here; their "
            "numbers on Cityscapes come from sliding windows of 1024 x 1024, not from whole images"
        ),
    },
    refused={
        "deeplabv3": "its ASPP head fuses the joined branches by one 3x3 convolution, ours by a 1x1 and a 3x3",
        "deeplabv3plus": "its head is made of depthwise separable convolutions, ours of full ones",
        "fcn": "its head has two convolutions and a third over both and the input, ours has one",
        "mobilenetv2": "its dilation acts in the first block of a group only, ours in all",
    },
)
