"""FitNet: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550, on the embedding.

One stage, with the regressor trained beside the student, as in segmentation papers; not the original hint training.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import refuse_idle, require_enlarging, require_stride
from segkd.methods.kd import kd_loss
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.shapes import bilinear, require_same
from segkd.ops.squares import projected_squares


def fitnet_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b d h w"], weight: Float[Tensor, "d c 1 1"]
) -> Float[Tensor, ""]:
    """Mean over all elements of (conv1x1(F_s; weight) - F_t)^2 (eq. 3 of the paper, as a mean)."""
    require_same(student, teacher, channels=False, where="fitnet: embeddings of student and teacher")
    return projected_squares(student, weight, teacher, scale=1 / teacher.numel())


class FitNetConfig(MethodConfig):
    """Hyper-parameters of `fitnet`."""

    preset: Literal["paper"] = Field("paper", description="fitnet has one definition")
    weight: float = Field(10.0, ge=0, description="of the hint term; 0 = off")
    kd: float = Field(1.0, ge=0, description="weight of kd (T 1, pixel mean) beside it; 0 = off")
    resize: Literal["refuse", "teacher"] = Field(
        "refuse",
        description="teacher: the student's maps are enlarged to the teacher's, bilinearly (KA's comparison)",
    )

    @model_validator(mode="after")
    def _idle_keys(self) -> FitNetConfig:
        refuse_idle(self, {"resize"}, idle=self.weight == 0 and self.kd == 0, why="weight and kd are 0")
        return self


@register("fitnet")
class FitNet(Method):
    """A 1x1 convolution of the student's embedding imitates the teacher's, with plain KD beside it.

    Cost: O(B N d_s d_t), the 1x1 convolution.
    """

    Config = FitNetConfig
    needs = frozenset({"logits", "embedding"})
    config: FitNetConfig

    def __init__(self, config: FitNetConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        if config.resize == "refuse":
            fix = "set resize: teacher for this method"
            require_stride(student.embedding, teacher.embedding, field="the embedding", method="fitnet", fix=fix)
        else:
            require_enlarging(student.embedding, teacher.embedding, field="the embedding", method="fitnet")
        if config.weight:
            self.connector = nn.Conv2d(student.embedding.channels, teacher.embedding.channels, 1, bias=False)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"hint", "kd"}, weighted."""
        terms = {}
        if self.config.weight:
            feature = self._sized(student.embedding, teacher.embedding)
            terms["hint"] = self.config.weight * fitnet_loss(feature, teacher.embedding, self.connector.weight)
        if self.config.kd:
            terms["kd"] = self.config.kd * kd_loss(self._sized(student.logits, teacher.logits), teacher.logits)
        return terms

    def _sized(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.config.resize == "refuse":
            return student
        return bilinear(student, (teacher.shape[-2], teacher.shape[-1]))
