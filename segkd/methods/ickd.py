"""ICKD: Liu et al., "Exploring Inter-Channel Correlation for Diversity-Preserved Knowledge Distillation", ICCV 2021."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from segkd.errors import ConfigError
from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.registry import register
from segkd.networks.init import initialise
from segkd.networks.outputs import Channels, Outputs
from segkd.networks.parts import ConvNorm
from segkd.ops.rows import channel_rows_distance


def ickd_loss(student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c i j"]) -> Float[Tensor, ""]:
    """Sum over images and channel pairs of (G_s - G_t)^2 / (C B), G = rows of F F' each of length 1 (C x C).

    Equations 2 and 3, as the released code scales them. Sizes may differ, channels may not.
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ConfigError(
            "ickd: expected one batch and equal channels, "
            f"found student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )
    images, channels = student.shape[:2]
    return channel_rows_distance(student, teacher, scale=1 / (images * channels))


class ICKDConfig(MethodConfig):
    """Hyper-parameters of `ickd`."""

    preset: Literal["paper"] = Field("paper", description="ickd has one definition")
    feature: float = Field(
        2.5,
        ge=0,
        description="weight of the term on the embedding, after conv1x1-BN to the teacher's channels; 0 = off",
    )
    logits: float = Field(
        0.0, ge=0, description="weight of the term on logits (the form of AICSD's comparison); 0 = off"
    )


@register("ickd")
class ICKD(Method):
    """The student's channels correlate as the teacher's do.

    Cost: O(B N d_t (d_s + d_t)): the connector, and the channels' correlations.
    """

    Config = ICKDConfig
    needs = frozenset({"logits", "embedding"})
    config: ICKDConfig

    def __init__(self, config: ICKDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        if config.feature:
            self.connector = ConvNorm(student.embedding.channels, teacher.embedding.channels)
            initialise(self.connector)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"feature", "logits"}, weighted."""
        terms = {}
        if self.config.feature:
            embedded = self.connector(student.embedding)
            terms["feature"] = self.config.feature * ickd_loss(embedded, teacher.embedding)
        if self.config.logits:
            terms["logits"] = self.config.logits * ickd_loss(student.logits, teacher.logits)
        return terms
