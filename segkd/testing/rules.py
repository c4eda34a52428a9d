"""The rules, each a function from a subject to the faults that it finds. `RULES` names them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from segkd.networks.outputs import Outputs
from segkd.testing.cases import SIZE, draw_labels, flat, mapped
from segkd.testing.degenerate import degenerate
from segkd.testing.faults import Fault
from segkd.testing.ignored import ignored
from segkd.testing.keys import keys
from segkd.testing.minimum import batch, minimum
from segkd.testing.subject import (
    LATER,
    MIDDLE,
    START,
    Step,
    Subject,
    critic_step,
    far,
    own_parameters,
    state,
    step,
    unequal,
)

Rule = Callable[[Subject], Iterator[Fault]]


def alone(subject: Subject) -> Iterator[Fault]:
    """One process and no process group: named scalar terms, finite, float32 or wider, at every point of training."""
    method, case = subject.method(), subject.case()
    for progress in (START, MIDDLE):
        result = step(method, case, progress)
        critic = critic_step(method, case, progress)
        for name, term in (result.terms | critic.terms).items():
            if term.dim() or term.dtype not in (torch.float32, torch.float64) or not term.isfinite():
                found = f"{name}: shape {tuple(term.shape)}, {term.dtype}, {term.flatten()[:3].tolist()}"
                yield Fault("alone", "finite scalars in float32 or wider", found)
        if not result.terms:
            yield Fault("alone", "at least one loss term", f"none at iteration {progress.iteration}")
    if dist.is_available() and dist.is_initialized():
        yield Fault("alone", "no process group with one process", "the method has started one")


def teacher(subject: Subject) -> Iterator[Fault]:
    """The teacher's weights, statistics and outputs, and the labels, keep every bit; no gradient reaches them."""
    torch.manual_seed(0)
    ours, theirs = subject.situation.networks(subject.attention)
    theirs.eval().requires_grad_(False)
    images = torch.randn(2, 3, SIZE, SIZE)
    outputs, method = ours.train()(images), subject.method()
    with torch.no_grad():
        taught = mapped(theirs(images), lambda x: x.clone())
    labels = draw_labels(2, (SIZE, SIZE), torch.Generator().manual_seed(0))
    leaves = mapped(taught, lambda x: x.clone().requires_grad_())
    kept = {"teacher": state(theirs), "teacher outputs": _copies(taught), "student outputs": _copies(outputs)}
    kept["labels"] = {"labels": labels.clone()}
    terms = method(outputs, leaves, labels, MIDDLE)
    _backward(terms)
    _backward(method.critic(mapped(outputs, torch.Tensor.detach), mapped(leaves, torch.Tensor.detach), labels, MIDDLE))
    now = {"teacher": state(theirs), "teacher outputs": _copies(leaves), "student outputs": _copies(outputs)}
    now["labels"] = {"labels": labels}
    for what, before in kept.items():
        for name in unequal(before, now[what]):
            yield Fault("teacher", f"{what} as they were, bit for bit", f"{name} has changed")
    for name, leaf in flat(leaves).items():
        if leaf.grad is not None and bool(leaf.grad.any()):
            yield Fault("teacher", "no gradient to the teacher", f"a gradient to its {name}: detach it in the loss")


def _backward(terms: dict[str, Tensor]) -> None:
    moving = [term for term in terms.values() if term.requires_grad]
    if moving:
        torch.stack(moving).sum().backward()  # type: ignore[no-untyped-call]


def _copies(outputs: Outputs) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in flat(outputs).items()}


def deterministic(subject: Subject) -> Iterator[Fault]:
    """Same state, same inputs, same seed of torch: the same terms, gradients and state, bit for bit."""
    case, runs = subject.case(), list[dict[str, Tensor]]()
    for _ in range(2):
        method = subject.method()
        first, second = step(method, case, START), critic_step(method, case, START)
        runs.append(_everything(first, second) | state(method))
    for name in unequal(*runs):
        yield Fault("deterministic", "the same bits twice; draw from torch's generator only", f"{name} differs")


@torch.no_grad()
def _move(parameters: dict[str, torch.nn.Parameter], result: Step) -> None:
    for name, slope in result.own.items():
        parameters[name].sub_(slope.clamp(-1, 1), alpha=1e-3)


def _everything(first: Step, second: Step) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for kind, one in (("term", first), ("critic", second)):
        found |= {f"{kind} {name}": value for name, value in one.terms.items()}
        found |= {f"gradient of {kind}s to {name}": value for name, value in (one.student | one.own).items()}
    return found


def resumable(subject: Subject) -> Iterator[Fault]:
    """After two steps, state_dict into a newly built method: the third step is the same, bit for bit."""
    method, after = subject.method(), list[dict[str, Tensor]]()
    for number, progress in enumerate((START, LATER)):
        case = subject.case(seed=number)
        _move(dict(method.named_parameters()), step(method, case, progress, seed=number))
        _move(own_parameters(method), critic_step(method, case, progress, seed=number))
    saved, other = state(method), subject.build(seed=1)
    other.load_state_dict(saved)
    for one in (method, other):
        case = subject.case(seed=2)
        first, second = step(one, case, MIDDLE, seed=2), critic_step(one, case, MIDDLE, seed=2)
        after.append(_everything(first, second))
    for name in unequal(*after):
        expected = "all that a method remembers in its state_dict: parameters and buffers, no Python attributes"
        yield Fault("resumable", expected, f"{name} differs after state_dict and load_state_dict")


def autocast(subject: Subject) -> Iterator[Fault]:
    """On bfloat16 maps under autocast, every term is float32 and within 1e-2 of what float32 gives for these maps."""
    narrow = subject.case().mapped(lambda x: x.bfloat16(), lambda x: x.bfloat16())
    wide = step(subject.method(), narrow.mapped(lambda x: x.float(), lambda x: x.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = step(subject.method(), narrow)
    for name, term in found.terms.items():
        if term.dtype != torch.float32:
            yield Fault("autocast", f"{name} in float32: widen the maps before the loss", str(term.dtype))
        elif far(wide.terms[name], term, 1e-2, 1e-6):
            yield Fault("autocast", f"{name} within 1e-2 of {float(wide.terms[name]):.6g}", f"{float(term):.6g}")
    if not found.finite:
        yield Fault("autocast", "finite gradients", "some that are not")


def double(subject: Subject) -> Iterator[Fault]:
    """float32 is within 1e-4 (terms) and 1e-3 (gradients, in norm) of float64."""
    case = subject.case()
    narrow = step(subject.method(), case)
    wide = step(subject.method().double(), case.mapped(lambda x: x.double(), lambda x: x.double()))
    for name, term in wide.terms.items():
        if far(term, narrow.terms[name], 1e-4, 1e-9):
            yield Fault("double", f"{name} within 1e-4 of {float(term):.9g}", f"{float(narrow.terms[name]):.9g}")
    scale = max((float(slope.norm()) for slope in wide.student.values()), default=0.0)
    for name, slope in wide.student.items():
        if far(slope, narrow.student[name], 1e-3, 1e-6 * scale):
            off = float((slope - narrow.student[name]).norm())
            found = f"gradient to {name} off by {off:.3g} of {float(slope.norm()):.3g}"
            yield Fault("double", "gradients in float32 as in float64", found)


RULES: dict[str, Rule] = {
    "alone": alone,
    "teacher": teacher,
    "ignored": ignored,
    "deterministic": deterministic,
    "resumable": resumable,
    "autocast": autocast,
    "double": double,
    "degenerate": degenerate,
    "minimum": minimum,
    "batch": batch,
    "keys": keys,
}
