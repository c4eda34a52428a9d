"""AT: Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928, on the embedding."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import require_stride
from segkd.methods.kd import kd_loss
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.energy import channel_energy
from segkd.ops.shapes import require_same
from segkd.ops.unit import unit


def at_loss(student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b d h w"]) -> Float[Tensor, ""]:
    """Mean over images and positions of (q_s - q_t)^2, q = a / ||a||_2 over positions, a = mean over channels of F^2.

    Equation 2 of the paper with p = 2, as a mean (CIRKD's form). The channels of the two maps may differ.
    """
    require_same(student, teacher, channels=False, where="at: embeddings of student and teacher")
    maps = (unit(channel_energy(x) / x.shape[1], dim=1) for x in (student, teacher.detach()))
    return (next(maps) - next(maps)).square().mean()


class ATConfig(MethodConfig):
    """Hyper-parameters of `at`."""

    preset: Literal["paper"] = Field("paper", description="at has one definition")
    weight: float = Field(10_000.0, ge=0, description="of the attention term; 0 = off")
    kd: float = Field(1.0, ge=0, description="weight of kd (T 1, pixel mean) beside it; 0 = off")


@register("at")
class AT(Method):
    """Attention transfer on the embedding, with plain KD beside it."""

    Config = ATConfig
    needs = frozenset({"logits", "embedding"})
    config: ATConfig

    def __init__(self, config: ATConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        require_stride(student.embedding, teacher.embedding, field="the embedding", method="at")

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"attention", "kd"}, weighted."""
        terms = {}
        if self.config.weight:
            terms["attention"] = self.config.weight * at_loss(student.embedding, teacher.embedding)
        if self.config.kd:
            terms["kd"] = self.config.kd * kd_loss(student.logits, teacher.logits)
        return terms
