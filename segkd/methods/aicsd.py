"""AICSD: Mansourian, Ahmadi, Kasaei, "AICSD: Adaptive Inter-Class Similarity Distillation for Semantic Segmentation",
2023, arXiv 2308.04243: the terms of `icsd` under adaptive loss weighting (ALW).
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from segkd.methods.base import Progress
from segkd.methods.checks import refuse_idle
from segkd.methods.icsd import ICSD, ICSDConfig
from segkd.methods.registry import register
from segkd.networks.outputs import Outputs

Count = Literal["iteration", "epoch"]


def alw_share(progress: Progress, count: Count = "iteration") -> float:
    """alpha in [0, 1): the part of training that is done, by iterations or by whole epochs, counted from 0."""
    return progress.fraction if count == "iteration" else progress.epoch / progress.epochs


def alw_released_share(progress: Progress, epochs: int = 120) -> float:
    """alpha of the released code: epoch / 120 whatever the run's length, so above 1 from epoch 121 on."""
    return progress.epoch / epochs


def alw_loss(
    task: Float[Tensor, "*shape"], icsd: Float[Tensor, "*shape"], kd: Float[Tensor, "*shape"], share: float
) -> Float[Tensor, "*shape"]:
    """share (task + icsd) + (1 - share) kd, each already weighted: KD leads at first, labels and classes at last."""
    return share * (task + icsd) + (1 - share) * kd


class AICSDConfig(ICSDConfig):
    """Hyper-parameters of `aicsd`."""

    count: Count = Field(
        "iteration", description="what alpha counts: iterations, or whole epochs (for runs whose length is in epochs)"
    )
    epochs: int = Field(120, ge=1, description="preset released: the number of epochs that alpha is divided by")

    @model_validator(mode="after")
    def _idle_keys(self) -> AICSDConfig:
        paper = self.preset == "paper"
        refuse_idle(self, {"epochs"}, idle=paper, why="preset paper divides by the length of the run")
        refuse_idle(self, {"count"}, idle=not paper, why="preset released counts epochs")
        return self


@register("aicsd")
class AICSD(ICSD):
    """`icsd` with ALW: alpha on cross-entropy and ICSD, 1 - alpha on KD; alpha grows from 0 with training.

    At the very start only KD acts. Preset `released` divides the epoch by 120; with its epoch 0, in which no student
    weight moves, a run of one epoch would teach nothing.

    Cost: that of `icsd`.
    """

    Config = AICSDConfig
    config: AICSDConfig

    def share(self, progress: Progress) -> float:
        """alpha at this point of training."""
        if self.config.preset == "released":
            return alw_released_share(progress, self.config.epochs)
        return alw_share(progress, self.config.count)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"icsd", "kd"}, weighted by their weights and by alpha and 1 - alpha."""
        share = self.share(progress)
        factors = {"icsd": share, "kd": 1 - share}
        terms = super().forward(student, teacher, labels, progress)
        return {name: factors[name] * term for name, term in terms.items()}

    def task_weight(self, progress: Progress, batch: int) -> float:
        """alpha, over B in preset `released`."""
        return self.share(progress) * super().task_weight(progress, batch)
