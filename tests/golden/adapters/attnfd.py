"""AttnFD: the loss in both presets, and CBAM."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from adapters import Result
from segkd.methods.attnfd import attnfd_loss, attnfd_released_loss
from segkd.networks.cbam import CBAM
from segkd.networks.parts import ConvNorm

Tensors = dict[str, Tensor]


def _maps(tensors: Tensors, letter: str) -> list[Tensor]:
    return [tensors[name] for name in sorted(tensors) if name.startswith(letter)]


def paper(tensors: Tensors) -> Tensor:
    return attnfd_loss(_maps(tensors, "s"), _maps(tensors, "t"))


def released(tensors: Tensors, *, attn_lambda: float) -> Tensor:
    connected = []
    for student, weight in zip(_maps(tensors, "s"), _maps(tensors, "w"), strict=True):
        connector = ConvNorm(weight.shape[1], weight.shape[0]).to(weight.dtype)
        connected.append(torch.func.functional_call(connector, {"0.weight": weight}, (student,)))
    return attn_lambda * attnfd_released_loss(connected, _maps(tensors, "t"))


def cbam(tensors: Tensors, *, mode: Literal["train", "eval"]) -> Result:
    student = tensors["student"]
    module = CBAM(student.shape[1]).to(student.dtype).train(mode == "train")
    assert mode in {"train", "eval"}
    given = {"channel.mlp.0.weight": "w1", "channel.mlp.0.bias": "b1"}
    given |= {"channel.mlp.2.weight": "w2", "channel.mlp.2.bias": "b2", "spatial.conv.weight": "w7"}
    parameters = dict(module.named_parameters()) | {name: tensors[key] for name, key in given.items()}
    out = torch.func.functional_call(module, parameters, (student,))
    probe = torch.sin(torch.arange(out.numel(), dtype=torch.float64) * 0.37 + 0.11).to(out.dtype)
    leaves = {_released_name(name): parameter for name, parameter in parameters.items()}
    return Result({"loss": (out.flatten() * probe).sum()}, leaves=leaves)


def _released_name(name: str) -> str:
    gate, rest = name.split(".", 1)
    if gate == "channel":
        return "ChannelGate." + rest.replace("mlp.0", "mlp.1").replace("mlp.2", "mlp.3")
    return "SpatialGate.spatial." + rest.replace("norm", "bn")


LOSSES = {"attnfd": paper, "attnfd.loss": released, "attnfd.cbam": cbam}
