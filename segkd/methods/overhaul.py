"""Overhaul: Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, arXiv 1904.01866."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import refuse_idle
from segkd.methods.points import named_maps, shared_maps
from segkd.methods.registry import register
from segkd.networks.init import initialise
from segkd.networks.outputs import Channels, Outputs
from segkd.networks.parts import ConvNorm
from segkd.ops.partial import negative_sums, partial_distance
from segkd.ops.processes import gathered
from segkd.ops.shapes import require_same

Point = Literal["stage1", "stage2", "stage3", "stage4", "context", "decoder"]
POINTS: tuple[Point, ...] = ("stage1", "stage2", "stage3", "stage4", "context", "decoder")
DIVIDERS: dict[str, int] = dict(zip(POINTS, (8, 4, 2, 1, 1, 16), strict=True))


def overhaul_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"], margin: Float[Tensor, " c"]
) -> Float[Tensor, ""]:
    """Sum over elements of (F_s - m)^2 / B, m = max(F_t, margin), but 0 where F_s <= m <= 0 (equations 2 and 3).

    Maps before their ReLU, the student's after its connector. margin: per channel, negative: how far below zero a
    teacher's silent response is imitated.
    """
    require_same(student, teacher, channels=True, where="overhaul: maps of student (after its connector) and teacher")
    return partial_distance(student, teacher, margin, scale=1 / len(student))


class Margin(nn.Module):
    """Mean of the teacher's negative responses per channel, over all images seen: the margin's definition (eq. 4).

    The released code takes the same mean from batch norm's weight and bias, for normally distributed responses.
    Channels that were never negative have margin 0.
    """

    sums: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(2, channels, dtype=torch.float64))

    def forward(self, teacher: Float[Tensor, "b c h w"]) -> Float[Tensor, " c"]:
        """The margin after these images; in evaluation mode they are not counted."""
        if self.training:
            self.sums += gathered(negative_sums(teacher)[None]).sum(0)
        return self.sums[0] / self.sums[1].clamp_min(1)


class OverhaulConfig(MethodConfig):
    """Hyper-parameters of `overhaul`."""

    preset: Literal["paper"] = Field("paper", description="overhaul has one definition")
    weight: float = Field(1e-5, ge=0, description="of the sum over maps, each divided by 8, 4, 2, 1, 1, 16; 0 = off")
    maps: tuple[Point, ...] = Field(
        POINTS, min_length=1, description="maps to compare; unless given, those that both networks have"
    )
    connectors_first: bool = Field(
        False, description="epoch 0 trains the connectors alone, the student stands still (the released code)"
    )

    @model_validator(mode="after")
    def _sensible(self) -> OverhaulConfig:
        refuse_idle(self, {"maps", "connectors_first"}, idle=self.weight == 0, why="weight is 0")
        if len(set(self.maps)) < len(self.maps):
            raise ValueError("a map stands twice in maps: name each once")
        return self


@register("overhaul")
class Overhaul(Method):
    """Maps before their ReLU imitate the teacher's positive responses, through conv1x1-BN connectors.

    Maps: the four stages, the output of ASPP or pyramid pooling, the decoder; networks without some of these are
    compared on those that both have. Connectors train at 10 times the learning rate.

    Cost: O(B N d_s d_t) for each connector, O(B N d_t) for each distance.
    """

    Config = OverhaulConfig
    needs = frozenset({"stages", "head"})
    factor = 10.0
    config: OverhaulConfig

    def __init__(self, config: OverhaulConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        self.names: tuple[str, ...] = ()
        if config.weight == 0:
            return
        ours, theirs = named_maps(student), named_maps(teacher)
        wanted = [name for name in POINTS if name in config.maps]
        given, fix = "maps" in config.model_fields_set, "remove from `maps` what one of the networks lacks"
        self.names = shared_maps(wanted, ours, theirs, given=given, method="overhaul", fix=fix)
        self.connectors = nn.ModuleDict({n: ConvNorm(ours[n].channels, theirs[n].channels) for n in self.names})
        self.margins = nn.ModuleDict({name: Margin(theirs[name].channels) for name in self.names})
        initialise(self.connectors)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """One term for each map, weighted and divided."""
        ours, theirs, terms = _maps(student), _maps(teacher), {}
        for name in self.names:
            margin = self.margins[name](theirs[name])
            loss = overhaul_loss(self.connectors[name](ours[name]), theirs[name], margin)
            terms[name] = self.config.weight / DIVIDERS[name] * loss
        return terms

    def student_moves(self, progress: Progress) -> bool:
        """False in epoch 0 where the connectors go first."""
        return not self.config.connectors_first or progress.epoch > 0


def _maps(outputs: Outputs) -> dict[str, Tensor]:
    """All maps before their activation."""
    stages = {f"stage{number}": stage.pre for number, stage in enumerate(outputs.stages, 1)}
    return stages | {name: stage.pre for name, stage in outputs.head.items()}
