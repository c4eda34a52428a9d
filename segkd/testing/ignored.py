"""The rule of ignored pixels, for the terms that use labels: found by giving a method other labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from segkd.testing.cases import IGNORE, SIZE, Case, draw_labels, flat, rebuilt
from segkd.testing.faults import Fault
from segkd.testing.subject import Step, Subject, far, step

BORDER = SIZE // 2  # columns left of it are ignored


def labelled_terms(subject: Subject) -> set[str]:
    """Names of the terms whose value the labels change."""
    case = subject.case()
    found = [
        step(subject.method(), case.labelled(draw_labels(2, (SIZE, SIZE), torch.Generator().manual_seed(s)))).terms
        for s in (1, 2)
    ]
    return {name for name, term in found[0].items() if far(term, found[1][name], 1e-6, 1e-12)}


def ignored(subject: Subject) -> Iterator[Fault]:
    """Terms that use labels do not see ignored pixels (preset `paper`), and are 0-gradient where all are ignored."""
    used = labelled_terms(subject)
    if not used:
        return
    yield from _all_ignored(subject, used)
    if subject.config.preset == "paper":
        yield from _half_ignored(subject, used)


def _all_ignored(subject: Subject, used: set[str]) -> Iterator[Fault]:
    case = subject.case()
    result = step(subject.method(), case.labelled(torch.full_like(case.labels, IGNORE)), only=used)
    for name in sorted(used):
        if not result.terms[name].isfinite():
            yield Fault("ignored", f"{name} finite where all pixels are ignored", str(float(result.terms[name])))
    for name, slope in result.student.items():
        if bool(slope.ne(0).any()):  # not-a-number is not 0 either
            yield Fault("ignored", "no gradient where all pixels are ignored", f"one to {name}")


def _half_ignored(subject: Subject, used: set[str]) -> Iterator[Fault]:
    """Maps at ignored positions are drawn anew, one position away from the border, where resizing may mix both."""
    case = subject.case()
    labels = case.labels.clone()
    labels[:, :, :BORDER] = IGNORE
    runs: list[Step] = []
    for seed in (0, 1):
        method = subject.method().eval()  # the statistics of batch norms are of all pixels
        runs.append(step(method, _redrawn(case.labelled(labels), seed), only=used))
    for name in sorted(used):
        first, second = runs[0].terms[name], runs[1].terms[name]
        if far(first, second, 1e-5, 1e-9):
            found = f"{float(first):.8g} and {float(second):.8g} for maps that differ there"
            yield Fault("ignored", f"{name} independent of what is at ignored pixels", found)
    for name, slope in runs[0].student.items():
        hidden = slope[..., : _hidden(slope)]
        if bool(hidden.abs().amax() > 1e-6 * slope.abs().amax()) if hidden.numel() else False:
            yield Fault("ignored", "no gradient at ignored pixels", f"one to {name}")


def _hidden(x: Tensor) -> int:
    """Columns of a map that lie within the ignored part, and not at its border."""
    return max(0, x.shape[-1] * BORDER // SIZE - 1)


def _redrawn(case: Case, seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., : _hidden(x)] = torch.randn(x[..., : _hidden(x)].shape, generator=generator)
        return x

    student, teacher = (rebuilt({n: change(x) for n, x in flat(side).items()}) for side in (case.student, case.teacher))
    return Case(student, teacher, case.labels)
