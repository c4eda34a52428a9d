"""Operations of networks and of what methods add to them, counted on shapes alone.

Networks are built on PyTorch's meta device: no memory, no weights, no arithmetic. Each is built and counted once a
process.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segkd.config.network import NetworkConfig
from segkd.config.params import MethodEntry
from segkd.data.resize import Size
from segkd.methods.base import Pretraining
from segkd.methods.registry import method_class, method_config
from segkd.networks.build import build
from segkd.networks.outputs import Channels, Map

_STEP = 3  # a training step costs a forward pass, and about two more for the gradients of activations and of weights
_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True, eq=False)
class Shape:
    """What is known of a module without weights. numbers: in its parameters and buffers; trained: of them trained."""

    numbers: int
    trained: int

    @classmethod
    def of(cls, module: nn.Module) -> Shape:
        """The counts of a module."""
        trained = sum(one.numel() for one in module.parameters() if one.requires_grad)
        return cls(sum(one.numel() for one in module.state_dict().values()), trained)


@functools.cache
def _network(config: NetworkConfig, classes: int) -> tuple[Shape, Channels, nn.Module]:
    """A network's shape and channels, and the network without batch norms: they count for nothing in a forward pass,
    and take most of the time of counting one (measured)."""
    with torch.device("meta"):
        network = build(config.model_copy(update={"pretrained": None}), classes)
    shape, channels = Shape.of(network), network.channels
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, nn.Identity())
    return shape, channels, network.eval()


def network(config: NetworkConfig, classes: int) -> Shape:
    """Shape of a network; ConfigError where it cannot be built."""
    return _network(config, classes)[0]


def channels(config: NetworkConfig, classes: int) -> Channels:
    """Channels and strides of its maps."""
    return _network(config, classes)[1]


@functools.cache
def forward(config: NetworkConfig, classes: int, size: Size) -> int:
    """Operations of one forward pass on an image of `size` (height, width), auxiliary heads included."""
    image = torch.empty(1, 3, *size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _network(config, classes)[2](image)
    return int(counter.get_total_flops())


def training(student: NetworkConfig, classes: int, crop: Size) -> int:
    """Operations of training a network on one image: three forward passes."""
    return _STEP * forward(student, classes, crop)


def teaching(student: NetworkConfig, teacher: NetworkConfig, method: MethodEntry, classes: int, crop: Size) -> int:
    """Operations that a teacher adds to one image: its forward pass, and the method's own.

    The method's own: each weight of its convolutions once per position of the student's embedding, three times where it
    is trained. Exact for connectors, projectors and generators there, too much for discriminators, whose maps shrink;
    products between positions, images or classes (affinities, memories) are left out.
    """
    positions = _positions(channels(student, classes).embedding, crop)
    return forward(teacher, classes, crop) + per_position(method_of(student, teacher, method, classes)) * positions


def pretraining(
    student: NetworkConfig, teacher: NetworkConfig, method: MethodEntry, classes: int, crop: Size
) -> tuple[int, float]:
    """Operations of one image in the method's pretraining on the teacher, and the epochs of it; (0, 0.0) for none."""
    module = pretraining_of(student, teacher, method, classes)
    if module is None:
        return 0, 0.0
    positions = _positions(channels(teacher, classes).embedding, crop)
    return forward(teacher, classes, crop) + per_position(module) * positions, module.epochs


@functools.cache
def method_of(student: NetworkConfig, teacher: NetworkConfig, method: MethodEntry, classes: int) -> nn.Module:
    """The method's module for a pair of networks, without memory; ConfigError where it does not fit them."""
    config = method_config(method.method, method.options)
    with torch.device("meta"):
        return method_class(method.method)(config, channels(student, classes), channels(teacher, classes), classes)


@functools.cache
def pretraining_of(
    student: NetworkConfig, teacher: NetworkConfig, method: MethodEntry, classes: int
) -> Pretraining | None:
    """What the method trains on the teacher before any student, without memory; None for most."""
    config = method_config(method.method, method.options)
    with torch.device("meta"):
        pair = channels(student, classes), channels(teacher, classes)
        return method_class(method.method).pretraining(config, *pair, classes)


def per_position(module: nn.Module) -> int:
    """Operations of a module's convolutions at one position: two a weight, three times as many where it is trained."""
    layers = [layer.weight for layer in module.modules() if isinstance(layer, _WEIGHTED)]
    return sum(2 * weight.numel() * (_STEP if weight.requires_grad else 1) for weight in layers)


def _positions(map_: Map, size: Size) -> int:
    """Positions of a map over an image of `size`."""
    return -(-size[0] // map_.stride) * -(-size[1] // map_.stride)
