"""Operations of networks and of what methods add to them, counted on shapes alone.

Networks are built on PyTorch's meta device: no memory, no weights, no arithmetic. Each is built and counted once a
process.
"""

from __future__ import annotations

import copy
import functools

import torch
from torch import nn

from segkd.config.network import NetworkConfig
from segkd.config.params import MethodEntry
from segkd.data.resize import Size
from segkd.evaluation.cost import flops
from segkd.methods.base import Pretraining
from segkd.methods.registry import method_class, method_config
from segkd.networks.build import Network, build
from segkd.networks.outputs import Map

_STEP = 3  # a training step costs a forward pass, and about two more for the gradients of activations and of weights
_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def network(config: NetworkConfig, classes: int) -> Network:
    """The network without weights or memory; ConfigError where it cannot be built."""
    return _network(config.model_copy(update={"pretrained": None}), classes)


@functools.cache
def _network(config: NetworkConfig, classes: int) -> Network:
    with torch.device("meta"):
        return build(config, classes)


def forward(config: NetworkConfig, classes: int, size: Size) -> int:
    """Operations of one forward pass on an image of `size` (height, width), auxiliary heads included."""
    return _forward(config.model_copy(update={"pretrained": None}), classes, size)


@functools.cache
def _forward(config: NetworkConfig, classes: int, size: Size) -> int:
    return flops(_bare(config, classes), size)


@functools.cache
def _bare(config: NetworkConfig, classes: int) -> Network:
    """The network without batch norms, which count for nothing and take most of the time of a count (measured)."""
    bare = copy.deepcopy(_network(config, classes))
    for module in list(bare.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, nn.Identity())
    return bare


def training(student: NetworkConfig, classes: int, crop: Size) -> int:
    """Operations of training a network on one image: three forward passes."""
    return _STEP * forward(student, classes, crop)


def teaching(student: NetworkConfig, teacher: NetworkConfig, method: MethodEntry, classes: int, crop: Size) -> int:
    """Operations that a teacher adds to one image: its forward pass, and the method's own.

    The method's own: each weight of its convolutions once per position of the student's embedding, three times where it
    is trained. Exact for connectors, projectors and generators there, too much for discriminators, whose maps shrink;
    products between positions, images or classes (affinities, memories) are left out.
    """
    positions = _positions(network(student, classes).channels.embedding, crop)
    return forward(teacher, classes, crop) + per_position(method_of(student, teacher, method, classes)) * positions


def pretraining(
    student: NetworkConfig, teacher: NetworkConfig, method: MethodEntry, classes: int, crop: Size
) -> tuple[int, float]:
    """Operations of one image in the method's pretraining on the teacher, and the epochs of it; (0, 0.0) for none."""
    module = pretraining_of(student, teacher, method, classes)
    if module is None:
        return 0, 0.0
    positions = _positions(network(teacher, classes).channels.embedding, crop)
    return forward(teacher, classes, crop) + per_position(module) * positions, module.epochs


@functools.cache
def method_of(student: NetworkConfig, teacher: NetworkConfig, method: MethodEntry, classes: int) -> nn.Module:
    """The method's module for a pair of networks, without memory; ConfigError where it does not fit them."""
    config = method_config(method.method, method.options)
    with torch.device("meta"):
        channels = network(student, classes).channels, network(teacher, classes).channels
        return method_class(method.method)(config, *channels, classes)


@functools.cache
def pretraining_of(
    student: NetworkConfig, teacher: NetworkConfig, method: MethodEntry, classes: int
) -> Pretraining | None:
    """What the method trains on the teacher before any student, without memory; None for most."""
    config = method_config(method.method, method.options)
    with torch.device("meta"):
        channels = network(student, classes).channels, network(teacher, classes).channels
        return method_class(method.method).pretraining(config, *channels, classes)


def per_position(module: nn.Module) -> int:
    """Operations of a module's convolutions at one position: two a weight, three times as many where it is trained."""
    layers = [layer.weight for layer in module.modules() if isinstance(layer, _WEIGHTED)]
    return sum(2 * weight.numel() * (_STEP if weight.requires_grad else 1) for weight in layers)


def _positions(map_: Map, size: Size) -> int:
    """Positions of a map over an image of `size`."""
    return -(-size[0] // map_.stride) * -(-size[1] // map_.stride)
