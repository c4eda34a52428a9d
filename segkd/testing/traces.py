"""What a configuration lets one see of the training, computed no further than two traces need to be told apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch

from segkd.errors import ConfigError
from segkd.methods.base import Method, Progress
from segkd.methods.registry import method_class
from segkd.testing.cases import CLASSES, Case
from segkd.testing.subject import LATER, MIDDLE, START, Subject, critic_step, step

Part = dict[str, Any]
FIRST_STEP = 2  # the number of its part


class Trace:
    """Parts of an observation: optimisers first, then steps at three points of training, then pretraining."""

    def __init__(self, subject: Subject) -> None:
        """ConfigError where the method refuses the configuration or the networks."""
        self._subject, self._known = subject, list[Part]()
        self._method = subject.build()
        self._coming = self._observed()

    def part(self, number: int) -> Part | None:
        """The part of that number; None after the last."""
        while len(self._known) <= number:
            part = next(self._coming, None)
            if part is None:
                return None
            self._known.append(part)
        return self._known[number]

    def _observed(self) -> Iterator[Part]:
        method, case = self._method, self._subject.case()
        yield {"teacher": self._subject.attention} | _optimisers(method) | _pretraining_settings(self._subject)
        for progress in (START, LATER, MIDDLE):
            yield _moods(method, progress)
            yield _stepped(method, case, progress)
            critic = critic_step(method, case, progress)
            yield {name: float(term) for name, term in critic.terms.items()}
        yield _pretraining_terms(self._subject, case)


def _optimisers(method: Method) -> Part:
    found: Part = {"factor": method.factor}
    for one in method.own_optimisers():
        described = (one.kind, one.lr, one.betas, one.momentum, one.weight_decay, one.poly, len(one.parameters))
        found[f"optimiser {one.name}"] = described
    return found


def _moods(method: Method, progress: Progress) -> Part:
    still = (method.student_moves(progress), method.method_moves(progress))
    return {"task": method.task_weight(progress, 2), "still": still}


def _stepped(method: Method, case: Case, progress: Progress) -> Part:
    result = step(method, case, progress)
    found: Part = {name: float(term) for name, term in result.terms.items()}
    found |= {f"gradient {name}": float(slope.norm()) for name, slope in result.student.items()}
    return found | {"moved": sum(bool(slope.any()) for slope in result.own.values())}


def _pretraining_settings(subject: Subject) -> Part:
    module = method_class(subject.name).pretraining(subject.config, *subject.channels, CLASSES)
    if module is None:
        return {}
    return {"pretraining": (module.epochs, module.lr, module.momentum, module.weight_decay)}


def _pretraining_terms(subject: Subject, case: Case) -> Part:
    torch.manual_seed(0)
    module = method_class(subject.name).pretraining(subject.config, *subject.channels, CLASSES)
    return {} if module is None else {name: float(term.detach()) for name, term in module(case.teacher).items()}


def traced(subject: Subject, *, certain: bool) -> Trace | None:
    """The trace of a subject; None where the method refuses it.

    certain: the method is known to take these networks. Where it is not, any error in its first step is a refusal: not
    every method checks before it starts what its networks must have in common.
    """
    try:
        trace = Trace(subject)
        if not certain:
            trace.part(FIRST_STEP)
    except ConfigError:
        return None
    except (RuntimeError, ValueError, LookupError, AttributeError, TypeError):
        if certain:
            raise
        return None
    return trace


def differ(first: Trace, second: Trace) -> bool:
    """Whether two traces differ by more than rounding."""
    for number in itertools.count():
        one, other = first.part(number), second.part(number)
        if one is None or other is None:
            return one is not other
        if set(one) != set(other) or not all(_close(one[name], other[name]) for name in one):
            return True
    raise AssertionError("unreachable")


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)
