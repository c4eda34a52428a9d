"""SP: Tung & Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682, on the embedding."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from segkd.errors import ConfigError
from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.registry import register
from segkd.networks.outputs import Outputs
from segkd.ops.rows import image_rows_distance


def sp_loss(student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b d i j"]) -> Float[Tensor, ""]:
    """|| G_s - G_t ||_F^2 / B^2, G = rows of Q Q' each of length 1, Q (B, everything): equations 1 to 4.

    Channels and sizes may differ. One image alone has no relations: 0.
    """
    if len(student) != len(teacher):
        raise ConfigError(f"sp: expected equal batches, found {len(student)} and {len(teacher)} images")
    return image_rows_distance(student, teacher, scale=1 / len(student) ** 2)


class SPConfig(MethodConfig):
    """Hyper-parameters of `sp`."""

    preset: Literal["paper"] = Field("paper", description="sp has one definition")
    weight: float = Field(3000.0, ge=0, description="gamma; 0 = off; that of segmentation papers is not established")


@register("sp")
class SP(Method):
    """Images that look alike to the teacher look alike to the student; within the images of one forward pass.

    A recipe's `micro_batch` therefore changes what is compared; a batch of 1 teaches nothing.

    Cost: O(B^2 N d).
    """

    Config = SPConfig
    needs = frozenset({"embedding"})
    config: SPConfig

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"similarity": weight * sp_loss}."""
        if self.config.weight == 0:
            return {}
        return {"similarity": self.config.weight * sp_loss(student.embedding, teacher.embedding)}
