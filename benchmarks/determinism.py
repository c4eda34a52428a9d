"""What `determinism: strict` costs, as a Markdown table: python -m benchmarks.determinism [--device cuda]."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.losses import machine
from segkd.networks.resize import bilinear
from segkd.training import determinism
from segkd.training.learner import cross_entropy

# what, (batch, channels, height, width), to (height, width)
SHAPES = (
    ("logits at stride 8 to 512 x 1024", (2, 19, 64, 128), (512, 1024)),
    ("logits at stride 4 to 512 x 1024", (2, 19, 128, 256), (512, 1024)),
    ("logits at stride 16 to 513 x 513", (4, 21, 33, 33), (513, 513)),
    ("DeepLabV3+: context to stage 1", (2, 256, 32, 64), (128, 256)),
    ("PSPNet: 6 x 6 bins to the map", (2, 128, 6, 6), (64, 128)),
)


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """One step: time of the processor on a CPU (others may be using it), from idle to idle on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        step()
        torch.cuda.synchronize(device)
        return time.perf_counter() - start
    start = time.process_time()
    step()
    return time.process_time() - start


def compare(step: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float]:
    """Shortest seconds of a step, fast and strict by turns."""
    modes: tuple[determinism.Mode, ...] = ("fast", "strict")
    taken: dict[determinism.Mode, list[float]] = {mode: [] for mode in modes}
    for _ in range(repeats + 1):
        for mode in modes:
            determinism.enforce(mode)
            taken[mode].append(seconds(step, device))
    determinism.enforce("fast")
    return min(taken["fast"][1:]), min(taken["strict"][1:])  # the first of each warms up


def resized(x: Tensor, size: tuple[int, int], gradient: Tensor) -> Callable[[], object]:
    """Forward and backward of a resize."""
    return lambda: torch.autograd.grad(bilinear(x, size, align_corners=True), x, gradient)


def learned(x: Tensor, labels: Tensor) -> Callable[[], object]:
    """Forward and backward of the cross-entropy at the labels' size."""
    return lambda: torch.autograd.grad(cross_entropy(x, labels), x)


def rows(device: torch.device, repeats: int) -> list[str]:
    """The table's lines."""
    lines = ["what (forward and backward) | fast, ms | strict, ms | ratio", "---|---:|---:|---:"]
    for name, shape, size in SHAPES:
        x = torch.randn(shape, device=device, requires_grad=True)
        steps = {f"resize {name}": resized(x, size, torch.randn(*shape[:2], *size, device=device))}
        if name.startswith("logits"):
            labels = torch.randint(0, shape[1], (shape[0], *size), device=device)
            steps[f"cross-entropy, {name}"] = learned(x, labels)
        for what, step in steps.items():
            fast, strict = compare(step, device, repeats)
            lines.append(f"{what} | {1000 * fast:.1f} | {1000 * strict:.1f} | {strict / fast:.2f}")
    return [f"| {line} |" for line in lines]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    asked = parser.parse_args()
    if asked.device == "cpu":
        torch.set_num_threads(1)
    print(machine(asked.device), "", *rows(torch.device(asked.device), asked.repeats), sep="\n")


if __name__ == "__main__":
    main()
