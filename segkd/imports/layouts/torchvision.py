"""torchvision's segmentation models (BSD): DeepLabV3 and FCN on ResNet-50 and -101, output stride 8.

`backbone` is the ResNet, `classifier` the head, `aux_classifier` the auxiliary head, left out where the network has
none. A file is the bare state dict; one of torchvision's training script has it under 'model', beside objects that are
refused: save the state dict alone.

Same numbers: convolutions, dilations and image pooling. What differs is in `differs`: torchvision enlarges logits with
align_corners False. Its DeepLabV3 has no dropout before the classifier, which does not act in evaluation.
"""

from __future__ import annotations

from segkd.imports.layout import Layout, under
from segkd.imports.layouts.backbones import RESNET, RESNET_LEFT_OUT
from segkd.imports.rules import Rule, pair

LAYOUT = Layout(
    backbones={"resnet": {"only": under("backbone", RESNET)}},
    heads={
        "deeplabv3": (
            Rule(r"classifier\.0\.convs\.([0-3])\.([01])", r"head.aspp.branches.\1.\2"),
            *pair(r"classifier\.0\.convs\.4", "head.aspp.image", "1", "2"),
            *pair(r"classifier\.0\.project", "head.aspp.project"),
            *pair("classifier", "head.conv", "1", "2"),
            Rule(r"classifier\.4", "head.classifier"),
        ),
        "fcn": (*pair("classifier", "head.conv"), Rule(r"classifier\.4", "head.classifier")),
    },
    parts=(*pair("aux_classifier", "auxiliary.conv"), Rule(r"aux_classifier\.4", "auxiliary.classifier")),
    left_out={"resnet": RESNET_LEFT_OUT},
    expects={"": {"output_stride": 8}, "resnet": {"multi_grid": None}},
    differs={"": "logits are enlarged with align_corners False there, True here"},
)
