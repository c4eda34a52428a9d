"""Two rules of distances: a student that is the teacher is at the minimum, and equal images count as one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from segkd.methods.base import Method, Progress
from segkd.testing.cases import Case, flat, rebuilt
from segkd.testing.faults import Fault
from segkd.testing.subject import MIDDLE, Step, Subject, far, step


def minimum(subject: Subject) -> Iterator[Fault]:
    """Where the student's maps are the teacher's, a term is least and has no gradient.

    Of terms without parameters of the method's own, and of those whose only parameters are in modules named
    `connector` or `connectors`: 1x1 convolutions and batch norms there are made identities. In evaluation mode.
    """
    subject = Subject(subject.name, subject.config, subject.situation.twins(subject.attention))
    method = _identity(subject.method().double().eval())
    case = subject.case().mapped(torch.Tensor.double, torch.Tensor.double)
    equal = replace(case, student=rebuilt({n: flat(case.teacher).get(n, x) for n, x in flat(case.student).items()}))
    for name in sorted(_parameter_free(subject, method, case)):
        best, near = (_one(method, one, name) for one in (equal, _near(equal)))
        if float(best.terms[name]) > float(near.terms[name]):
            found = f"{float(best.terms[name]):.9g} there, {float(near.terms[name]):.9g} near by"
            yield Fault("minimum", f"{name} least where the student is the teacher", found)
        ours, reference = (sum(float(x.norm()) for x in one.student.values()) for one in (best, near))
        if not ours <= 1e-6 * reference + 1e-12:
            found = f"norm {ours:.3g}, and {reference:.3g} near by"
            yield Fault("minimum", f"no gradient of {name} where the student is the teacher", found)


def _one(method: Method, case: Case, name: str) -> Step:
    return step(copy.deepcopy(method), case, MIDDLE, only=(name,))


def _near(case: Case) -> Case:
    generator = torch.Generator().manual_seed(3)
    return case.mapped(student=lambda x: x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype))


def _connector(name: str) -> bool:
    return any(part in {"connector", "connectors"} for part in name.split("."))


@torch.no_grad()
def _identity(method: Method) -> Method:
    for name, module in method.named_modules():
        if not _connector(name):
            continue
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.in_channels == module.out_channels:
            nn.init.dirac_(module.weight)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            assert module.running_var is not None
            module.running_var.fill_(1 - module.eps)
    return method


def _parameter_free(subject: Subject, method: Method, case: Case) -> set[str]:
    """Terms that other parameters than the connectors' do not change."""
    other = copy.deepcopy(method)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if not _connector(name):
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    before, after = step(copy.deepcopy(method), case).terms, step(other, case).terms
    return {name for name, term in before.items() if not far(term, after[name], 1e-9)}


def batch(subject: Subject) -> Iterator[Fault]:
    """Two equal images give what one gives (preset `paper`): the loss and the weight of the task hide no batch size.

    Of terms that draw nothing at random and remember nothing that changes them.
    """
    if subject.config.preset != "paper":
        return
    one = subject.case(images=1)
    two = replace(one.mapped(_twice, _twice), labels=_twice(one.labels))
    first, second = step(subject.method(), one).terms, step(subject.method(), two).terms
    for name in sorted(_pure(subject, two)):
        if far(first[name], second[name], 1e-4, 1e-7):
            found = f"{float(first[name]):.8g} for one image, {float(second[name]):.8g} for two that are equal"
            yield Fault("batch", f"{name} independent of the batch size", found)
    weights = [subject.method().task_weight(MIDDLE, images) for images in (1, 2)]
    if weights[0] != weights[1]:
        yield Fault("batch", "task_weight independent of the batch size", f"{weights[0]} for 1, {weights[1]} for 2")


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x])


def _pure(subject: Subject, case: Case) -> set[str]:
    """Terms that neither another seed, another iteration at the same share of training, nor a second call changes."""
    method = subject.method()
    twice = Progress(2 * MIDDLE.iteration, 2 * MIDDLE.iterations, 2 * MIDDLE.epoch, 2 * MIDDLE.epochs)
    runs = [step(method, case).terms, step(method, case).terms]
    runs += [step(subject.method(), case, seed=1).terms, step(subject.method(), case, twice).terms]
    return {n for n, term in runs[0].items() if not any(far(term, run[n], 1e-4, 1e-7) for run in runs[1:])}
