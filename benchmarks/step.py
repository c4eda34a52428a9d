"""What a whole training step costs beside its networks, for every method, as a Markdown table.

On a CPU: python -m benchmarks.step. On a GPU: python -m benchmarks.step --device cuda, another table.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import drawn, loss_alone, step_gpu
from benchmarks.losses import machine
from benchmarks.parts import Stopwatch, watched
from benchmarks.products import Products
from benchmarks.scene import (
    CPU_SIZES,
    GPU_SIZES,
    TINY,
    Pair,
    Shape,
    Sizes,
    backward,
    halfway,
    network_inputs,
    pair,
    recipe,
    training,
)
from segkd.data.loading import Batch, batches
from segkd.data.prepared import Split
from segkd.methods import registry
from segkd.training.device import Place
from segkd.training.learner import cross_entropy
from segkd.training.loop import fit

STEP, BOOKS = 1.05, 0.03  # targets: a step over its networks, bookkeeping over a step
WARM = 1  # steps before those that count
HEADER = (
    "method | step / networks | of it loss | own products | optimiser | bookkeeping, of the step | "
    "target | met | measured whole | ms: networks, loss"
)
NOTE = (
    "Step / networks: 1 + loss + optimiser + bookkeeping, each the shortest of {repeat}, as shares of the networks' "
    "time. The loss is measured by itself, on the networks' outputs: on a machine with other guests two passes of the "
    "networks differ by more than what is to be seen. Measured whole: the shortest of {repeat} whole steps over the "
    "shortest of as many passes of the networks. Own products: the loss's matrix products and convolutions, counted, "
    "at the rate at which the networks do theirs."
)


class Cost(NamedTuple):
    """Seconds of one step and its parts, and of the networks alone just before it."""

    networks: float
    step: float
    optimiser: float
    bookkeeping: float


def methods() -> list[str]:
    """Every row's name."""
    return ["none", *registry.available()]


def networks_alone(made: Pair, batch: Batch, sizes: Sizes, place: Place, watch: Stopwatch) -> float:
    """Seconds of the student's forward and backward pass (for its task loss) and the teacher's forward pass."""
    images, labels = network_inputs(batch, sizes, place)
    made.student.zero_grad(set_to_none=True)
    start = watch.clock()
    cross_entropy(made.student(images).logits, labels).backward()
    if made.teacher is not None:
        with torch.no_grad():
            made.teacher(images)
    return watch.clock() - start


def costs(made: Pair, split: Split, sizes: Sizes, place: Place, folder: Path, repeat: int) -> list[Cost]:
    """`repeat` steps of segkd's own loop, each beside the networks alone on the same batch."""
    steps, watch, found = WARM + repeat, Stopwatch(), list[Cost]()
    run = training(made, sizes, place, folder, steps)

    def handed_over(start: int) -> Iterator[Batch]:
        source = batches(split, recipe(sizes), seed=0, start=start, stop=start + steps)
        for same in batches(split, recipe(sizes), seed=0, start=start, stop=start + steps):
            alone = networks_alone(made, same, sizes, place, watch)
            watch.lap()
            begun = watch.clock()
            yield next(source)  # making the batch belongs to the step
            whole, parts = watch.clock() - begun, watch.lap()
            work = parts["terms"] + parts["backward"]
            spent = parts["optimiser"]
            found.append(Cost(alone, whole, spent, whole - work - spent))

    with watched(run, watch):
        fit(run, handed_over)
    return found[WARM:]


def own_products(made: Pair, batch: Batch, sizes: Sizes, place: Place) -> float:
    """Operations of the loss's matrix products over those of the networks."""
    with Products() as alone:
        networks_alone(made, batch, sizes, place, Stopwatch())
    (images, labels), progress = network_inputs(batch, sizes, place), halfway(sizes)
    with Products() as whole:
        backward(made.learner.terms(images, labels, progress))
        critic = made.learner.critic(progress)
        if critic:
            backward(critic)
    return whole.operations / alone.operations - 1


def row(name: str, split: Split, sizes: Sizes, folder: Path, repeat: int) -> str:
    """One line of the table."""
    place = Place(torch.device("cpu"), channels_last=True)
    made = pair(name, sizes, place)
    measured = costs(made, split, sizes, place, folder / name, repeat)
    best = Cost(*(min(column) for column in zip(*measured, strict=True)))
    batch = next(batches(split, recipe(sizes), seed=0, start=0, stop=1))
    loss = loss_alone.seconds(made, batch, sizes, place, Stopwatch(), repeat)
    ratio = 1 + (loss + best.optimiser + best.bookkeeping) / best.networks
    books, floor = best.bookkeeping / (ratio * best.networks), own_products(made, batch, sizes, place)
    bound = floor > STEP - 1
    met = books <= BOOKS and (bound or ratio <= STEP)
    cells = [
        name,
        f"{ratio:.3f}",
        f"{loss / best.networks:.3f}",
        f"{floor:.3f}",
        f"{best.optimiser / best.networks:.3f}",
        f"{books:.2%}",
        f"{'bound by its products' if bound else f'<= {STEP}'}, <= {BOOKS:.0%}",
        "yes" if met else "NO",
        f"{best.step / best.networks:.2f}",
        f"{best.networks * 1e3:.0f}, {loss * 1e3:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(names: list[str], sizes: Sizes, repeat: int) -> Iterator[str]:
    """The table for a CPU, line by line as it is measured."""
    torch.set_num_threads(1)
    yield f"{machine('cpu')}, float32; {sizes}; processor time"
    yield ""
    yield f"| {HEADER} |"
    yield "|" + "---|" * (HEADER.count("|") + 1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = drawn.write_files(folder / "files", sizes.images, sizes.image, sizes.classes)
        split = drawn.prepared(files, folder).split("train")
        for name in names:
            yield row(name, split, sizes, folder, repeat)
            gc.collect()
    yield ""
    yield NOTE.format(repeat=repeat)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], metavar="METHOD", help="this row; may be repeated")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--student", type=Shape.parse, metavar="HEAD/BACKBONE[/WIDTH]")
    parser.add_argument("--teacher", type=Shape.parse, metavar="HEAD/BACKBONE[/WIDTH]")
    parser.add_argument("--crop", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--repeat", type=int, help="steps that count; default: 5, on a GPU 30")
    parser.add_argument("--compile", action="store_true", help="on a GPU: also with the networks compiled")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny networks and crops: tries the program, measures nothing"
    )
    return parser.parse_args(words)


def chosen_sizes(options: argparse.Namespace) -> Sizes:
    """The sizes that the command line asks for."""
    default = TINY if options.tiny else CPU_SIZES if options.device == "cpu" else GPU_SIZES
    asked = {name: getattr(options, name) for name in ("student", "teacher", "crop", "batch", "classes")}
    given = {name: tuple(value) if name == "crop" else value for name, value in asked.items() if value is not None}
    return replace(default, **given)


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    options = arguments(words)
    unknown = [name for name in options.only if name not in methods()]
    if unknown:
        known = ", ".join(methods())
        raise SystemExit(f"python -m benchmarks.step: no method is called {', '.join(unknown)}; there are: {known}")
    sizes = chosen_sizes(options)
    if options.device == "cpu":
        lines = table(options.only or methods(), sizes, options.repeat or 5)
    else:
        forms = step_gpu.FORMS if options.compile else step_gpu.FORMS[:2]
        lines = step_gpu.table(options.only or step_gpu.METHODS, sizes, options.device, options.repeat or 30, forms)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
