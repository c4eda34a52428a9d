"""Names of backbones that several code bases share; `under(prefix, ...)` puts them where a code base has them."""

from __future__ import annotations

from segkd.imports.rules import Rule, Rules

# torchvision's, which are ours; a deep stem is conv1.0 ... conv1.6 there, as here
RESNET: Rules = (Rule(r"(conv1|bn1|layer[1-4])", r"backbone.\1"),)
# a deep stem beside the layers: conv1, bn1, conv2, bn2, conv3, bn3
RESNET_STEM_OF_THREE: Rules = (
    Rule("conv1", "backbone.conv1.0"),
    Rule("bn1", "backbone.conv1.1"),
    Rule("conv2", "backbone.conv1.3"),
    Rule("bn2", "backbone.conv1.4"),
    Rule("conv3", "backbone.conv1.6"),
    Rule("bn3", "backbone.bn1"),
    Rule("(layer[1-4])", r"backbone.\1"),
)
RESNET_LEFT_OUT = {r"(?:pretrained|backbone)\.fc": "ImageNet's classifier"}

MOBILENET_TORCHVISION: Rules = (Rule(r"features\.(\d|1[0-7])", r"backbone.features.\1"),)

# one flat sequence per block, activations counted: conv, norm, ReLU6, conv, norm, ReLU6, conv, norm
MOBILENET_FLAT: Rules = (
    Rule(r"features\.0", "backbone.features.0"),
    Rule(r"features\.1\.conv\.([01])", r"backbone.features.1.conv.0.\1"),
    Rule(r"features\.1\.conv\.3", "backbone.features.1.conv.1"),
    Rule(r"features\.1\.conv\.4", "backbone.features.1.conv.2"),
    Rule(r"features\.(\d+)\.conv\.([01])", r"backbone.features.\1.conv.0.\2"),
    Rule(r"features\.(\d+)\.conv\.3", r"backbone.features.\1.conv.1.0"),
    Rule(r"features\.(\d+)\.conv\.4", r"backbone.features.\1.conv.1.1"),
    Rule(r"features\.(\d+)\.conv\.6", r"backbone.features.\1.conv.2"),
    Rule(r"features\.(\d+)\.conv\.7", r"backbone.features.\1.conv.3"),
)

# a block's convolution and norm by name: features.2.conv.0.conv, features.2.conv.0.bn
MOBILENET_NAMED: Rules = (
    Rule(r"features\.0\.conv", "backbone.features.0.0"),
    Rule(r"features\.0\.bn", "backbone.features.0.1"),
    Rule(r"features\.(\d+)\.conv\.([01])\.conv", r"backbone.features.\1.conv.\2.0"),
    Rule(r"features\.(\d+)\.conv\.([01])\.bn", r"backbone.features.\1.conv.\2.1"),
    Rule(r"features\.(\d+)\.conv\.([1-3])", r"backbone.features.\1.conv.\2"),
)
MOBILENET_LEFT_OUT = {
    r"(?:pretrained|backbone)\.features\.18": "the 1280-channel layer before ImageNet's classifier",
    r"(?:pretrained|backbone)\.classifier": "ImageNet's classifier",
}
