"""MGD: Yang et al., "Masked Generative Distillation", ECCV 2022, arXiv 2205.01529, on stage 4."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import refuse_idle, require_stride
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.shapes import require_same
from segkd.ops.squares import squares


def mgd_loss(generated: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Sum over elements of (G - F_t)^2 / B (equation 4): grows with the size of the map."""
    require_same(generated, teacher, channels=True, where="generated feature of the student and feature of the teacher")
    return squares(generated, teacher, scale=1 / len(generated))


def randomly_masked(x: Float[Tensor, "b c h w"], ratio: float) -> Float[Tensor, "b c h w"]:
    """`x` with each position of each image zeroed with probability `ratio`, all channels together (equation 2)."""
    kept = torch.rand(len(x), 1, *x.shape[2:], device=x.device) >= ratio
    return x * kept


def align(student: int, teacher: int) -> nn.Module:
    """A 1x1 convolution from the student's channels to the teacher's; nothing where they agree."""
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1)


def generator(channels: int) -> nn.Sequential:
    """conv3x3-ReLU-conv3x3, which fills in what was masked."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


class MGDConfig(MethodConfig):
    """Hyper-parameters of `mgd`."""

    preset: Literal["paper"] = Field("paper", description="mgd has one definition")
    weight: float = Field(2e-5, ge=0, description="of the sum of squares per image; 0 = off")
    mask: float = Field(0.75, ge=0, lt=1, description="share of positions that are zeroed")

    @model_validator(mode="after")
    def _idle_keys(self) -> MGDConfig:
        refuse_idle(self, {"mask"}, idle=self.weight == 0, why="weight is 0")
        return self


@register("mgd")
class MGD(Method):
    """From a randomly masked feature of the student, a small network generates the teacher's whole feature.

    Masks come from the global generator: the one term here that differs between two equal images of a batch.

    Cost: O(18 B N d_t^2), the two 3x3 convolutions.
    """

    Config = MGDConfig
    needs = frozenset({"stages"})
    config: MGDConfig

    def __init__(self, config: MGDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        require_stride(student.stages[3], teacher.stages[3], field="stage 4", method="mgd")
        if config.weight:
            self.align = align(student.stages[3].channels, teacher.stages[3].channels)
            self.generator = generator(teacher.stages[3].channels)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"generation": weight * mgd_loss}."""
        if self.config.weight == 0:
            return {}
        masked = randomly_masked(self.align(student.stages[3].post), self.config.mask)
        return {"generation": self.config.weight * mgd_loss(self.generator(masked), teacher.stages[3].post)}
