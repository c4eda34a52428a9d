"""DIST: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536."""

from __future__ import annotations

from typing import Literal

import torch
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


def inter_class_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"], *, temperature: float = 1.0
) -> Float[Tensor, ""]:
    """T^2 (1 - mean over images and positions of Pearson's correlation over classes) of softmax(z / T): equation 6."""
    require_same(student, teacher, channels=True, where="dist: logits of student and teacher")
    rows = student.numel() // student.shape[1]
    return correlation_distance(student, teacher, temperature=temperature, classes=temperature**2 / rows, positions=0)


def intra_class_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c h w"], *, temperature: float = 1.0
) -> Float[Tensor, ""]:
    """T^2 (1 - mean over classes of Pearson's correlation over all positions of the batch): equation 7."""
    require_same(student, teacher, channels=True, where="dist: logits of student and teacher")
    return correlation_distance(
        student, teacher, temperature=temperature, classes=0, positions=temperature**2 / student.shape[1]
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
        """{"inter", "intra", "auxiliary"}, weighted."""
        config = self.config
        terms = self._terms(student.logits, teacher.logits)
        if config.auxiliary and terms and student.auxiliary is not None and teacher.auxiliary is not None:
            found = self._terms(student.auxiliary, teacher.auxiliary).values()
            terms["auxiliary"] = config.auxiliary * torch.stack(list(found)).sum()
        return terms

    def _terms(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        weights = {"inter": self.config.inter, "intra": self.config.intra}
        losses = {"inter": inter_class_loss, "intra": intra_class_loss}
        return {
            name: weight * losses[name](student, teacher, temperature=self.config.temperature)
            for name, weight in weights.items()
            if weight
        }
