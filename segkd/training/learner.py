"""What is trained: a student (with or without a teacher), or a module on top of a frozen teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from segkd.config.recipe import Recipe
from segkd.methods.base import Method, OwnOptimiser, Pretraining, Progress
from segkd.networks.build import Network
from segkd.networks.outputs import Outputs
from segkd.networks.resize import upsample
from segkd.ops.labelled import labelled_cross_entropy
from segkd.ops.processes import divisor, processes

IGNORE = 255
Groups = Mapping[str, tuple[Iterable[nn.Parameter], float]]


class Learner(Protocol):
    """What the training loop needs to know; it knows no method, network or paper by name."""

    @property
    def result(self) -> nn.Module:
        """The module whose weights are the result."""
        ...

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Everything that changes while training, by name: saved and restored."""
        ...

    def compile(self) -> None:
        """Compile the networks' forward passes, in place: names and weights stay."""
        ...

    def groups(self) -> Groups:
        """Parameter groups: name -> (parameters, factor on the learning rate)."""
        ...

    def still(self, progress: Progress) -> set[str]:
        """Names of the groups that stand still at this point."""
        ...

    def own_optimisers(self) -> Iterable[OwnOptimiser]:
        """Optimisers beside the main one."""
        ...

    def terms(self, images: Tensor, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Named, weighted loss terms of a batch; images (B, 3, h, w) normalised, labels (B, h, w)."""
        ...

    def critic(self, progress: Progress) -> dict[str, Tensor]:
        """Terms for the own optimisers, on the batch that `terms` saw last."""
        ...


def cross_entropy(
    logits: Float[Tensor, "b c h w"], labels: Int[Tensor, "b H W"], *, ignore: int = IGNORE
) -> Float[Tensor, ""]:
    """Pixel mean of the cross-entropy over labelled pixels, logits brought to the labels' size (bilinear, corners).

    In float32 also under autocast. Where every pixel is ignored: 0 with zero gradient, instead of 0 / 0.
    """
    height, width = labels.shape[-2:]
    if torch.are_deterministic_algorithms_enabled():  # CUDA has no deterministic kernel for the library's
        return labelled_cross_entropy(logits.float(), labels, ignore=ignore)
    logits = upsample(logits.float(), (height, width))
    total = F.cross_entropy(logits, labels, ignore_index=ignore, reduction="sum")
    return total / divisor((labels != ignore).sum())


def freeze(module: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients: what a teacher is."""
    return module.eval().requires_grad_(False)


def as_while_training(teacher: nn.Module) -> nn.Module:
    """Train mode that changes nothing in the module: dropout acts, batch norms use the batch and remember nothing.

    What a teacher left in train mode computes (recipe key `teacher_mode: train`).
    """
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    return teacher.train()


class StudentLearner:
    """A network trained by cross-entropy, and by a method's terms where it has a teacher."""

    def __init__(self, network: Network, recipe: Recipe, method: Method | None = None, teacher: Network | None = None):
        self.network, self.recipe, self.method, self.teacher = network, recipe, method, teacher
        if teacher is not None and recipe.teacher_mode == "train":
            as_while_training(teacher)
        self._seen: tuple[Outputs, Outputs, Tensor] | None = None
        self._critics = method is not None and any(True for _ in method.own_optimisers())

    @property
    def result(self) -> nn.Module:
        """The student network."""
        return self.network

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The student, and the method with its banks, connectors and discriminators; never the teacher."""
        return {"network": self.network} | ({"method": self.method} if self.method is not None else {})

    def compile(self) -> None:
        """Student and teacher; a method's own kernels are written by hand."""
        self.network.compile()
        if self.teacher is not None:
            self.teacher.compile()

    def groups(self) -> Groups:
        """Backbone, head at the recipe's factor, the method's own parameters at the method's factor."""
        groups: dict[str, tuple[Iterable[nn.Parameter], float]] = {
            "backbone": (self.network.backbone_parameters(), 1.0),
            "head": (self.network.head_parameters(), self.recipe.optimiser.head_factor),
        }
        if self.method is not None:
            elsewhere = {id(p) for own in self.method.own_optimisers() for p in own.parameters}
            mine = [p for p in self.method.parameters() if id(p) not in elsewhere]
            groups["method"] = (mine, self.method.factor)
        return groups

    def still(self, progress: Progress) -> set[str]:
        """Groups that the recipe or the method holds still (quirks of released code)."""
        if self.method is None:
            return set()
        moves = progress.epoch >= self.recipe.still_epochs and self.method.student_moves(progress)
        still = set() if moves else {"backbone", "head"}
        return still if self.method.method_moves(progress) else still | {"method"}

    def own_optimisers(self) -> Iterable[OwnOptimiser]:
        """Those of the method."""
        return () if self.method is None else self.method.own_optimisers()

    def terms(self, images: Tensor, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """`task` (cross-entropy), `auxiliary` where the network has that head, and the method's terms."""
        outputs = self.network(images)
        weight = self._task_weight(progress, len(images) * processes())
        terms = {"task": weight * cross_entropy(outputs.logits, labels)}
        if outputs.auxiliary is not None and self.recipe.auxiliary_weight > 0:
            scale = weight * self.recipe.auxiliary_weight
            terms["auxiliary"] = scale * cross_entropy(outputs.auxiliary, labels)
        if self.method is not None and self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(images)
            terms |= self.method(outputs, taught, labels, progress)
            self._seen = (outputs, taught, labels) if self._critics else None
        return terms

    def _task_weight(self, progress: Progress, images: int) -> float:
        """Factor on the cross-entropy; over B once, whether recipe, method or both say so."""
        divided = self.recipe.cross_entropy_per_image
        share = 1.0 if self.method is None else self.method.task_weight(progress, 1 if divided else images)
        return share / images if divided else share

    def critic(self, progress: Progress) -> dict[str, Tensor]:
        """The method's critic terms on the last batch."""
        if self.method is None or self._seen is None:
            return {}
        student, teacher, labels = self._seen
        self._seen = None
        return self.method.critic(student, teacher, labels, progress)


class PretrainingLearner:
    """A method's module trained on the frozen teacher's outputs (KA's autoencoder)."""

    def __init__(self, module: Pretraining, teacher: Network):
        self.module, self.teacher = module, teacher

    @property
    def result(self) -> nn.Module:
        """The module itself."""
        return self.module

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The module itself."""
        return {"pretraining": self.module}

    def compile(self) -> None:
        """The module and the teacher."""
        self.module.compile()
        self.teacher.compile()

    def groups(self) -> Groups:
        """One group."""
        return {"pretraining": (self.module.parameters(), 1.0)}

    def still(self, progress: Progress) -> set[str]:
        """Nothing stands still."""
        return set()

    def own_optimisers(self) -> Iterable[OwnOptimiser]:
        """None."""
        return ()

    def terms(self, images: Tensor, labels: Tensor, progress: Progress) -> dict[str, Tensor]:
        """The module's terms on the teacher's outputs; labels are not used."""
        with torch.no_grad():
            taught = self.teacher(images)
        return self.module(taught)

    def critic(self, progress: Progress) -> dict[str, Tensor]:
        """None."""
        return {}
