"""A method under test: how it is built, and what one step of it gives."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from segkd.errors import ConfigError
from segkd.methods.base import Method, MethodConfig, Progress
from segkd.methods.registry import method_class
from segkd.networks.outputs import Channels
from segkd.testing.cases import CLASSES, SITUATIONS, Attention, Case, Situation, draw_case, flat

START = Progress(iteration=0, iterations=40, epoch=0, epochs=4)
LATER = Progress(iteration=13, iterations=40, epoch=1, epochs=4)
MIDDLE = Progress(iteration=23, iterations=40, epoch=2, epochs=4)


@dataclass(frozen=True)
class Subject:
    """A registered method with a configuration, between two networks."""

    name: str
    config: MethodConfig
    situation: Situation
    _kept: dict[str, Method] = field(default_factory=dict, compare=False, repr=False)

    @property
    def attention(self) -> Attention:
        """The network variant that the teacher must be."""
        return method_class(self.name).teacher_variant(self.config)

    @cached_property
    def channels(self) -> tuple[Channels, Channels]:
        """Student's and teacher's."""
        return self.situation.channels(self.attention)

    def build(self, seed: int = 0) -> Method:
        """A new method in training mode; what it adopts from pretraining is the same whatever the seed."""
        cls = method_class(self.name)
        torch.manual_seed(seed)
        method = cls(self.config, *self.channels, CLASSES)
        torch.manual_seed(0)
        pretraining = cls.pretraining(self.config, *self.channels, CLASSES)
        if pretraining is not None:
            method.adopt(pretraining)
        return method.train()

    def method(self) -> Method:
        """The method as it is at the start: a copy, since steps change it."""
        if "start" not in self._kept:
            self._kept["start"] = self.build()
        return copy.deepcopy(self._kept["start"])

    def case(self, *, images: int = 2, size: tuple[int, int] = (32, 32), seed: int = 0) -> Case:
        """Drawn inputs."""
        return draw_case(self.channels, images=images, size=size, seed=seed)


def fitting(name: str, config: MethodConfig) -> Subject:
    """The method between the first pair of networks that it takes; ConfigError with all its refusals otherwise."""
    refusals = []
    for situation in SITUATIONS:
        subject = Subject(name, config, situation)
        try:
            subject.method()
        except ConfigError as error:
            refusals.append(f"{situation.name}: {error}")
        else:
            return subject
    raise ConfigError("\n".join([f"method {name!r} takes none of the pairs of networks it is checked with", *refusals]))


@dataclass(frozen=True)
class Step:
    """One step's loss terms and gradients; the latter by the names of `flat`, zero where a map is not read."""

    terms: dict[str, Tensor]
    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    own: dict[str, Tensor]

    @property
    def finite(self) -> bool:
        """Whether every term and gradient is."""
        every = [*self.terms.values(), *self.student.values(), *self.own.values()]
        return all(bool(tensor.isfinite().all()) for tensor in every)


def step(
    method: Method, case: Case, progress: Progress = MIDDLE, *, seed: int = 0, only: Iterable[str] | None = None
) -> Step:
    """Terms of one step, and gradients of their sum (of the terms named in `only`). Changes the method's state."""
    case = case.mapped(_leaf, _leaf)
    torch.manual_seed(seed)
    terms = method(case.student, case.teacher, case.labels, progress)
    student, teacher = flat(case.student), flat(case.teacher)
    own = {name: p for name, p in method.named_parameters() if p.requires_grad}
    chosen = [term for name, term in terms.items() if (only is None or name in only) and term.requires_grad]
    wanted = [*student.values(), *teacher.values(), *own.values()]
    if chosen:
        total = torch.stack([term.float() if term.dtype != torch.float64 else term for term in chosen]).sum()
        slopes = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    else:
        slopes = tuple(torch.zeros_like(x) for x in wanted)
    coming = iter(slopes)
    parts = [{name: next(coming) for name in side} for side in (student, teacher, own)]
    return Step({name: term.detach() for name, term in terms.items()}, *parts)


def critic_step(method: Method, case: Case, progress: Progress = MIDDLE, *, seed: int = 0) -> Step:
    """The same of the method's critic terms; gradients to its own optimisers' parameters only."""
    case = case.mapped(torch.Tensor.detach, torch.Tensor.detach)
    torch.manual_seed(seed)
    terms = method.critic(case.student, case.teacher, case.labels, progress)
    if not terms:
        return Step({}, {}, {}, {})
    parameters = own_parameters(method)
    total = torch.stack(list(terms.values())).sum()
    slopes = torch.autograd.grad(total, list(parameters.values()), allow_unused=True, materialize_grads=True)
    return Step(
        {name: term.detach() for name, term in terms.items()}, {}, {}, dict(zip(parameters, slopes, strict=True))
    )


def own_parameters(method: Method) -> dict[str, nn.Parameter]:
    """Parameters of the method's own optimisers."""
    return {f"{one.name}.{i}": p for one in method.own_optimisers() for i, p in enumerate(one.parameters)}


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def unequal(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """Names under which two sets of tensors differ in a bit, or that only one of them has."""
    names = sorted(set(first) | set(second))
    return [n for n in names if n not in first or n not in second or not torch.equal(first[n], second[n])]


def far(first: Tensor, second: Tensor, relative: float, absolute: float = 0.0) -> bool:
    """Whether two tensors differ, in norm, by more than a share of the first's norm."""
    a, b = first.double(), second.double()
    return not bool((a - b).norm() <= relative * a.norm() + absolute)
