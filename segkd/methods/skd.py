"""SKD: Liu et al., "Structured Knowledge Distillation for Semantic Segmentation", CVPR 2019, arXiv 1903.04197.

Preset `released` takes the released code's pixel-wise term: a cross-entropy summed over the batch.
"""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from segkd.methods.adversarial import Adversarial, AdversarialConfig
from segkd.methods.base import Progress
from segkd.methods.checks import filled, refuse_idle, require_stride
from segkd.methods.kd import kd_loss
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.crossentropy import soft_cross_entropy
from segkd.ops.gram import gram_distance
from segkd.ops.shapes import require_same

Map = Float[Tensor, "b c h w"]


def pixelwise_released_loss(student: Map, teacher: Map) -> Float[Tensor, ""]:
    """-sum over classes of p_t log p_s, SUMMED over images and positions, / (H W): grows with the batch.

    Section 3.1 as the released code computes it; its gradient is B times that of `kd_loss`.
    """
    require_same(student, teacher, channels=True, where="skd: logits of student and teacher")
    return soft_cross_entropy(student, teacher, scale=1 / student.shape[2:].numel())


def pairwise_loss(student: Map, teacher: Float[Tensor, "b d h w"], *, scale: float | None = 0.5) -> Float[Tensor, ""]:
    """sum (A_t - A_s)^2 / m^2 / B over m nodes; A = v'v, v = f / (||f|| + 1e-8) with the norm detached.

    f: max-pooled map, kernel = stride = max(1, floor(scale * size)) per axis, ceil: scale 0.5 leaves 2 x 2 or 3 x 3
    nodes; None: no pooling. Section 3.1, equation 2, in the released code's form.
    """
    require_same(student, teacher, channels=False, where="skd: embeddings of student and teacher")
    height, width = student.shape[2:]
    window = (1, 1) if scale is None else (max(1, int(scale * height)), max(1, int(scale * width)))
    nodes = -(-height // window[0]) * -(-width // window[1])
    share = 1 / (student.shape[0] * nodes**2)
    return gram_distance(student, teacher, scale=share, norm="detached", window=None if window == (1, 1) else window)


def pairwise_cirkd_loss(student: Map, teacher: Float[Tensor, "b d h w"]) -> Float[Tensor, ""]:
    """Mean over images and m x m pairs of (A_s - A_t)^2 after 2 x 2 max-pooling (ceil), A = cosines, norm not detached.

    The form of CIRKD's re-implementation.
    """
    require_same(student, teacher, channels=False, where="skd: embeddings of student and teacher")
    nodes = -(-student.shape[2] // 2) * -(-student.shape[3] // 2)
    share = 1 / (student.shape[0] * nodes**2)
    return gram_distance(student, teacher, scale=share, norm="unit", window=(2, 2))


class SKDConfig(AdversarialConfig):
    """Hyper-parameters of `skd`."""

    pixel: float = Field(10.0, ge=0, description="weight of the pixel-wise term; 0 = off")
    pairwise: float = Field(0.5, ge=0, description="weight of the pair-wise term; 0 = off; default 10 for form cirkd")
    form: Literal["skd", "cirkd"] = Field("skd", description="pair-wise form: the authors', or CIRKD's (2 x 2 pooling)")
    scale: float = Field(0.5, gt=0, le=1, description="pooling window of form skd, share of the map's size")
    adversarial: float = Field(0.1, ge=0, description="weight of the holistic term; 0 = no discriminator")
    critic_optimiser: Literal["sgd", "adam"] = Field("sgd", description="of the discriminator; Adam with (0.9, 0.99)")

    @model_validator(mode="before")
    @classmethod
    def _weight_of_form(cls, values: Any) -> Any:
        cirkd = isinstance(values, dict) and values.get("form") == "cirkd"
        return filled(values, {"pairwise": 10.0} if cirkd else {})

    @model_validator(mode="after")
    def _idle_pairwise_keys(self) -> SKDConfig:
        refuse_idle(self, {"form", "scale"}, idle=self.pairwise == 0, why="pairwise is 0")
        refuse_idle(self, {"scale"}, idle=self.form == "cirkd", why="form cirkd pools 2 x 2")
        if self.preset == "released" and self.pixel == 0:
            raise ValueError("preset released differs from paper in the pixel-wise term only, and pixel is 0")
        return self


@register("skd")
class SKD(Adversarial):
    """Pixel-wise and pair-wise distillation, and a discriminator that tells the two networks' logits apart.

    Cost: O(B N d): the pair-wise term has 4 to 9 nodes (form cirkd: N / 4 nodes, O(B N d^2) in closed form). The
    discriminator dominates: four passes a step, one of them differentiated twice.
    """

    Config = SKDConfig
    needs = frozenset({"logits", "embedding"})
    config: SKDConfig

    def __init__(self, config: SKDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        require_stride(student.logits, teacher.logits, field="logits", method="skd")
        require_stride(student.embedding, teacher.embedding, field="the embedding", method="skd")

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"pixel", "pairwise", "adversarial"}, weighted."""
        config, terms = self.config, {}
        if config.pixel:
            pixel = kd_loss if config.preset == "paper" else pixelwise_released_loss
            terms["pixel"] = config.pixel * pixel(student.logits, teacher.logits)
        if config.pairwise and config.form == "cirkd":
            terms["pairwise"] = config.pairwise * pairwise_cirkd_loss(student.embedding, teacher.embedding)
        elif config.pairwise:
            terms["pairwise"] = config.pairwise * pairwise_loss(
                student.embedding, teacher.embedding, scale=config.scale
            )
        return terms | self.adversarial_terms(student)
