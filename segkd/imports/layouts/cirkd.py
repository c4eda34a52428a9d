"""CIRKD's networks, which descend from awesome-semantic-segmentation-pytorch (Apache-2.0), whose names these are.

`pretrained` (or `backbone`) holds the backbone, `head` ASPP or pyramid pooling with a last `block`, `auxlayer` the
auxiliary head. A file is the bare state dict, of the network or of its DistributedDataParallel (`module.`).

Same numbers: bilinear upsampling with align_corners True everywhere; deep-stem ResNet whose first dilated block has
half the dilation; ASPP 12/24/36 at stride 8. What is not known for certain: the deep stem may stand
beside the layers or in a sequence, and MobileNetV2's blocks may follow any of three namings; the one that accounts for
every key is taken. SegFormer's names are not known. Images are BGR minus a mean, which the recipe must say.
The networks are scored on whole images without padding, as `evaluate` does.
"""

from __future__ import annotations

from segkd.config.recipe import Normalise
from segkd.imports.layout import Layout, under
from segkd.imports.layouts.backbones import (
    MOBILENET_FLAT,
    MOBILENET_LEFT_OUT,
    MOBILENET_NAMED,
    MOBILENET_TORCHVISION,
    RESNET,
    RESNET_LEFT_OUT,
    RESNET_STEM_OF_THREE,
)
from segkd.imports.rules import Rule, pair

BACKBONE = "(?:pretrained|backbone)"

LAYOUT = Layout(
    backbones={
        "resnet": {
            "stem in a sequence": under(BACKBONE, RESNET),
            "stem of three": under(BACKBONE, RESNET_STEM_OF_THREE),
        },
        "mobilenetv2": {
            "torchvision": under(BACKBONE, MOBILENET_TORCHVISION),
            "flat": under(BACKBONE, MOBILENET_FLAT),
            "named": under(BACKBONE, MOBILENET_NAMED),
        },
    },
    heads={
        "deeplabv3": (
            *pair(r"head\.aspp\.b0", "head.aspp.branches.0"),
            Rule(r"head\.aspp\.b([1-3])\.block\.([01])", r"head.aspp.branches.\1.\2"),
            *pair(r"head\.aspp\.b4\.gap", "head.aspp.image", "1", "2"),
            *pair(r"head\.aspp\.project", "head.aspp.project"),
            *pair(r"head\.block", "head.conv"),
            Rule(r"head\.block\.4", "head.classifier"),
        ),
        "pspnet": (
            *(
                rule
                for k in range(4)  # conv1 ... conv4 pool to 1, 2, 3 and 6 bins
                for rule in pair(rf"head\.psp\.conv{k + 1}", f"head.pools.{k}")
            ),
            *pair(r"head\.block", "head.fuse"),
            Rule(r"head\.block\.4", "head.classifier"),
        ),
    },
    parts=(*pair(r"auxlayer\.block", "auxiliary.conv"), Rule(r"auxlayer\.block\.4", "auxiliary.classifier")),
    left_out={"resnet": RESNET_LEFT_OUT, "mobilenetv2": MOBILENET_LEFT_OUT},
    normalise=Normalise(order="bgr", divide=1.0, mean=(104.00698793, 116.66876762, 122.67891434), std=(1.0, 1.0, 1.0)),
    expects={"": {"output_stride": 8}, "resnet": {"multi_grid": None}},
)
