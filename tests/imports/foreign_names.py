"""What other code bases call the tensors of our networks: written as front of ours -> front of theirs, by hand.

The importer's own tables lead the other way and are regular expressions; a slip in either shows as a key that does not
come back to its place.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from segkd.config.network import NetworkConfig
from segkd.networks.build import Network, build

CLASSES = 5
Names = dict[str, str]


def network(head: str, backbone: str, **options: object) -> Network:
    """A narrow network in evaluation mode whose every tensor is random: batch norms too."""
    words = {"width": 0.25 if backbone == "mobilenetv2" else 0.125, "head_channels": 32, **options}
    torch.manual_seed(0)
    made = build(NetworkConfig.model_validate({"head": head, "backbone": backbone, **words}), CLASSES)
    randomise(made)
    return made.eval()


def randomise(module: nn.Module) -> None:
    """Give every vector (norms, biases) random values, weights and variances positive ones, and every counter 7."""
    for name, tensor in module.state_dict().items():
        if tensor.dtype == torch.float32 and tensor.dim() < 2:
            positive = name.endswith(("weight", "running_var"))
            tensor.copy_(0.5 + torch.rand(tensor.shape) if positive else torch.randn(tensor.shape) / 8)
        elif tensor.dtype == torch.int64:
            tensor.fill_(7)


def renamed(ours: Network, names: Names) -> OrderedDict[str, Tensor]:
    """The network's tensors under the names of another code base; the longest front wins, an unnamed key is a fault."""
    fronts = sorted(names, key=len, reverse=True)
    state: OrderedDict[str, Tensor] = OrderedDict()
    for key, tensor in ours.state_dict().items():
        front = next(front for front in fronts if key.startswith(front))
        state[names[front] + key[len(front) :]] = tensor
    return state


def _aspp(theirs: list[str], image: tuple[str, str], project: tuple[str, str]) -> Names:
    names = {f"head.aspp.branches.{k}.": front for k, front in enumerate(theirs)}
    names |= {"head.aspp.image.0.": image[0], "head.aspp.image.1.": image[1]}
    return names | {"head.aspp.project.0.": project[0], "head.aspp.project.1.": project[1]}


CIRKD_DEEPLABV3 = {
    "backbone.": "pretrained.",
    **_aspp(
        ["head.aspp.b0.", "head.aspp.b1.block.", "head.aspp.b2.block.", "head.aspp.b3.block."],
        ("head.aspp.b4.gap.1.", "head.aspp.b4.gap.2."),
        ("head.aspp.project.0.", "head.aspp.project.1."),
    ),
    "head.conv.": "head.block.",
    "head.classifier.": "head.block.4.",
    "auxiliary.conv.": "auxlayer.block.",
    "auxiliary.classifier.": "auxlayer.block.4.",
}
CIRKD_PSPNET = {
    "backbone.": "backbone.",
    "head.pools.0.": "head.psp.conv1.",
    "head.pools.1.": "head.psp.conv2.",
    "head.pools.2.": "head.psp.conv3.",
    "head.pools.3.": "head.psp.conv4.",
    "head.fuse.": "head.block.",
    "head.classifier.": "head.block.4.",
    "auxiliary.conv.": "auxlayer.block.",
    "auxiliary.classifier.": "auxlayer.block.4.",
}


def _branches(number: int) -> Names:
    ours, theirs = f"head.aspp.branches.{number - 1}", f"aspp.aspp{number}"
    return {f"{ours}.0.": f"{theirs}.atrous_conv.", f"{ours}.1.": f"{theirs}.bn."}


DEEPLAB = {
    "backbone.": "backbone.",
    **_branches(1),
    **_branches(2),
    **_branches(3),
    **_branches(4),
    "head.aspp.image.0.": "aspp.global_avg_pool.1.",
    "head.aspp.image.1.": "aspp.global_avg_pool.2.",
    "head.aspp.project.0.": "aspp.conv1.",
    "head.aspp.project.1.": "aspp.bn1.",
    "head.low.0.": "decoder.conv1.",
    "head.low.1.": "decoder.bn1.",
    "head.fuse.0.": "decoder.last_conv.0.",
    "head.fuse.1.": "decoder.last_conv.1.",
    "head.decode.0.": "decoder.last_conv.4.",
    "head.decode.1.": "decoder.last_conv.5.",
    "head.classifier.": "decoder.last_conv.8.",
}


def _cbam(ours: str, theirs: str) -> Names:
    return {
        f"{ours}.channel.mlp.0.": f"{theirs}.cbam.ChannelGate.mlp.1.",
        f"{ours}.channel.mlp.2.": f"{theirs}.cbam.ChannelGate.mlp.3.",
        f"{ours}.spatial.conv.": f"{theirs}.cbam.SpatialGate.spatial.conv.",
        f"{ours}.spatial.norm.": f"{theirs}.cbam.SpatialGate.spatial.bn.",
    }


CBAM = {
    **DEEPLAB,
    **_cbam("attention", "backbone"),
    **_cbam("head.attention.context", "aspp"),
    **_cbam("head.attention.decoder", "decoder"),
}
TORCHVISION_DEEPLABV3 = {
    "backbone.": "backbone.",
    **_aspp(
        [f"classifier.0.convs.{k}." for k in range(4)],
        ("classifier.0.convs.4.1.", "classifier.0.convs.4.2."),
        ("classifier.0.project.0.", "classifier.0.project.1."),
    ),
    "head.conv.0.": "classifier.1.",
    "head.conv.1.": "classifier.2.",
    "head.classifier.": "classifier.4.",
    "auxiliary.conv.": "aux_classifier.",
    "auxiliary.classifier.": "aux_classifier.4.",
}
TORCHVISION_FCN = {"backbone.": "backbone.", "head.conv.": "classifier.", "head.classifier.": "classifier.4."}
MMSEG_PSPNET = {
    "backbone.": "backbone.",
    **{f"head.pools.{k}.0.": f"decode_head.psp_modules.{k}.1.conv." for k in range(4)},
    **{f"head.pools.{k}.1.": f"decode_head.psp_modules.{k}.1.bn." for k in range(4)},
    "head.fuse.0.": "decode_head.bottleneck.conv.",
    "head.fuse.1.": "decode_head.bottleneck.bn.",
    "head.classifier.": "decode_head.conv_seg.",
    "auxiliary.conv.0.": "auxiliary_head.convs.0.conv.",
    "auxiliary.conv.1.": "auxiliary_head.convs.0.bn.",
    "auxiliary.classifier.": "auxiliary_head.conv_seg.",
}
SEGFORMER = {
    "backbone.": "backbone.",
    **{
        f"backbone.block{k + 1}.{n}.mlp.dwconv.": f"backbone.block{k + 1}.{n}.mlp.dwconv.dwconv."
        for k in range(4)
        for n in range(2)
    },
    **{f"head.linear.{k}.": f"decode_head.linear_c{k + 1}.proj." for k in range(4)},
    "head.fuse.0.": "decode_head.linear_fuse.conv.",
    "head.fuse.1.": "decode_head.linear_fuse.bn.",
    "head.classifier.": "decode_head.linear_pred.",
}
STEM_OF_THREE = {
    "backbone.conv1.0.": "pretrained.conv1.",
    "backbone.conv1.1.": "pretrained.bn1.",
    "backbone.conv1.3.": "pretrained.conv2.",
    "backbone.conv1.4.": "pretrained.bn2.",
    "backbone.conv1.6.": "pretrained.conv3.",
    "backbone.bn1.": "pretrained.bn3.",
}
MMSEG_DEEP_STEM = {f"backbone.conv1.{k}.": f"backbone.stem.{k}." for k in (0, 1, 3, 4, 6)}
MMSEG_DEEP_STEM |= {"backbone.bn1.": "backbone.stem.7."}


def mobilenet(variant: str, front: str = "backbone") -> Names:
    """MobileNetV2's blocks in another naming: `flat` counts activations, `named` has conv and bn by name."""
    names: Names = {"backbone.": f"{front}."}
    if variant == "named":
        names |= {"backbone.features.0.0.": f"{front}.features.0.conv."}
        names |= {"backbone.features.0.1.": f"{front}.features.0.bn."}
    flat = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}
    first = {"0.0": "0", "0.1": "1", "1": "3", "2": "4"}  # the first block has no expansion
    by_name = {"0.0": "0.conv", "0.1": "0.bn", "1.0": "1.conv", "1.1": "1.bn"}
    for number in range(1, 18):
        counted = first if number == 1 else flat
        parts = {"flat": counted, "named": by_name, "torchvision": {}}[variant]
        if variant == "named" and number == 1:
            parts = {"0.0": "0.conv", "0.1": "0.bn"}
        for ours, theirs in parts.items():
            names[f"backbone.features.{number}.conv.{ours}."] = f"{front}.features.{number}.conv.{theirs}."
    return names


def with_second_names(state: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
    """MobileNetV2's blocks a second time, as `low_level_features` (0 to 3) and `high_level_features` (the rest)."""
    more: OrderedDict[str, Tensor] = OrderedDict(state)
    for key, tensor in state.items():
        if key.startswith("backbone.features."):
            number, _, rest = key.removeprefix("backbone.features.").partition(".")
            part, index = ("low", int(number)) if int(number) < 4 else ("high", int(number) - 4)
            more[f"backbone.{part}_level_features.{index}.{rest}"] = tensor
    return more
