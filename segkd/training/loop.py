"""The training loop, for teachers, autoencoders and students alike. Read it from the top.

Order of resuming: (1) the newest undamaged state of the same run; (2) nothing: train from scratch. The teacher is
input, not state; the order of the data is a function of (seed, epoch, index), so neither is saved.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from segkd import crash
from segkd.config.recipe import Augmentation, Optimiser, Schedule
from segkd.data.augmentation import normalise
from segkd.data.loading import Batch
from segkd.errors import InterruptedRunError
from segkd.methods.base import Progress
from segkd.networks.weights import write as write_weights
from segkd.training import optimise, processes
from segkd.training import state as states
from segkd.training.device import Place
from segkd.training.finite import Guard
from segkd.training.learner import Learner
from segkd.training.memory import VALIDATING, enough_memory
from segkd.training.progress import Display
from segkd.training.sums import Sums

log = logging.getLogger(__name__)

Validate = Callable[[Callable[[], bool]], float | None]  # asks whether to stop; mIoU, or None where it stopped


class Journal(Protocol):
    """What the loop writes to; segkd.tracking.journal.Journal is one."""

    def train(self, iteration: int, values: dict[str, float]) -> None: ...  # noqa: D102
    def val(self, iteration: int, values: dict[str, float]) -> None: ...  # noqa: D102
    def event(self, iteration: int, event: str, detail: str = "") -> None: ...  # noqa: D102
    def rewind(self, iteration: int, *, validated: bool = True) -> None: ...  # noqa: D102
    def flush(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Plan:
    """How long to train, and how often to do what beside it. Iterations are updates of the weights."""

    iterations: int
    per_epoch: int
    batch: int
    micro_batch: int
    optimiser: Optimiser
    schedule: Schedule
    augmentation: Augmentation
    gradient_clip: float | None = None
    select_every: int = 0
    log_every: int = 10
    save_seconds: float = 60.0

    def progress(self, iteration: int) -> Progress:
        """Where training stands before update number `iteration` (from 0)."""
        return Progress(
            iteration, self.iterations, iteration // self.per_epoch, math.ceil(self.iterations / self.per_epoch)
        )


@dataclass
class Training:
    """Everything that one run holds while it trains."""

    folder: Path
    learner: Learner
    plan: Plan
    place: Place
    journal: Journal
    display: Display
    conditions: dict[str, object]
    validate: Validate | None = None
    stopping: Callable[[], bool] = lambda: False
    command: str = "segkd"
    optimisers: dict[str, Optimizer] = field(init=False)
    rates: dict[str, float] = field(init=False)
    guard: Guard = field(init=False)
    best: dict[str, object] | None = None
    elapsed: float = 0.0
    resumes: int = 0
    unselected: bool = False
    drift: list[str] = field(default_factory=list)
    sums: Sums = field(default_factory=Sums)

    def __post_init__(self) -> None:
        main = optimise.build(self.plan.optimiser, self.learner.groups())
        own = {f"own-{one.name}": (optimise.build_own(one), one.lr) for one in self.learner.own_optimisers()}
        self.optimisers = {"main": main} | {name: optimiser for name, (optimiser, _) in own.items()}
        self.rates = {"main": self.plan.optimiser.lr} | {name: rate for name, (_, rate) in own.items()}
        self.guard = Guard(self.folder, self.place.device, self.optimisers.values(), deferred=self.place.runs_ahead)

    @property
    def state_folder(self) -> Path:
        """Where the unfinished run's state lies."""
        return self.folder / "state"


def fit(run: Training, batches: Callable[[int], Iterator[Batch]], *, allow_drift: bool = False) -> None:
    """Train to the plan's last iteration, from the newest state if there is one.

    batches: start iteration -> iterator of batches up to the end.
    Raises NonFiniteError before an update that would spoil the weights, InterruptedRunError when asked to stop, after
    saving.
    """
    done = resume(run, allow_drift=allow_drift)
    processes.require_equal(run.learner.modules, done)
    if run.unselected:
        select(run, done)
        if processes.agreed(run.unselected)[0]:
            leave(run, done)
    started, saved_at = time.monotonic() - run.elapsed, time.monotonic()
    for batch in batches(done):
        progress = run.plan.progress(done)
        share = optimise.poly(run.plan.schedule, done, run.plan.iterations)
        for name, optimiser in run.optimisers.items():
            optimise.set_rate(optimiser, run.rates[name], share)
            optimiser.zero_grad(set_to_none=True)

        run.guard.begin(done, batch.ids)
        terms = backward(run, batch, progress)
        check_finite(run, terms)
        update(run, progress)
        crash.point("optimiser stepped")
        terms |= update_own(run, progress)
        run.sums.add(terms)
        crash.point("updated")
        done += 1

        if done % run.plan.log_every == 0 or done == run.plan.iterations:
            run.guard.look()
            values = run.sums.means() | {"lr": share * run.plan.optimiser.lr}
            run.journal.train(done, values)
            run.display.show(done, values)
        if run.plan.select_every and (done % run.plan.select_every == 0 or done == run.plan.iterations):
            select(run, done)

        run.elapsed = time.monotonic() - started
        due = time.monotonic() - saved_at >= run.plan.save_seconds or done == run.plan.iterations
        unfinished = done < run.plan.iterations or run.unselected
        stop, due = processes.agreed(run.stopping() and unfinished, due)
        if stop:
            leave(run, done)
        if due:
            save(run, done)
            saved_at = time.monotonic()


def leave(run: Training, done: int) -> NoReturn:
    """Save and end, because someone asked for it."""
    save(run, done)
    run.journal.event(done, "stop", "asked to stop")
    run.journal.flush()
    raise InterruptedRunError(f"stopped at iteration {done} of {run.plan.iterations}; the same command goes on")


def resume(run: Training, *, allow_drift: bool) -> int:
    """Restore the newest state; returns the number of updates already done."""
    damaged: list[str] = []
    state = states.load_state(run.state_folder, damaged)
    if state is None:
        run.journal.rewind(0)
        run.journal.event(0, "start", str(run.folder))
        return 0
    run.drift = state.scalars["drift"] + states.check_drift(
        state.scalars["conditions"], dict(run.conditions), where=run.folder, allow=allow_drift, command=run.command
    )
    for name, module in run.learner.modules.items():
        states.unpack_module(name, module, state.tensors)
    for name, optimiser in run.optimisers.items():
        states.unpack_optimiser(f"optimiser-{name}", optimiser, state.tensors)
    processes.unpack_random(run.place.device, state.tensors)
    run.sums = Sums.unpack(state.tensors, state.scalars["unlogged"], run.place.device)
    run.best, run.elapsed, run.resumes = state.scalars["best"], state.scalars["elapsed"], state.scalars["resumes"] + 1
    run.unselected = state.scalars["unselected"]
    run.journal.rewind(state.iteration, validated=not run.unselected)
    for fault in damaged:
        run.journal.event(state.iteration, "damaged state", fault)
    run.journal.event(state.iteration, "resume", f"resume number {run.resumes}")
    log.info("going on at iteration %d of %d", state.iteration, run.plan.iterations)
    return state.iteration


def save(run: Training, done: int) -> None:
    """Write the state, the journal first: a state never promises lines that the journal does not hold."""
    run.guard.look()
    run.journal.flush()
    crash.point("journal written")
    tensors = processes.pack_random(run.place.device)
    if processes.rank():
        return
    for name, module in run.learner.modules.items():
        tensors |= states.pack_module(name, module)
    for name, optimiser in run.optimisers.items():
        tensors |= states.pack_optimiser(f"optimiser-{name}", optimiser)
    tensors |= run.sums.pack()
    scalars = {
        "iteration": done,
        "unlogged": run.sums.count,
        "best": run.best,
        "elapsed": run.elapsed,
        "resumes": run.resumes,
        "unselected": run.unselected,
        "conditions": run.conditions,
        "drift": run.drift,
    }
    states.save_state(run.state_folder, states.State(tensors, scalars))


def backward(run: Training, batch: Batch, progress: Progress) -> dict[str, Tensor]:
    """Gradients of the whole batch, in micro-batches; returns the terms' means over the batch, detached."""
    terms: dict[str, Tensor] = {}
    total = len(batch.images)
    for start in range(0, total, run.plan.micro_batch):
        part = slice(start, start + run.plan.micro_batch)
        images = normalise(run.place.images(batch.images[part]), batch.boxes[part], run.plan.augmentation)
        labels = run.place.here(batch.labels[part]).long()
        with run.place.autocast():
            found = run.learner.terms(images, labels, progress)
        share = len(images) / total
        loss = torch.stack([term.float() for term in found.values()]).sum() * share
        loss.backward()  # type: ignore[no-untyped-call]
        for name, term in found.items():
            terms[name] = terms.get(name, torch.zeros((), device=term.device)) + term.detach().float() * share
    processes.average_gradients([run.optimisers["main"]])
    return processes.averaged(terms)


def check_finite(run: Training, terms: dict[str, Tensor]) -> None:
    """Hand terms and gradient to the guard, which stops before an update that is not finite; then clip the gradient."""
    parameters = [p for group in run.optimisers["main"].param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    run.guard.check(terms | {"gradient norm": norm})
    if run.plan.gradient_clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, run.plan.gradient_clip, norm)


def update(run: Training, progress: Progress) -> None:
    """One step of the main optimiser, without the groups that stand still."""
    still = run.learner.still(progress)
    for group in run.optimisers["main"].param_groups:
        if group["name"] in still:
            for parameter in group["params"]:
                parameter.grad = None
    run.optimisers["main"].step()


def update_own(run: Training, progress: Progress) -> dict[str, Tensor]:
    """One step of the method's own optimisers, on the batch that the student has just learned from."""
    own = [optimiser for name, optimiser in run.optimisers.items() if name != "main"]
    if not own:
        return {}
    for optimiser in own:
        optimiser.zero_grad(set_to_none=True)  # the student's loss reached the critic's weights, too
    with run.place.autocast():
        terms = run.learner.critic(progress)
    if not terms:
        return {}
    torch.stack([term.float() for term in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
    processes.average_gradients(own)
    named = processes.averaged({f"critic.{name}": term.detach().float() for name, term in terms.items()})
    slopes = [p.grad for optimiser in own for group in optimiser.param_groups for p in group["params"]]
    norm = torch.nn.utils.get_total_norm([slope for slope in slopes if slope is not None])
    run.guard.check(named | {"critic's gradient norm": norm})
    for optimiser in own:
        optimiser.step()
    return named


def select(run: Training, done: int) -> None:
    """Look at the validation split and keep the best weights, beside the last ones that are the result.

    Asked to stop meanwhile, it leaves the look to the next attempt: `unselected`.
    """
    run.unselected = False
    if run.validate is None:
        return
    run.guard.look()
    # eager: scored as `segkd evaluate` scores, and at sizes of its own
    with torch.compiler.set_stance("force_eager"), enough_memory(run.place, *VALIDATING):
        miou = run.validate(run.stopping)
    if miou is None:
        run.unselected = True
        return
    run.journal.val(done, {"miou": miou})
    if run.best is None or miou > float(str(run.best["miou"])):
        sha = write_weights(run.folder / "best.safetensors", run.learner.result.state_dict())
        crash.point("best written")
        run.best = {"iteration": done, "miou": miou, "file": "best.safetensors", "sha256": sha}
