"""What a distillation method is: a module that turns two networks' outputs into named loss terms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from segkd.config.base import Closed
from segkd.networks.outputs import Channels, Outputs


class MethodConfig(Closed):
    """Base of every method's hyper-parameters. `preset` chooses defaults: the paper's or the released code's."""

    preset: Literal["paper", "released"] = "paper"


@dataclass(frozen=True)
class Progress:
    """Where training stands; `iteration` and `epoch` count from 0."""

    iteration: int
    iterations: int
    epoch: int
    epochs: int

    @property
    def fraction(self) -> float:
        """iteration / iterations, in [0, 1)."""
        return self.iteration / self.iterations


@dataclass(frozen=True)
class OwnOptimiser:
    """Parameters that a method trains by a loss of its own (a discriminator), apart from the student's update."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    kind: Literal["sgd", "adam"] = "adam"
    lr: float = 4e-4
    betas: tuple[float, float] = (0.9, 0.99)
    momentum: float = 0.9
    weight_decay: float = 0.0
    poly: bool = True


class Pretraining(nn.Module):
    """A module trained on the frozen teacher before any student (KA's autoencoder): a step of its own in the DAG.

    `forward(teacher)` returns named, weighted loss terms; the method takes what it needs from it by `Method.adopt`.
    """

    epochs: float = 1.0
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def forward(self, teacher: Outputs) -> dict[str, Tensor]:
        """Named loss terms on one batch of teacher outputs."""
        raise NotImplementedError


class Method(nn.Module):
    """How a student learns from a teacher. Subclasses set `Config`, `needs` and `forward`; the rest has defaults.

    Parameters and buffers registered on the module are trained with the student, saved with its training state and
    thrown away at inference. `factor` multiplies the recipe's learning rate for them.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    needs: ClassVar[frozenset[str]] = frozenset({"logits"})  # fields of Outputs that are read, for checks and docs
    teacher_attention: ClassVar[Literal["none", "cbam"]] = (
        "none"  # network variant that the teacher must have been trained as
    )
    factor: ClassVar[float] = 1.0

    def __init__(self, config: MethodConfig, student: Channels, teacher: Channels, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Named, weighted scalar terms. labels: (B, H, W) int64 at input size, 255 = ignored."""
        raise NotImplementedError

    def task_weight(self, progress: Progress, batch: int) -> float:
        """Factor on the student's own cross-entropy (AICSD's ALW; 1/B in some released code)."""
        return 1.0

    def student_moves(self, progress: Progress) -> bool:
        """False while the student's weights stand still (epoch 0 of some released code)."""
        return True

    def method_moves(self, progress: Progress) -> bool:
        """False while the method's own parameters stand still (connectors after epoch 0 in some released code)."""
        return True

    def own_optimisers(self) -> Iterable[OwnOptimiser]:
        """Optimisers for parameters with a loss of their own; those are left out of the student's update."""
        return ()

    def critic(self, student: Outputs, teacher: Outputs, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Terms that train `own_optimisers`, computed after the student's update on detached outputs."""
        return {}

    @classmethod
    def teacher_variant(cls, config: MethodConfig) -> Literal["none", "cbam"]:
        """Network variant that the teacher must have been trained as, where that depends on the preset."""
        return cls.teacher_attention

    @classmethod
    def pretraining(
        cls, config: MethodConfig, student: Channels, teacher: Channels, classes: int
    ) -> Pretraining | None:
        """The module to train on the teacher beforehand, or None."""
        return None

    def adopt(self, pretrained: Pretraining) -> None:
        """Take over what pretraining made, frozen."""
        raise NotImplementedError
