"""What is not finite stops a run before the update, looked at at every step or only where something is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from segkd import steps
from segkd.config.recipe import Optimiser
from segkd.config.runs import Run
from segkd.errors import NonFiniteError
from segkd.files import read_json
from segkd.methods.base import OwnOptimiser, Progress
from segkd.training import loop, optimise
from segkd.training import run as runs
from segkd.training import state as states
from segkd.training.device import Place
from segkd.training.finite import Guard

ALONE = Run("tiny", "small")
NAN, INF = float("nan"), float("inf")
CPU = torch.device("cpu")


def main(name: str) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    config = Optimiser(name=name, lr=0.1, weight_decay=0.01)  # type: ignore[arg-type]
    return lambda parameters: optimise.build(config, {"all": (parameters, 1.0)})


OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter]], Optimizer]] = {
    "sgd": main("sgd"),
    "adamw": main("adamw"),
    "a method's adam": lambda some: optimise.build_own(OwnOptimiser("critic", tuple(some))),
    "a method's sgd": lambda some: optimise.build_own(OwnOptimiser("critic", tuple(some), kind="sgd")),
}


def trained(name: str, folder: Path, factors: list[float], *, deferred: bool) -> tuple[Tensor, str]:
    """Weights, and the guard's message, after steps whose losses are multiplied by these."""
    torch.manual_seed(0)
    layer, message = nn.Linear(3, 2), ""
    optimiser = OPTIMISERS[name](layer.parameters())
    guard = Guard(folder, CPU, [optimiser], deferred=deferred)
    try:
        for step, factor in enumerate(factors):
            optimiser.zero_grad()
            guard.begin(step, (f"image{step}",))
            loss = layer(torch.randn(4, 3)).square().mean() * factor
            loss.backward()
            guard.check({"task": loss.detach()})
            optimiser.step()
        guard.look()
    except NonFiniteError as error:
        message = str(error)
    return layer.weight.detach().clone(), message


@pytest.mark.parametrize("bad", [0, 1, 3])
@pytest.mark.parametrize("name", OPTIMISERS)
class TestDeferred:
    def test_weights_stay_as_before_the_bad_update_which_is_named(self, name: str, bad: int, tmp_path: Path) -> None:
        factors = [NAN if step == bad else 1.0 for step in range(5)]
        weights, message = trained(name, tmp_path, factors, deferred=True)
        assert torch.equal(weights, trained(name, tmp_path, factors[:bad], deferred=True)[0])
        assert f"before update {bad + 1}: task not finite" in message
        kept = read_json(tmp_path / "nonfinite.json")
        assert kept == {"iteration": bad, "images": [f"image{bad}"], "values": {"task": "nan"}}

    def test_tells_and_keeps_the_same_as_looking_at_once(self, name: str, bad: int, tmp_path: Path) -> None:
        factors = [INF if step == bad else 1.0 for step in range(5)]
        (late, said_late), (soon, said_soon) = (trained(name, tmp_path, factors, deferred=x) for x in (True, False))
        assert torch.equal(late, soon)
        assert said_late == said_soon != ""


@pytest.mark.parametrize("name", OPTIMISERS)
def test_finite_steps_are_the_optimisers_own(name: str, tmp_path: Path) -> None:
    (late, _), (soon, _) = (trained(name, tmp_path, [1.0] * 4, deferred=x) for x in (True, False))
    assert torch.equal(late, soon)


class Looks(TorchDispatchMode):
    """Counts where the host asks for a number, each of which would make it wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the host looked in each step, from the batch's arrival until the last update."""
    counts: list[int] = []
    backward, update_own, watch = loop.backward, loop.update_own, [Looks()]

    def first(run: loop.Training, batch: Any, progress: Progress) -> dict[str, Tensor]:
        watch[0] = Looks()
        watch[0].__enter__()
        return backward(run, batch, progress)

    def last(run: loop.Training, progress: Progress) -> dict[str, Tensor]:
        terms = update_own(run, progress)
        watch[0].__exit__(None, None, None)
        counts.append(watch[0].count)
        return terms

    monkeypatch.setattr(loop, "backward", first)
    monkeypatch.setattr(loop, "update_own", last)
    return counts


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU treated as a GPU is, and a journal of one line in four steps."""
    plan = runs.student_plan
    monkeypatch.setattr(runs, "choose", lambda *_, **__: Place(CPU, channels_last=True, runs_ahead=True))
    monkeypatch.setattr(runs, "student_plan", lambda *some: replace(plan(*some), log_every=4))


def poison(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    """Make one step's task loss and gradients NaN."""
    backward = loop.backward

    def poisoned(run: loop.Training, batch: Any, progress: Progress) -> dict[str, Tensor]:
        terms = backward(run, batch, progress)
        if progress.iteration != iteration:
            return terms
        for parameter in run.learner.result.parameters():
            parameter.grad = torch.full_like(parameter, NAN)
        return terms | {"task": terms["task"] * NAN}

    monkeypatch.setattr(loop, "backward", poisoned)


class TestRun:
    def test_looks_at_every_step_on_a_cpu(self, new_project: Callable[..., Path], looks: list[int]) -> None:
        steps.student(ALONE, steps.Options(root=new_project()))
        assert len(looks) == 6 and min(looks) > 0

    @pytest.mark.usefixtures("ahead")
    def test_looks_at_no_step_where_the_host_runs_ahead(
        self, new_project: Callable[..., Path], looks: list[int]
    ) -> None:
        steps.student(ALONE, steps.Options(root=new_project()))
        assert looks == [0] * 6

    @pytest.mark.usefixtures("ahead")
    def test_nothing_is_written_after_a_bad_step(
        self, new_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calm, troubled = new_project("calm"), new_project("troubled")
        steps.student(ALONE, steps.Options(root=calm))
        with monkeypatch.context() as patch:
            poison(patch, 2)
            with pytest.raises(NonFiniteError, match=r"before update 3: task, gradient norm not finite"):
                steps.student(ALONE, steps.Options(root=troubled, save_seconds=0))
        kept = states.load_state(troubled / ALONE.folder / "state")
        assert kept is not None and kept.iteration == 2
        assert read_json(troubled / ALONE.folder / "nonfinite.json")["iteration"] == 2
        steps.student(ALONE, steps.Options(root=troubled))
        shas = [read_json(root / ALONE.folder / "run.json")["weights"]["sha256"] for root in (calm, troubled)]
        assert shas[0] == shas[1]

    @pytest.mark.usefixtures("ahead")
    def test_a_bad_step_is_found_where_the_next_line_is_due(
        self, new_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root, done = new_project(), []
        update = loop.update
        poison(monkeypatch, 1)
        monkeypatch.setattr(
            loop, "update", lambda run, progress: (done.append(progress.iteration), update(run, progress))
        )
        with pytest.raises(NonFiniteError, match="before update 2"):
            steps.student(ALONE, steps.Options(root=root))
        assert done == [0, 1, 2]  # the third is followed by a look at the validation split
        assert not list((root / ALONE.folder / "state").glob("state-*"))
