"""DIST: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from segkd.errors import ConfigError
from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import refuse_idle, require_stride
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.correlation import correlation_distance
from segkd.ops.shapes import require_same


def dist_loss(
    student: Float[Tensor, "b c h w"],
    teacher: Float[Tensor, "b c h w"],
    *,
    inter: float = 1.0,
    intra: float = 1.0,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """T^2 (inter * (1 - mean corr over classes) + intra * (1 - mean corr over positions)) of softmax(z / T).

    corr: Pearson's correlation of student and teacher. inter (equation 6): at each position among the classes, mean
    over images and positions. intra (equation 7): of each class over all positions of the batch, mean over classes.
    A weight of 0 leaves a part out.
    """
    require_same(student, teacher, channels=True, where="dist: logits of student and teacher")
    classes = student.shape[1]
    return correlation_distance(
        student,
        teacher,
        temperature=temperature,
        classes=inter * temperature**2 * classes / student.numel(),
        positions=intra * temperature**2 / classes,
    )


class DISTConfig(MethodConfig):
    """Hyper-parameters of `dist`."""

    preset: Literal["paper"] = Field("paper", description="dist has one definition")
    inter: float = Field(1.0, ge=0, description="weight beta of the relation between classes; 0 = off")
    intra: float = Field(1.0, ge=0, description="weight gamma of the relation between positions; 0 = off")
    temperature: float = Field(1.0, gt=0, description="T of both")
    auxiliary: float = Field(
        0.4, ge=0, description="factor on the same terms of auxiliary logits, where both networks have them; 0 = off"
    )

    @model_validator(mode="after")
    def _idle_keys(self) -> DISTConfig:
        refuse_idle(self, {"temperature", "auxiliary"}, idle=self.inter == self.intra == 0, why="inter and intra are 0")
        return self


@register("dist")
class DIST(Method):
    """Correlations instead of equality: among the classes at a position, and among the positions of a class."""

    Config = DISTConfig
    needs = frozenset({"logits", "auxiliary"})
    config: DISTConfig

    def __init__(self, config: DISTConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        require_stride(student.logits, teacher.logits, field="logits", method="dist")
        if config.auxiliary and student.auxiliary is not None and teacher.auxiliary is not None:
            require_stride(student.auxiliary, teacher.auxiliary, field="auxiliary logits", method="dist")
        elif config.auxiliary and "auxiliary" in config.model_fields_set:
            raise ConfigError(
                "dist: auxiliary is given, but not both networks have auxiliary logits; remove the key, or set "
                "auxiliary: true for both networks in params.yaml"
            )

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"relations", "auxiliary"}: the two parts together, weighted; the second of auxiliary logits."""
        config = self.config
        if config.inter == config.intra == 0:
            return {}
        weights = {"inter": config.inter, "intra": config.intra, "temperature": config.temperature}
        terms = {"relations": dist_loss(student.logits, teacher.logits, **weights)}
        if config.auxiliary and student.auxiliary is not None and teacher.auxiliary is not None:
            loss = dist_loss(student.auxiliary, teacher.auxiliary, **weights)
            terms["auxiliary"] = config.auxiliary * loss
        return terms
