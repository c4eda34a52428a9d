"""How fast batches are made, against plain code, and whether memory stays flat: python -m benchmarks.data --help."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import drawn
from benchmarks.losses import machine
from benchmarks.plain_data import PlainDataset, collate
from segkd.config.recipe import Augmentation, Optimiser, Recipe, Scale
from segkd.data.augmentation import normalise
from segkd.data.loading import batches
from segkd.data.order import batches_per_epoch
from segkd.data.prepared import Prepared, Split
from segkd.evaluation.inputs import batches as evaluation_batches

BATCH = 4
WARM, EPOCHS = 1, 5
MEBI = 2**20
SPAN = 512  # images of an epoch where memory is looked at: glibc's heap has found its size by then
FLAT = 1.05
HEADER = (
    "what | plain, per second | segkd, per second | times plain | target | met | "
    "MiB after epoch 1 -> {epochs} | flat | mapped MiB"
)
NOTE = (
    "Per second of one core's processor time, median of {epochs} epochs of {images} images, in turns. Plain: decode "
    "both files, flip, resize the whole image, pad, crop, normalise in float32, each item by itself "
    "(benchmarks/plain_data.py). segkd: from prepared arrays to a normalised float32 batch. MiB: resident memory of a "
    "fresh process (training: two loader threads), without mapped files, after epochs of {span} images; flat: at most "
    "{flat:.0%} of what it was after the first."
)


class Kind(NamedTuple):
    """A row: files of which size and format, crops of which size; none = whole images, as evaluation reads them."""

    name: str
    size: tuple[int, int]
    suffix: str
    crop: tuple[int, int] | None
    target: float | None = None

    def tiny(self) -> Kind:
        """The same row for tests."""
        return self._replace(size=(32, 64), crop=self.crop and (16, 32))


CITY, VOC = (1024, 2048), (375, 500)
KINDS = {
    "cityscapes": Kind("crops of 512 x 1024 from 1024 x 2048, PNG", CITY, ".png", (512, 1024), 5.0),
    "voc": Kind("crops of 512 x 512 from 375 x 500, JPEG", VOC, ".jpg", (512, 512)),
    "cityscapes-evaluation": Kind("whole images of 1024 x 2048, PNG", CITY, ".png", None),
    "voc-evaluation": Kind("whole images of 375 x 500, JPEG", VOC, ".jpg", None),
}
Epoch = Callable[[int], None]  # does everything for the images of one epoch, given its number


def recipe(kind: Kind) -> Recipe:
    """Random scale 0.5 to 2, crop, flip."""
    return Recipe(
        dataset="drawn",
        iterations=1,
        batch=BATCH,
        augmentation=Augmentation(crop=kind.crop or (1, 1), scale=Scale(low=0.5, high=2.0)),
        optimiser=Optimiser(name="sgd", lr=0.1),
    )


def segkd_epoch(kind: Kind, split: Split, workers: int = 0) -> Epoch:
    """Batches as training, or evaluation, takes them; normalised."""
    config = recipe(kind)
    count = batches_per_epoch(BATCH, len(split))

    def train(epoch: int) -> None:
        span = {"start": epoch * count, "stop": (epoch + 1) * count}
        for batch in batches(split, config, seed=0, workers=workers, **span):
            normalise(batch.images, batch.boxes, config.augmentation)
            batch.labels.long()

    def evaluate(_: int) -> None:
        for batch in evaluation_batches(split, config, "cpu"):
            normalise(batch.images, None, config.augmentation)

    return train if kind.crop else evaluate


def plain_epoch(kind: Kind, files: Path) -> Epoch:
    """The same by plain code."""
    data = PlainDataset(files, "train", recipe(kind).augmentation)

    def train(_: int) -> None:
        for first in range(0, len(data) - BATCH + 1, BATCH):
            collate([data[index] for index in range(first, first + BATCH)])

    def evaluate(_: int) -> None:
        for index in range(len(data)):
            collate([data.tensors(*data.whole(index))])

    return train if kind.crop else evaluate


def seconds(epoch: Epoch, number: int) -> float:
    """Processor time of one epoch."""
    start = time.process_time()
    epoch(number)
    return time.process_time() - start


def resident() -> tuple[float, float]:
    """MiB of this process in memory: its own, and pages of mapped files."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = {line.partition(":")[0]: int(line.split()[1]) * 1024 / MEBI for line in status if line.endswith("kB")}
    return found["RssAnon"], found["RssFile"]


def memory(kind: Kind, prepared: Path, rounds: int) -> tuple[float, float, float]:
    """(own after the first epoch, own after the last, mapped after the last), MiB, of segkd with two loader threads.

    rounds: how often an epoch goes through the split.
    """
    torch.set_num_threads(1)
    epoch, after = segkd_epoch(kind, Prepared(prepared).split("train"), workers=2), []
    for number in range(EPOCHS):
        for part in range(rounds):
            epoch(number * rounds + part)
        gc.collect()
        after.append(resident())
    return after[0][0], after[-1][0], after[-1][1]


def in_a_fresh_process(kind: Kind, prepared: Path, rounds: int) -> tuple[float, float, float]:
    """`memory` of a process that has done nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(memory, kind, prepared, rounds).result()


def row(kind: Kind, images: int, folder: Path) -> str:
    """One line of the table."""
    config = drawn.write_files(folder / "files", images, kind.size, 19, kind.suffix)
    data = drawn.prepared(config, folder)
    split = data.split("train")
    first, last, mapped = in_a_fresh_process(kind, data.path, max(1, SPAN // images))
    forms = {"plain": plain_epoch(kind, folder / "files"), "segkd": segkd_epoch(kind, split)}
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(WARM + EPOCHS):
        for name in sorted(forms, reverse=number % 2 == 0):
            times[name].append(seconds(forms[name], number))
    rates = {name: images / statistics.median(found[WARM:]) for name, found in times.items()}
    ratio = rates["segkd"] / rates["plain"]
    cells = [
        kind.name,
        f"{rates['plain']:.1f}",
        f"{rates['segkd']:.1f}",
        f"{ratio:.1f}",
        f">= {kind.target:g}" if kind.target else "",
        ("yes" if ratio >= kind.target else "NO") if kind.target else "",
        f"{first:.0f} -> {last:.0f}",
        "yes" if last <= FLAT * first else "NO",
        f"{mapped:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(kinds: list[Kind], images: int) -> Iterator[str]:
    """The table, line by line as it is measured."""
    torch.set_num_threads(1)
    header = HEADER.format(epochs=EPOCHS)
    yield f"{machine('cpu')}; random scale 0.5 to 2, flip, batches of {BATCH}"
    yield ""
    yield f"| {header} |"
    yield "|" + "---|" * (header.count("|") + 1)
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            yield row(kind, images, Path(folder))
        gc.collect()
    yield ""
    yield NOTE.format(epochs=EPOCHS, images=images, span=SPAN, flat=FLAT)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--images", type=int, default=16, help="files that are drawn for each row")
    parser.add_argument("--tiny", action="store_true", help="tiny images: tries the program, measures nothing")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    options = arguments(words)
    unknown = [name for name in options.only if name not in KINDS]
    if unknown:
        raise SystemExit(
            f"python -m benchmarks.data: no row is called {', '.join(unknown)}; there are: {', '.join(KINDS)}"
        )
    kinds = [KINDS[name] for name in options.only or KINDS]
    for line in table([kind.tiny() if options.tiny else kind for kind in kinds], options.images):
        print(line, flush=True)


if __name__ == "__main__":
    main()
