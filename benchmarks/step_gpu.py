"""A training step on a GPU: segkd's loop as it runs there against the same step in plain eager float32."""

from __future__ import annotations

import gc
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from benchmarks import drawn
from benchmarks.losses import machine
from benchmarks.measure import Peak
from benchmarks.products import Products
from benchmarks.scene import Pair, Sizes, halfway, pair, recipe, training
from segkd.data.loading import Batch, batches
from segkd.data.prepared import Split
from segkd.training.device import Place
from segkd.training.loop import fit

Steps = Callable[[Iterable[Batch]], None]  # trains on some batches
Form = Literal["plain", "segkd", "compiled"]
METHODS = ("none", "kd", "cirkd", "aicsd", "attnfd")
FORMS: tuple[Form, ...] = ("plain", "segkd", "compiled")
WARM = 5  # steps before those that count: kernels are chosen and compiled, memory is taken
LOG_EVERY = 10
GIBI = 2**30
HEADER = (
    "method | form | images/s | times plain | ms per step | GiB | of the bf16 peak | the host waits, times per step"
)
NOTE = (
    "plain: float32, eager, channels first, the library's default optimiser, the loss read at every step. segkd: the "
    "loop as it runs on a GPU: bfloat16 autocast, channels last, fused optimiser, a line of the journal every "
    f"{LOG_EVERY} steps. compiled: the same with `compile: true`. All get the same batches from the same threads. "
    "GiB: the allocator's peak. Peak: the quickest of some bfloat16 products of {size} x {size}, {peak:.0f} TFLOP/s; "
    "operations are those of networks and loss, counted. Waits are counted by torch between two lines of the journal."
)


class Measured(NamedTuple):
    """Seconds per step, bytes, and how often the host waited for the device in a step (None: cannot be counted)."""

    seconds: float
    memory: int
    waits: float | None


class Marks:
    """Points in time on the device: events in its queue, which nothing waits for until the end; on a CPU the clock."""

    def __init__(self, device: str) -> None:
        self.gpu = device.startswith("cuda")
        self._marks: list[torch.cuda.Event] | list[float] = []

    def mark(self) -> None:
        """Note now."""
        if self.gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def between(self, first: int, last: int) -> float:
        """Seconds between two marks; waits until the last is reached."""
        start, end = self._marks[first], self._marks[last]
        if not self.gpu:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def place_of(form: Form, device: str) -> Place:
    """Where a form computes; on a CPU, which only tests ask for, as on a GPU."""
    if form == "plain":
        return Place(torch.device(device), loaders=8)
    return Place(torch.device(device), bf16=True, channels_last=True, runs_ahead=True, loaders=8)


def segkd_steps(
    made: Pair, sizes: Sizes, place: Place, folder: Path, log_every: int
) -> Callable[[Iterable[Batch]], None]:
    """segkd's loop over some batches."""

    def run(source: Iterable[Batch]) -> None:
        fit(training(made, sizes, place, folder, 10**6, log_every), lambda _: iter(source))

    return run


def plain_steps(made: Pair, sizes: Sizes, place: Place) -> Callable[[Iterable[Batch]], None]:
    """A loop as research code commonly has it."""
    config = recipe(sizes)
    rule, wanted = config.augmentation.normalise, config.optimiser
    parameters = [p for p in [*made.student.parameters(), *_trained(made)] if p.requires_grad]
    optimiser = torch.optim.SGD(parameters, wanted.lr, wanted.momentum, weight_decay=wanted.weight_decay)
    mean, std = (torch.tensor(values, device=place.device).view(1, 3, 1, 1) for values in (rule.mean, rule.std))

    def step(batch: Batch) -> Tensor:
        images = (place.images(batch.images).float() / rule.divide - mean) / std
        loss = sum(made.learner.terms(images, place.here(batch.labels).long(), halfway(sizes)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss

    def run(source: Iterable[Batch]) -> None:
        for batch in source:
            if not step(batch).isfinite():
                raise ArithmeticError("the plain loop's loss is not finite")

    return run


def _trained(made: Pair) -> Iterable[torch.nn.Parameter]:
    return () if made.method is None else made.method.parameters()


def measure(name: str, form: Form, split: Split, sizes: Sizes, device: str, folder: Path, repeat: int) -> Measured:
    """One form of one method, in this process."""
    place, steps = place_of(form, device), WARM + repeat
    made = pair(name, sizes, place)
    if form == "compiled":
        made.learner.compile()

    def loop(log_every: int) -> Steps:
        if form == "plain":
            return plain_steps(made, sizes, place)
        run = training(made, sizes, place, folder / f"{name}-{form}-{log_every}", steps, log_every)
        return lambda source: fit(run, lambda _: iter(source))

    def source(marks: Marks) -> Iterator[Batch]:
        pin = place.device.type == "cuda"
        for batch in batches(split, recipe(sizes), seed=0, start=0, stop=steps, workers=place.loaders, pin=pin):
            marks.mark()
            yield batch
        marks.mark()

    peak, marks = Peak(device), Marks(device)
    loop(LOG_EVERY)(source(marks))
    seconds = marks.between(WARM, steps) / repeat
    memory = peak.start + peak.rise()
    return Measured(seconds, memory, _waits(lambda: loop(10**6)(source(Marks("cpu"))), steps, device))


def _waits(run: Callable[[], None], steps: int, device: str) -> float | None:
    """How often torch says that the host waits for the device, per step."""
    if not device.startswith("cuda"):
        run()
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in said) / steps


def operations(name: str, split: Split, sizes: Sizes, device: str) -> int:
    """Operations of one step's matrix products and convolutions: networks and loss, forward and backward."""
    place = place_of("plain", device)
    made = pair(name, sizes, place)
    batch = next(batches(split, recipe(sizes), seed=0, start=0, stop=1))
    with Products() as counted:
        terms = made.learner.terms(place.images(batch.images).float(), place.here(batch.labels).long(), halfway(sizes))
        torch.stack([term.float() for term in terms.values()]).sum().backward()
    return counted.operations


def peak_rate(device: str, size: int) -> float:
    """Operations per second of the quickest of some bfloat16 products of size x size matrices."""
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    marks = Marks(device)
    for _ in range(12):
        marks.mark()
        one @ other
    marks.mark()
    return 2 * size**3 / min(marks.between(k, k + 1) for k in range(2, 12))


def rows(
    name: str, split: Split, sizes: Sizes, device: str, repeat: int, forms: Iterable[Form], peak: float
) -> Iterator[str]:
    """The lines of one method; a form that does not fit says so."""
    count, plain = operations(name, split, sizes, device), None
    with tempfile.TemporaryDirectory() as place:
        for form in forms:
            gc.collect()
            try:
                found = measure(name, form, split, sizes, device, Path(place), repeat)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                yield f"| {name} | {form} | out of memory | | | | | |"
                continue
            plain = plain or (found.seconds if form == "plain" else None)
            cells = [
                name,
                form,
                f"{sizes.batch / found.seconds:.1f}",
                f"{plain / found.seconds:.2f}" if plain else "",
                f"{found.seconds * 1e3:.1f}",
                f"{found.memory / GIBI:.2f}",
                f"{count / found.seconds / peak:.1%}",
                "not counted" if found.waits is None else f"{found.waits:.1f}",
            ]
            yield f"| {' | '.join(cells)} |"


def table(
    names: Iterable[str], sizes: Sizes, device: str, repeat: int, forms: Iterable[Form] = FORMS[:2]
) -> Iterator[str]:
    """The table, line by line as it is measured."""
    size = 8192 if device.startswith("cuda") else 64
    peak = peak_rate(device, size)
    yield f"{machine(device)}; {sizes}; {repeat} steps"
    yield ""
    yield f"| {HEADER} |"
    yield "|" + "---|" * (HEADER.count("|") + 1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = drawn.write_files(folder / "files", sizes.images, sizes.image, sizes.classes)
        split = drawn.prepared(files, folder).split("train")
        for name in names:
            yield from rows(name, split, sizes, device, repeat, forms, peak)
    yield ""
    yield NOTE.format(size=size, peak=peak / 1e12)
