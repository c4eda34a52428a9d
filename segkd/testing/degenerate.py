"""The rule of degenerate inputs: classes absent, nothing labelled, tiny, dead and constant maps, one image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from segkd.testing.cases import IGNORE, Case
from segkd.testing.faults import Fault
from segkd.testing.subject import MIDDLE, Subject, critic_step, step


def _dead(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], 1)


def degenerate_cases(subject: Subject) -> dict[str, Case]:
    """Every degenerate case by name."""
    case = subject.case()
    return {
        "a class absent": case.labelled(case.labels.where(case.labels != 0, 1)),
        "one class only": case.labelled(torch.zeros_like(case.labels)),
        "all ignored": case.labelled(torch.full_like(case.labels, IGNORE)),
        "one image all ignored": case.labelled(torch.cat([case.labels[:1], torch.full_like(case.labels[1:], IGNORE)])),
        "maps of 1 x 1": subject.case(size=(2, 2)),
        "one image": subject.case(images=1),
        "one image, maps of 1 x 1": subject.case(images=1, size=(2, 2)),
        "dead channel of the student": case.mapped(student=_dead),
        "dead channel of the teacher": case.mapped(teacher=_dead),
        "constant maps of the student": case.mapped(student=torch.ones_like),
        "constant maps of both": case.mapped(torch.ones_like, torch.ones_like),
        "zero maps of the student": case.mapped(student=torch.zeros_like),
        "zero maps of the teacher": case.mapped(teacher=torch.zeros_like),
    }


def degenerate(subject: Subject) -> Iterator[Fault]:
    """Finite terms and gradients, the critic's too, in every degenerate case."""
    for name, case in degenerate_cases(subject).items():
        fault = infinite(subject, case, name)
        if fault is not None:
            yield fault


def infinite(subject: Subject, case: Case, name: str) -> Fault | None:
    """The fault where a step on this case raises, or gives a term or gradient that is not finite."""
    method = subject.method()
    try:
        steps = (step(method, case, MIDDLE), critic_step(method, case, MIDDLE))
    except (RuntimeError, ValueError, ArithmeticError, IndexError) as error:
        return Fault("degenerate", f"{name}: finite loss and gradient", f"{type(error).__name__}: {error}")
    for one in steps:
        if not one.finite:
            values = {key: float(term) for key, term in one.terms.items()}
            return Fault("degenerate", f"{name}: finite loss and gradient", f"terms {values}, or their gradients")
    return None
