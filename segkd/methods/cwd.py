"""CWD: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, arXiv 2011.13256.

Preset `released` divides the feature term by the student's channels, as the code in CIRKD's repository does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from segkd.errors import ConfigError
from segkd.methods.adversarial import Adversarial, AdversarialConfig
from segkd.methods.base import Progress
from segkd.methods.checks import refuse_idle, require_stride
from segkd.methods.kd import kd_loss
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.divergence import projected_divergence, softmax_divergence
from segkd.ops.precision import widen
from segkd.ops.shapes import require_same


def cwd_loss(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b d h w"],
    weight: Float[Tensor, "d c 1 1"] | None = None,
    *,
    temperature: float = 4.0,
    divide_by: Literal["teacher", "student"] = "teacher",
) -> Float[Tensor, ""]:
    """T^2 / (B * channels) * sum of KL(softmax over positions of y_t / T || same of y_s / T), nats (equation 4).

    With `weight`, y_s = conv1x1(student; weight). `channels` are those of the compared maps (the teacher's), or, as in
    released code, the student's.
    """
    require_same(student, teacher, channels=weight is None, where="cwd: maps of student and teacher")
    channels = teacher.shape[1] if divide_by == "teacher" else student.shape[1]
    scale = temperature**2 / (student.shape[0] * channels)
    if weight is None:
        return softmax_divergence(student, teacher, over="positions", temperature=temperature, scale=scale)
    return projected_divergence(student, weight, teacher, temperature=temperature, scale=scale)


Norm = Literal["channel", "spatial", "channel_mean", "none"]


def cwd_variant_loss(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b d h w"],
    weight: Float[Tensor, "d c 1 1"] | None = None,
    *,
    norm: Norm = "channel",
    divergence: Literal["kl", "mse"] = "kl",
    temperature: float = 4.0,
) -> Float[Tensor, ""]:
    """The other settings of the released code (TorchDistiller, CIRKD), which no published number needs.

    norm: softmax over positions ("channel"), over channels ("spatial"), mean over positions ("channel_mean"), or none,
    which compares image 0 only. divergence: kl (distributions only) or a sum of squares, which takes no temperature.
    Divided by B * C_s, or by B * H * W for "spatial" and "none".
    """
    projected = student if weight is None else functional.conv2d(widen(student), widen(weight))
    require_same(projected, teacher, channels=True, where="cwd: maps of student and teacher")
    if divergence == "kl":
        if norm not in ("channel", "spatial"):
            raise ConfigError(f"cwd: a KL divergence needs distributions, but norm is {norm!r}; use divergence mse")
        if norm == "spatial":
            return kd_loss(projected, teacher, temperature=temperature)
        return cwd_loss(student, teacher, weight, temperature=temperature, divide_by="student")
    normalise: dict[str, Callable[[Tensor], Tensor]] = {
        "channel": lambda x: x.flatten(2).softmax(2),
        "spatial": lambda x: x.softmax(1),
        "channel_mean": lambda x: x.flatten(2).mean(2),
        "none": lambda x: x[0],
    }
    error = normalise[norm](widen(projected)) - normalise[norm](widen(teacher.detach()))
    per_image = student.shape[1] if norm.startswith("channel") else student.shape[2:].numel()
    return error.square().sum() / (student.shape[0] * per_image)


class CWDConfig(AdversarialConfig):
    """Hyper-parameters of `cwd`."""

    logits: float = Field(3.0, ge=0, description="weight of the term on logits; 0 = off")
    feature: float = Field(50.0, ge=0, description="weight of the term on the embedding; 0 = off")
    temperature: float = Field(4.0, gt=0, description="T of both terms")
    kd: float = Field(0.0, ge=0, description="weight of kd (T 1, pixel mean) beside them; 0 = off (CIRKD's tables: 1)")

    @model_validator(mode="after")
    def _idle_cwd_keys(self) -> CWDConfig:  # another name than the base's, which would be overridden
        off = self.logits == 0 and self.feature == 0
        refuse_idle(self, {"temperature"}, idle=off, why="logits and feature are 0")
        if self.preset == "released" and self.feature == 0:
            raise ValueError("preset released differs from paper in the feature term only, and feature is 0")
        return self


@register("cwd")
class CWD(Adversarial):
    """Channel by channel, the student attends to the positions that the teacher attends to.

    Cost: O(B N C) on logits; O(B N d_s d_t) on the embedding, for its 1x1 convolution.
    """

    Config = CWDConfig
    needs = frozenset({"logits", "embedding"})
    config: CWDConfig

    def __init__(self, config: CWDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        require_stride(student.logits, teacher.logits, field="logits", method="cwd")
        require_stride(student.embedding, teacher.embedding, field="the embedding", method="cwd")
        if config.feature:
            self.connector = nn.Conv2d(student.embedding.channels, teacher.embedding.channels, 1, bias=False)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"logits", "feature", "kd", "adversarial"}, weighted."""
        config, terms = self.config, {}
        if config.logits:
            loss = cwd_loss(student.logits, teacher.logits, temperature=config.temperature)
            terms["logits"] = config.logits * loss
        if config.feature:
            terms["feature"] = config.feature * cwd_loss(
                student.embedding,
                teacher.embedding,
                self.connector.weight,
                temperature=config.temperature,
                divide_by="teacher" if config.preset == "paper" else "student",
            )
        if config.kd:
            terms["kd"] = config.kd * kd_loss(student.logits, teacher.logits)
        return terms | self.adversarial_terms(student)
