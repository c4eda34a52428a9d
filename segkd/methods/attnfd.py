"""AttnFD: Mansourian, Jalali, Ahmadi, Kasaei, "Attention-guided Feature Distillation for Semantic Segmentation", 2024,
arXiv 2403.05451. Refinement: CBAM (Woo et al., ECCV 2018, arXiv 1807.06521), reduction 16, on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import refuse_idle
from segkd.methods.points import named_maps, shared_maps
from segkd.methods.registry import register
from segkd.networks.cbam import CBAM
from segkd.networks.init import initialise
from segkd.networks.outputs import Channels, Outputs
from segkd.networks.parts import ConvNorm
from segkd.ops.shapes import require_same
from segkd.ops.vectors import direction_distance
from segkd.ops.whole import whole_direction_distance

Maps = Sequence[Float[Tensor, "b c h w"]]
Point = Literal["stage4", "context", "decoder"]
POINTS: tuple[Point, ...] = ("stage4", "context", "decoder")
_FIX = {
    "paper": "name a teacher with attention: cbam, or remove from `maps` what one of the networks lacks",
    "released": "remove from `maps` what one of the networks lacks",
}


def attnfd_loss(student: Maps, teacher: Maps) -> Float[Tensor, ""]:
    """Sum over maps of the mean over images and positions of || norm_d(A_s) - norm_d(A_t) ||^2.

    A: refined maps, the student's after its connectors; normalised over the channels of a position (section 3.3).
    """
    _require_maps(student, teacher)
    terms = [
        direction_distance(s, t, power=2, scale=1 / (s.shape[0] * s.shape[2:].numel()))
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).sum()


def attnfd_released_loss(student: Maps, teacher: Maps) -> Float[Tensor, ""]:
    """Sum over maps of || A_s / ||A_s|| - A_t / ||A_t|| ||^2 / B, one norm over the whole (B, C, H, W) tensor."""
    _require_maps(student, teacher)
    terms = [whole_direction_distance(s, t, scale=1 / s.shape[0]) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(terms).sum()


def _require_maps(student: Maps, teacher: Maps) -> None:
    if len(student) != len(teacher) or not student:
        raise ConfigError(f"attnfd: expected as many maps of each, found {len(student)} and {len(teacher)}")
    for s, t in zip(student, teacher, strict=True):
        require_same(s, t, channels=True, where="attnfd: refined maps of student (after its connectors) and teacher")


class AttnFDConfig(MethodConfig):
    """Hyper-parameters of `attnfd`."""

    weight: float = Field(2.0, ge=0, description="lambda, of the one term; 0 = off")
    maps: tuple[Point, ...] = Field(
        POINTS, min_length=1, description="maps to compare; unless given, those that both networks have"
    )

    @model_validator(mode="after")
    def _sensible(self) -> AttnFDConfig:
        refuse_idle(self, {"maps"}, idle=self.weight == 0, why="weight is 0")
        if len(set(self.maps)) < len(self.maps):
            raise ValueError("a map stands twice in maps: name each once")
        return self


@register("attnfd")
class AttnFD(Method):
    """Attention-refined maps of the student imitate those of the teacher: stage 4 (pre-ReLU), ASPP output, decoder.

    Heads without some of these maps are compared on those that both networks have; stage 4 every network has.

    `paper`: the teacher was trained with CBAM in its forward path (network with `attention: cbam`) and its refined
    maps are read from there; the student's CBAM and connectors are trained at 10 times the learning rate.

    `released`: any teacher; a CBAM with random weights, never trained, refines its maps (batch statistics, as in the
    released code, whose teacher runs in train mode). The student's channel MLPs are never trained. In epoch 0 only the
    connectors are trained; from epoch 1 on they stand still, while the student and the spatial gates (7x7 convolution
    and batch norm) of its CBAM are trained. The cross-entropy is divided by the batch size
    (once, also under a recipe that says so). One difference remains: here connectors and gates train at 10 times the
    learning rate throughout; there at 1 time for connectors and stage 4's gate.

    Cost: O(B N d_s d_t) for each connector, O(B N d) for each CBAM and distance.
    """

    Config = AttnFDConfig
    needs = frozenset({"stages", "head", "attention"})
    teacher_attention: ClassVar[Literal["none", "cbam"]] = "cbam"
    factor = 10.0
    config: AttnFDConfig

    def __init__(self, config: AttnFDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        self.names: tuple[str, ...] = ()
        if config.weight == 0:
            return
        paper = config.preset == "paper"
        ours, theirs = named_maps(student), dict(teacher.attention) if paper else named_maps(teacher)
        wanted = [name for name in POINTS if name in config.maps]
        given = "maps" in config.model_fields_set
        self.names = shared_maps(wanted, ours, theirs, given=given, method="attnfd", fix=_FIX[config.preset])
        self.refinements = nn.ModuleDict({name: CBAM(ours[name].channels) for name in self.names})
        self.connectors = nn.ModuleDict(
            {name: ConvNorm(ours[name].channels, theirs[name].channels) for name in self.names}
        )
        if config.preset == "released":
            self.teacher_refinements = nn.ModuleDict({name: _fixed(theirs[name].channels) for name in self.names})
            self._gates("channel").requires_grad_(False)
        initialise(self)

    @classmethod
    def teacher_variant(cls, config: MethodConfig) -> Literal["none", "cbam"]:
        """A teacher trained with CBAM in preset `paper`, any teacher in `released`."""
        return "cbam" if config.preset == "paper" else "none"

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"attention": weight * loss}."""
        if not self.names:
            return {}
        released = self.config.preset == "released"
        if released:
            self._hold(progress)
        ours = _maps(student)
        refined = [self.connectors[name](self.refinements[name](ours[name])) for name in self.names]
        with torch.no_grad():
            if released:
                theirs = _maps(teacher)
                wanted = [self.teacher_refinements[name](theirs[name]) for name in self.names]
            else:
                wanted = [teacher.attention[name] for name in self.names]
        loss = attnfd_released_loss if released else attnfd_loss
        return {"attention": self.config.weight * loss(refined, wanted)}

    def task_weight(self, progress: Progress, batch: int) -> float:
        """1, or 1 / B in preset `released`."""
        return 1.0 if self.config.preset == "paper" else 1.0 / batch

    def student_moves(self, progress: Progress) -> bool:
        """False in epoch 0 of preset `released`, which trains the connectors alone."""
        return self.config.preset == "paper" or progress.epoch > 0

    def _hold(self, progress: Progress) -> None:
        """Gradients for connectors in epoch 0, for spatial gates later: what gets none, no optimiser moves."""
        self.connectors.requires_grad_(progress.epoch == 0)
        self._gates("spatial").requires_grad_(progress.epoch > 0)

    def _gates(self, kind: str) -> nn.ModuleList:
        """The channel gates or the spatial gates of the student's refinements."""
        return nn.ModuleList(getattr(cbam, kind) for cbam in self.refinements.values())


class _OwnStatistics(nn.Module):
    """Batch norm by the statistics of the batch itself, with weight 1 and bias 0; a single value passes as it is."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == x.shape[1]:
            return x
        return functional.batch_norm(x, None, None, training=True)


def _fixed(channels: int) -> CBAM:
    """A CBAM of random weights that never changes, and remembers no statistics."""
    cbam = CBAM(channels).requires_grad_(False)
    cbam.spatial.register_module("norm", _OwnStatistics())
    return cbam


def _maps(outputs: Outputs) -> dict[str, Tensor]:
    return {"stage4": outputs.stages[3].pre} | {
        name: outputs.head[name].post for name in POINTS if name in outputs.head
    }
