"""What a network costs: parameters, operations, latency."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segkd.config.recipe import Recipe
from segkd.data.prepared import Split
from segkd.data.resize import Size
from segkd.evaluation.evaluate import evaluating
from segkd.evaluation.inputs import Device, input_size

_FEWEST, _MOST, _SECONDS = 3, 50, 0.6  # timed passes, and seconds of timing unless the fewest take longer
_WARMING = (1, 5, 0.2)  # the same of passes before: the first ones allocate and choose kernels


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass at batch 1: up to the logits at their own stride, auxiliary heads included.

    flops: multiplications and additions of convolutions and matrix products, as torch's counter has them; macs: half of
    that; input: (3, height, width); latencies: milliseconds, float32, on `latency_device` with `latency_threads`.
    """

    parameters: int
    flops: int
    macs: int
    input: tuple[int, int, int]
    latency_ms_median: float
    latency_ms_p90: float
    latency_device: str
    latency_threads: int

    def as_json(self) -> dict[str, Any]:
        """The entry `cost` of evaluation.json."""
        return {**vars(self), "input": list(self.input)}


def median_input(split: Split, recipe: Recipe) -> Size:
    """Network input size (height, width) for the split's median height and median width."""
    sizes = [split.size(index) for index in range(len(split))]
    height, width = (int(side) for side in np.median(sizes, axis=0))
    return input_size((height, width), recipe)


def parameters(network: nn.Module) -> int:
    """Number of trainable and frozen parameters; buffers are none."""
    return sum(parameter.numel() for parameter in network.parameters())


def flops(network: nn.Module, size: Size) -> int:
    """Operations of one forward pass on an image of `size` (height, width), in eval mode.

    Counted on shapes alone (PyTorch's meta device): no arithmetic is done, whatever the size.
    """
    shadow = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty(1, 3, *size, device="meta"))
    return int(counter.get_total_flops())


def latency(network: nn.Module, size: Size, device: Device) -> tuple[float, float]:
    """Median and 90th percentile of the time of one forward pass at batch 1, milliseconds, after a warm-up."""
    image = torch.zeros(1, 3, *size, device=device)
    with evaluating(network):
        _passes(network, image, *_WARMING)
        times = _passes(network, image, _FEWEST, _MOST, _SECONDS)
    median, p90 = np.quantile(times, [0.5, 0.9])
    return 1000 * float(median), 1000 * float(p90)


def _passes(network: nn.Module, image: torch.Tensor, fewest: int, most: int, seconds: float) -> list[float]:
    """Seconds of each of at least `fewest`, at most `most` passes, stopped once they took `seconds` together."""
    times: list[float] = []
    while len(times) < fewest or (len(times) < most and sum(times) < seconds):
        times.append(_timed(network, image))
    return times


def _timed(network: nn.Module, image: torch.Tensor) -> float:
    """Seconds of one pass, from an idle device to an idle device."""
    _wait(image.device)
    start = time.perf_counter()
    network(image)
    _wait(image.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: Device) -> str:
    """ "cpu", or the name of the GPU."""
    place = torch.device(device)
    return torch.cuda.get_device_name(place) if place.type == "cuda" else place.type


def measure(network: nn.Module, size: Size, device: Device) -> Cost:
    """All costs of a network that is on `device`, at an input of `size` (height, width)."""
    median, p90 = latency(network, size, device)
    operations = flops(network, size)
    return Cost(
        parameters=parameters(network),
        flops=operations,
        macs=operations // 2,
        input=(3, *size),
        latency_ms_median=median,
        latency_ms_p90=p90,
        latency_device=device_name(device),
        latency_threads=torch.get_num_threads(),
    )
