"""What scoring an image costs beside the network's forward pass: python -m benchmarks.evaluation --help."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import drawn
from benchmarks.losses import machine
from benchmarks.scene import Shape
from segkd.config.network import NetworkConfig
from segkd.config.recipe import Augmentation, Optimiser, Recipe
from segkd.data.augmentation import normalise
from segkd.data.prepared import Split
from segkd.evaluation.boundary import boundary_sums
from segkd.evaluation.calibration import confidence_histogram
from segkd.evaluation.confusion import confusion
from segkd.evaluation.evaluate import confidence_of, decide, evaluate_network, evaluating
from segkd.evaluation.inputs import batches
from segkd.evaluation.quick import miou
from segkd.networks.build import Network, build
from segkd.networks.resize import upsample

TARGET = 0.05
HEADER = "part | ms per image | of the forward pass | target | met"
COUNTS = "confusion matrix and per-image sums"
NOTE = (
    "Median of {repeat} passes. `segkd evaluate` does all parts; a look in mid-training only reading, forward pass, "
    "enlarging, deciding and the matrix."
)


class Timer:
    """Seconds by part; on a GPU until the device is done."""

    def __init__(self, device: str) -> None:
        self.gpu = device.startswith("cuda")
        self.clock = time.perf_counter if self.gpu else time.process_time
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, part: str, function: Callable[[], Any]) -> Any:
        """The function's result; its time is noted."""
        start = self._now()
        result = function()
        self.seconds.setdefault(part, []).append(self._now() - start)
        return result

    def _now(self) -> float:
        if self.gpu:
            torch.cuda.synchronize()
        return self.clock()


def recipe() -> Recipe:
    """Whole images at their own size."""
    augmentation = Augmentation(crop=(1, 1))
    return Recipe(
        dataset="drawn", iterations=1, batch=1, augmentation=augmentation, optimiser=Optimiser(name="sgd", lr=1)
    )


def measure(network: Network, split: Split, classes: int, device: str, repeat: int) -> dict[str, float]:
    """Seconds per image of every part, and of whole evaluations; the first pass is not counted."""
    config, timer = recipe(), Timer(device)
    for _ in range(1 + repeat):
        with evaluating(network):
            batch = timer("read image and label", lambda: next(batches(split, config, device)))
            images = timer("normalise", lambda b=batch: normalise(b.images, None, config.augmentation))
            small = timer("forward pass", lambda x=images: network(x)).logits
            size = tuple(batch.labels.shape[-2:])
            logits = timer("enlarge logits to the label's size", lambda x=small, s=size: upsample(x.float(), s))
            found, best = timer("decide: class of every pixel", lambda x=logits: decide(x))
            confidence = timer("confidence of every pixel", lambda x=logits, b=best: confidence_of(x, b))
            pair = (found, batch.labels)
            timer(COUNTS, lambda p=pair: _counted(*p, classes))
            timer("boundary sums", lambda p=pair: boundary_sums(*p, classes).cpu())
            timer("calibration", lambda c=confidence, p=pair: confidence_histogram(c, *p).cpu())
        timer("a look in mid-training, whole", lambda: miou(network, split, config, classes, device))
        timer("segkd evaluate, whole", lambda: evaluate_network(network, split, config, classes, device))
    return {part: statistics.median(found[1:]) for part, found in timer.seconds.items()}


def _counted(prediction: torch.Tensor, label: torch.Tensor, classes: int) -> torch.Tensor:
    """What Tally.add does for one image."""
    matrix = confusion(prediction[0], label[0], classes).cpu()
    return torch.stack((matrix.diagonal(), matrix.sum(1), matrix.sum(0)))


def table(shape: Shape, size: tuple[int, int], classes: int, device: str, repeat: int) -> Iterator[str]:
    """The table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    described = {"head": shape.head, "backbone": shape.backbone, "width": shape.width}
    network = build(NetworkConfig.model_validate(described), classes).to(device)
    with tempfile.TemporaryDirectory() as folder:
        files = drawn.write_files(Path(folder) / "files", 1, size, classes)
        split = drawn.prepared(files, Path(folder)).split("val")
        found = measure(network, split, classes, device, repeat)
    yield f"{machine(device)}, float32; {shape}, one image of {size[0]} x {size[1]}, {classes} classes"
    yield ""
    yield f"| {HEADER} |"
    yield "|" + "---|" * (HEADER.count("|") + 1)
    for part, seconds in found.items():
        share = seconds / found["forward pass"]
        counts = part == COUNTS
        target, met = (f"<= {TARGET:.0%}", "yes" if share <= TARGET else "NO") if counts else ("", "")
        yield f"| {part} | {seconds * 1e3:.1f} | {share:.2%} | {target} | {met} |"
    yield ""
    yield NOTE.format(repeat=repeat)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--network", type=Shape.parse, default=Shape("deeplabv3", "resnet18"), metavar="HEAD/BACKBONE")
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--repeat", type=int, default=3, help="passes that count")
    parser.add_argument("--tiny", action="store_true", help="a tiny image: tries the program, measures nothing")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    options = arguments(words)
    shape, size = options.network, tuple(options.size)
    if options.tiny:
        shape, size = shape._replace(width=0.0625), (32, 64)
    for line in table(shape, size, options.classes, options.device, options.repeat):
        print(line, flush=True)


if __name__ == "__main__":
    main()
