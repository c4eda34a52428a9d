"""Optimisers with parameter groups, and the poly schedule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from segkd.config.recipe import Optimiser, Schedule
from segkd.methods.base import OwnOptimiser


def build(config: Optimiser, groups: Mapping[str, tuple[Iterable[nn.Parameter], float]]) -> Optimizer:
    """SGD or AdamW over named groups, each with a factor on the learning rate; empty groups are left out.

    groups: name -> (parameters, factor). One kernel updates all parameters: on a GPU it can skip an update by itself
    (see `finite.Guard`), on a CPU it saves a tenth of the step of a small network.
    """
    described = [
        {"name": name, "params": trainable, "factor": factor, "lr": config.lr * factor}
        for name, (parameters, factor) in groups.items()
        if (trainable := [parameter for parameter in parameters if parameter.requires_grad])
    ]
    if config.name == "sgd":
        return torch.optim.SGD(
            described,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(described, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def build_own(own: OwnOptimiser) -> Optimizer:
    """The optimiser that a method declares for parameters with a loss of their own."""
    group = [{"name": own.name, "params": list(own.parameters), "factor": 1.0 if own.poly else None, "lr": own.lr}]
    if own.kind == "sgd":
        return torch.optim.SGD(group, lr=own.lr, momentum=own.momentum, weight_decay=own.weight_decay, fused=True)
    return torch.optim.Adam(group, lr=own.lr, betas=own.betas, weight_decay=own.weight_decay, fused=True)


def poly(schedule: Schedule, iteration: int, iterations: int) -> float:
    """Share of the base learning rate at an iteration (from 0): (1 - i / I)^power, after a linear warm-up."""
    share = (1.0 - iteration / iterations) ** schedule.power
    if iteration < schedule.warmup:
        rise = iteration / schedule.warmup
        share *= schedule.warmup_factor + (1.0 - schedule.warmup_factor) * rise
    return share


def set_rate(optimiser: Optimizer, base: float, share: float) -> None:
    """Set every group's learning rate to base * share * its factor; a factor of None keeps the rate constant."""
    for group in optimiser.param_groups:
        group["lr"] = base if group["factor"] is None else base * share * group["factor"]
