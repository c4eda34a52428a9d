"""Where the seconds of one training step go: a stopwatch around the parts of segkd's own loop, which is not changed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.optim import Optimizer

from segkd.training.loop import Training

Clock = Callable[[], float]


class Stopwatch:
    """Seconds of processor time by name of a part, of the current step."""

    def __init__(self, clock: Clock = time.process_time) -> None:
        self.clock = clock
        self.seconds: Counter[str] = Counter()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose seconds count for `part`."""

        def run(*arguments: Any, **options: Any) -> Any:
            start = self.clock()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[part] += self.clock() - start

        return run

    def lap(self) -> dict[str, float]:
        """The seconds since the last lap."""
        seconds, self.seconds = dict(self.seconds), Counter()
        return seconds


@contextmanager
def watched(run: Training, watch: Stopwatch) -> Iterator[None]:
    """Count forward passes and losses as "terms", and "backward" and "optimiser"; what is left is bookkeeping."""
    learner, backward = run.learner, torch.Tensor.backward
    timed = {name: watch.timed("terms", getattr(learner, name)) for name in ("terms", "critic")}
    for optimiser in run.optimisers.values():
        _time_step(optimiser, watch)
    with patch.multiple(learner, **timed), patch.object(torch.Tensor, "backward", watch.timed("backward", backward)):
        yield


def _time_step(optimiser: Optimizer, watch: Stopwatch) -> None:
    optimiser.step = watch.timed("optimiser", optimiser.step)  # type: ignore[method-assign]
