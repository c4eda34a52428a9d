"""Build a network from its configuration: `build(config, classes)`."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from segkd.config.network import NetworkConfig
from segkd.errors import ConfigError, listing
from segkd.networks.aspp import rates
from segkd.networks.cbam import CBAM
from segkd.networks.deeplabv3 import DeepLabV3
from segkd.networks.deeplabv3_no_aspp import DeepLabV3NoASPP
from segkd.networks.deeplabv3plus import DeepLabV3Plus
from segkd.networks.fcn import FCN, Auxiliary
from segkd.networks.init import initialise
from segkd.networks.mit import SIZES as MIT
from segkd.networks.mit import MiT
from segkd.networks.mobilenetv2 import MobileNetV2
from segkd.networks.outputs import Channels, Map, Outputs, Stage
from segkd.networks.parts import Backbone, Head, scaled
from segkd.networks.pspnet import PSPNet
from segkd.networks.resnet import BLOCKS, ResNet
from segkd.networks.segformer import SegFormer
from segkd.networks.xception import Xception

XCEPTION = {"xception41": True, "xception41-released": False}  # ReLU between all depthwise and 1x1 convolutions


class Network(nn.Module):
    """Backbone and head, with an auxiliary head and attention where the configuration asks for them.

    With `attention: cbam` the network goes on with refined maps: of stage 4 (before its last ReLU, where it has one,
    which then acts on the refined map), of "context" and of "decoder". `Outputs.stages` and `Outputs.head` hold the
    maps before refinement, `Outputs.attention` those after it.
    """

    def __init__(
        self, config: NetworkConfig, backbone: Backbone, head: Head, auxiliary: Auxiliary | None, attention: CBAM | None
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = head
        self.auxiliary = auxiliary
        self.attention = attention
        self.channels = _channels(backbone, head, auxiliary, attention)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Outputs:
        """Normalised images of any size -> every map at its own stride; a map's size is ceil(image size / stride)."""
        stages = self.backbone(x)
        auxiliary = None if self.auxiliary is None else self.auxiliary(stages[2].post)
        attention: dict[str, Tensor] = {}
        used = stages
        if self.attention is not None:
            refined = attention["stage4"] = self.attention(stages[3].pre)
            used = (*stages[:3], Stage(refined, refined if self.backbone.linear else F.relu(refined)))
        out = self.head(used)
        return Outputs(out.logits, out.embedding, stages, auxiliary, out.maps, attention | out.attention)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that ImageNet weights exist for."""
        return self.backbone.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """All the others: head, auxiliary head, attention."""
        for name, parameter in self.named_parameters():
            if not name.startswith("backbone."):
                yield parameter


def _channels(backbone: Backbone, head: Head, auxiliary: Auxiliary | None, attention: CBAM | None) -> Channels:
    refined: dict[str, Map] = {} if attention is None else {"stage4": backbone.stages[3]}
    refined |= {name: head.maps[name] for name in head.attention}
    return Channels(
        head.logits, head.embedding, backbone.stages, auxiliary.logits if auxiliary else None, head.maps, refined
    )


def build(config: NetworkConfig, classes: int) -> Network:
    """A network with fresh weights from torch's global generator (see `initialise`); the caller seeds it.

    `config.pretrained` is not looked at: whoever starts a training lays ImageNet weights over the network, once, by
    `pretrained.load_pretrained`; everybody else loads the weights of a run. The backbone is drawn first, so that it
    starts alike with every head. ConfigError where the configuration names a network that does not exist.
    """
    check(config)
    backbone = _backbone(config)
    backbone.initialise()
    head = _head(config, backbone.stages, classes)
    auxiliary = Auxiliary(backbone.stages[2], classes) if config.auxiliary else None
    attention = None
    if config.attention == "cbam":
        attention = CBAM(backbone.stages[3].channels)
        head.attention.update({name: CBAM(map_.channels) for name, map_ in head.maps.items()})
    network = Network(config, backbone, head, auxiliary, attention)
    for part in (head, auxiliary, attention):
        if part is not None:
            initialise(part)
    return network


def check(config: NetworkConfig) -> None:
    """ConfigError with every reason why this network cannot be built."""
    faults = list(_resnet_faults(config) if config.backbone in BLOCKS else _other_faults(config))
    if faults:
        raise ConfigError(f"The network {config.head} on {config.backbone} cannot be built.\n{listing(faults)}")


def _resnet_faults(config: NetworkConfig) -> Iterator[str]:
    blocks = BLOCKS[config.backbone][3]
    if config.multi_grid is not None and (len(config.multi_grid) != blocks or min(config.multi_grid) < 1):
        yield f"multi_grid: expected {blocks} positive factors, one per block, found {config.multi_grid}"
    if config.stem == "conv3" and config.output_stride == 32:
        yield "output_stride: 32 cannot be reached with stem conv3; take 4, 8 or 16, or another stem"


def _other_faults(config: NetworkConfig) -> Iterator[str]:
    """MobileNetV2 takes stem conv3 because that lets it have output stride 4; the others have no such form."""
    if config.stem == "deep" or (config.stem == "conv3" and config.backbone != "mobilenetv2"):
        yield f"stem: {config.backbone} has a stem of its own; leave `stem` out"
    if config.multi_grid is not None:
        yield f"multi_grid: only ResNets have it; leave it out for {config.backbone}"
    if config.backbone in MIT and config.output_stride != 32:
        yield f"output_stride: {config.backbone} has strides 4, 8, 16 and 32 and no others; set output_stride: 32"


def _backbone(config: NetworkConfig) -> Backbone:
    name = config.backbone
    if name == "mobilenetv2":
        return MobileNetV2(output_stride=config.output_stride, width=config.width)
    if name in XCEPTION:
        return Xception(between=XCEPTION[name], output_stride=config.output_stride, width=config.width)
    if name in MIT:
        return MiT(name, width=config.width)
    return ResNet(
        name,
        stem=config.stem,
        output_stride=config.output_stride,
        multi_grid=config.multi_grid,
        width=config.width,
    )


def _head(config: NetworkConfig, stages: tuple[Map, ...], classes: int) -> Head:
    channels = scaled(config.head_channels, config.width)
    if config.head == "pspnet":
        return PSPNet(stages, channels, classes)
    if config.head == "fcn":
        return FCN(stages, channels, classes)
    if config.head == "segformer":
        return SegFormer(stages, channels, classes)
    if config.head == "deeplabv3-no-aspp":
        return DeepLabV3NoASPP(stages, channels, classes)
    dilations = rates(config.output_stride, config.stem)
    if config.head == "deeplabv3":
        return DeepLabV3(stages, channels, classes, dilations)
    return DeepLabV3Plus(stages, channels, classes, dilations, scaled(48, config.width))
