"""IFVD: Wang et al., "Intra-class Feature Variation Distillation for Semantic Segmentation", ECCV 2020.

Weights follow the released code (200, element-wise KD 10, adversarial 0.001); CIRKD's tables use 20 and plain KD 1.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from segkd.methods.adversarial import Adversarial, AdversarialConfig
from segkd.methods.base import Progress
from segkd.methods.checks import refuse_idle, require_stride
from segkd.methods.kd import Reduction, kd_loss
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.prototypes import variation_distance
from segkd.ops.shapes import nearest_labels, require_same

EPSILON = 1e-6  # beside the number of a class's pixels


def ifvd_loss(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b d h w"],
    labels: Int[Tensor, "b i j"],
    *,
    classes: int,
) -> Float[Tensor, ""]:
    """Mean over images and positions of (v_s - v_t)^2, v(x) = cos(f(x), prototype of x's class in that image).

    Equations 2 to 4. Labels come to the map by nearest (floor); ignored positions have v = 1 on both sides: they add
    nothing, but count in the mean.
    """
    require_same(student, teacher, channels=False, where="ifvd: embeddings of student and teacher")
    size = (student.shape[-2], student.shape[-1])
    positions = student.shape[0] * size[0] * size[1]
    return variation_distance(
        student, teacher, nearest_labels(labels, size), classes=classes, epsilon=EPSILON, scale=1 / positions
    )


class IFVDConfig(AdversarialConfig):
    """Hyper-parameters of `ifvd`."""

    preset: Literal["paper"] = Field("paper", description="ifvd has one definition")
    weight: float = Field(200.0, ge=0, description="of the variation term; 0 = off (CIRKD's tables: 20)")
    kd: float = Field(10.0, ge=0, description="weight of kd beside it; 0 = off (CIRKD's tables: 1)")
    kd_reduction: Reduction = Field("element", description="of kd (CIRKD's tables: pixel)")
    adversarial: float = Field(0.001, ge=0, description="weight of the adversarial term; 0 = no discriminator")

    @model_validator(mode="after")
    def _idle_kd_keys(self) -> IFVDConfig:
        refuse_idle(self, {"kd_reduction"}, idle=self.kd == 0, why="kd is 0")
        return self


@register("ifvd")
class IFVD(Adversarial):
    """The student's features vary around their class prototypes as the teacher's do.

    Cost: O(B N C d), as matrix products with the classes' prototypes; the discriminator as in `skd`.
    """

    Config = IFVDConfig
    needs = frozenset({"logits", "embedding"})
    config: IFVDConfig

    def __init__(self, config: IFVDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        require_stride(student.logits, teacher.logits, field="logits", method="ifvd")
        require_stride(student.embedding, teacher.embedding, field="the embedding", method="ifvd")

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"variation", "kd", "adversarial"}, weighted."""
        config, terms = self.config, {}
        if config.weight:
            loss = ifvd_loss(student.embedding, teacher.embedding, labels, classes=self.classes)
            terms["variation"] = config.weight * loss
        if config.kd:
            terms["kd"] = config.kd * kd_loss(student.logits, teacher.logits, reduction=config.kd_reduction)
        return terms | self.adversarial_terms(student)
