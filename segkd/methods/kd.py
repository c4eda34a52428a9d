"""KD: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531, per pixel."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from segkd.errors import ConfigError
from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import filled, refuse_idle, require_enlarging, require_stride
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.divergence import softmax_divergence
from segkd.ops.enlarged_divergence import enlarged_divergence
from segkd.ops.shapes import bilinear, require_same

Reduction = Literal["pixel", "element"]


def kd_loss(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c h w"],
    *,
    temperature: float = 1.0,
    reduction: Reduction = "pixel",
) -> Float[Tensor, ""]:
    """KL(softmax(z_t / T) || softmax(z_s / T)) over the classes, of logits, nats.

    "pixel": T^2 * mean over images and positions (Hinton et al., section 2; CIRKD's form).
    "element": mean over images, positions AND classes, no T^2 (the form of AICSD and IFVD).
    Ignored pixels are included: no label is used. Maps of different shape: ConfigError.
    """
    require_same(student, teacher, channels=True, where="kd: logits of student and teacher")
    rows = student.numel() // student.shape[1]
    scale = temperature**2 / rows if reduction == "pixel" else 1 / student.numel()
    return softmax_divergence(student, teacher, over="channels", temperature=temperature, scale=scale)


def enlarged_kd_loss(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c i j"],
    *,
    size: tuple[int, int],
    temperature: float = 1.0,
    reduction: Reduction = "pixel",
) -> Float[Tensor, ""]:
    """`kd_loss` of logits that are both brought to `size` first, bilinearly (align_corners); no enlarged map is kept.

    The maps may differ in size, not in images or classes. Dividing by a temperature commutes with the enlarging.
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ConfigError(
            "kd: expected logits of one batch and equal classes, "
            f"found student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )
    images, classes = student.shape[:2]
    rows = images * size[0] * size[1]
    scale = temperature**2 / rows if reduction == "pixel" else 1 / (rows * classes)
    return enlarged_divergence(student / temperature, teacher / temperature, size=size, scale=scale)


class KDConfig(MethodConfig):
    """Hyper-parameters of `kd`."""

    preset: Literal["paper"] = Field("paper", description="kd has one definition")
    weight: float = Field(1.0, ge=0, description="of the term; default 1 for reduction pixel, 10 for element")
    temperature: float = Field(1.0, gt=0, description="T, softens both distributions")
    reduction: Reduction = Field("pixel", description="pixel: T^2 * mean over pixels; element: also / classes, no T^2")
    resize: Literal["refuse", "teacher", "image"] = Field(
        "refuse",
        description="teacher: student logits are brought to the teacher's larger map, bilinearly (KA's comparison); "
        "image: both to the image's size (AICSD's comparison)",
    )

    @model_validator(mode="before")
    @classmethod
    def _weight_of_reduction(cls, values: Any) -> Any:
        element = isinstance(values, dict) and values.get("reduction") == "element"
        return filled(values, {"weight": 10.0} if element else {})

    @model_validator(mode="after")
    def _idle_keys(self) -> KDConfig:
        refuse_idle(self, {"temperature", "reduction", "resize"}, idle=self.weight == 0, why="weight is 0")
        return self


@register("kd")
class KD(Method):
    """Pixel-wise distillation of class probabilities, logits at head stride."""

    Config = KDConfig
    needs = frozenset({"logits"})
    config: KDConfig

    def __init__(self, config: KDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        if config.resize == "refuse":
            require_stride(
                student.logits, teacher.logits, field="logits", method="kd", fix="set resize: teacher for this method"
            )
        elif config.resize == "teacher":
            require_enlarging(student.logits, teacher.logits, field="logits", method="kd")

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"kd": weight * kd_loss}."""
        config = self.config
        if config.weight == 0:
            return {}
        ours, theirs = student.logits, teacher.logits
        loss = kd_loss
        if config.resize == "teacher":
            ours = bilinear(ours, (theirs.shape[-2], theirs.shape[-1]))
        elif config.resize == "image":
            loss = partial(enlarged_kd_loss, size=(labels.shape[-2], labels.shape[-1]))
        value = loss(ours, theirs, temperature=config.temperature, reduction=config.reduction)
        return {"kd": config.weight * value}
