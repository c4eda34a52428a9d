"""ICSD: the inter-class similarity term of Mansourian, Ahmadi, Kasaei, "AICSD: Adaptive Inter-Class Similarity
Distillation for Semantic Segmentation", 2023, arXiv 2308.04243, with KD beside it and without adaptive weights.

Preset `released` computes what the authors' code computes; see `icsd_released_loss` and `ICSD`.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from segkd.errors import ConfigError, explain
from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.checks import filled
from segkd.methods.registry import register
from segkd.networks.outputs import Channels, Outputs
from segkd.ops.enlarged_divergence import enlarged_divergence
from segkd.ops.labelled import labelled_cross_entropy
from segkd.ops.spatial import column_overlap_distance, spatial_divergence_distance

Size = tuple[int, int]
EPSILON = 1e-4  # under the row norms of `paper`: 1e-12 would turn rounding noise into a direction
RELEASED_EPSILON = 1e-12


def icsd_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c i j"], *, size: Size | None = None
) -> Float[Tensor, ""]:
    """Mean over images and class pairs of (ICS_s - ICS_t)^2, rows of ICS normalised by max(||row||, 1e-4).

    ICS_ij = KL(p_i || p_j), p_c = softmax over all positions of class c's logits: inter-class similarity, full C x C.
    size: (height, width) to which the logits are brought first, that of the image; default the student's.
    ConfigError for fewer than 3 classes, whose normalised rows are constant.
    """
    _require_classes(student, teacher)
    images, classes = student.shape[:2]
    require_three(classes)
    return spatial_divergence_distance(
        student, teacher, size=size or _size(student), epsilon=EPSILON, scale=1 / (images * classes**2)
    )


def icsd_released_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c i j"], *, size: Size | None = None
) -> Float[Tensor, ""]:
    """What the released code computes under that name; no divergence, and negative.

    Its slips: softmax along image columns instead of over all positions; probabilities where log-probabilities
    belong, sum of p_j (log p_j - p_i); only i <= j, mirrored; one matrix for the batch; the mean over class pairs is
    divided by B once more.
    """
    _require_classes(student, teacher)
    images, classes = student.shape[:2]
    return column_overlap_distance(
        student, teacher, size=size or _size(student), epsilon=RELEASED_EPSILON, scale=1 / (images * classes**2)
    )


def pixel_loss(
    student: Float[Tensor, "b c h w"], teacher: Float[Tensor, "b c i j"], *, size: Size
) -> Float[Tensor, ""]:
    """Mean over images, pixels AND classes of p_t (log p_t - log p_s), T = 1, logits brought to `size` first."""
    _require_classes(student, teacher)
    images, classes = student.shape[:2]
    return enlarged_divergence(student, teacher, size=size, scale=1 / (images * classes * size[0] * size[1]))


def released_task_loss(
    logits: Float[Tensor, "b c h w"], labels: Int[Tensor, "b i j"], *, focal: bool = False
) -> Float[Tensor, ""]:
    """The released code's own task loss: pixel mean of the cross-entropy, divided by B once more.

    In a run, `ICSD.task_weight` brings that 1 / B. focal: its other setting, (1 - exp(-CE))^2 CE / 2 of the MEAN
    cross-entropy, which no published number needs.
    """
    loss = labelled_cross_entropy(logits, labels)
    if focal:
        loss = 0.5 * (1 - (-loss).exp()).square() * loss
    return loss / len(logits)


def require_three(classes: int) -> None:
    """ConfigError where there are too few classes for rows of different directions."""
    if classes < 3:
        raise ConfigError(
            explain(
                "Inter-class similarity needs at least 3 classes: with 2, every normalised row is constant.",
                expected="3 or more classes",
                found=f"{classes} classes",
                where="the data set of this recipe",
                fix="use another method for this data set (kd, cwd, cirkd)",
            )
        )


def _size(x: Tensor) -> Size:
    return x.shape[-2], x.shape[-1]


def _require_classes(student: Tensor, teacher: Tensor) -> None:
    if student.shape[:2] != teacher.shape[:2]:
        raise ConfigError(
            "icsd: expected logits of one batch and equal classes, "
            f"found student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )


class ICSDConfig(MethodConfig):
    """Hyper-parameters of `icsd`."""

    icsd: float = Field(40.0, ge=0, description="weight of the inter-class term; 0 = off; released 9500")
    kd: float = Field(10.0, ge=0, description="weight of element-mean KD at the image's size; 0 = off")

    @model_validator(mode="before")
    @classmethod
    def _weight_of_preset(cls, values: Any) -> Any:
        released = isinstance(values, dict) and values.get("preset") == "released"
        return filled(values, {"icsd": 9500.0} if released else {})


@register("icsd")
class ICSD(Method):
    """Classes are spread over the image, relative to one another, as the teacher's are; logits at the image's size.

    Preset `released` also divides the cross-entropy by the batch size (once, also under a recipe that says so), and
    moves no student weight in epoch 0.

    Cost: O(B N C^2) as matrix products over the N pixels of the image; no enlarged map is kept.
    """

    Config = ICSDConfig
    needs = frozenset({"logits"})
    config: ICSDConfig

    def __init__(self, config: ICSDConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__(config, student, teacher, classes)
        if config.preset == "paper" and config.icsd:
            require_three(classes)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """{"icsd", "kd"}, weighted."""
        config, terms, size = self.config, {}, _size(labels)
        if config.icsd:
            loss = icsd_loss if config.preset == "paper" else icsd_released_loss
            terms["icsd"] = config.icsd * loss(student.logits, teacher.logits, size=size)
        if config.kd:
            terms["kd"] = config.kd * pixel_loss(student.logits, teacher.logits, size=size)
        return terms

    def task_weight(self, progress: Progress, batch: int) -> float:
        """1, or 1 / B in preset `released`."""
        return 1.0 if self.config.preset == "paper" else 1.0 / batch

    def student_moves(self, progress: Progress) -> bool:
        """False in epoch 0 of preset `released`: its optimiser of that epoch holds none of the student's weights."""
        return self.config.preset == "paper" or progress.epoch > 0
