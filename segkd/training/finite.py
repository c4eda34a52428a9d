"""Stop before an update that would spoil the weights, also where looking at a number makes the host wait.

On a CPU every step is looked at at once. On a GPU that would empty the queue of kernels at every step: there the device
itself remembers the first step that was not finite, the optimisers' fused kernels skip this update and all later ones
(as they do for a GradScaler), and the host looks before it writes anything: a line, a state, a score. It then finds the
same as on a CPU: weights as before the bad update, the step's number, its images, its values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from segkd.errors import NonFiniteError, explain
from segkd.files import write_json
from segkd.networks.weights import write as write_tensors
from segkd.training.processes import rank
from segkd.training.state import pack_random


class _Seen(NamedTuple):
    """What was handed over of one step: loss terms and the gradient's norm, still on the device."""

    iteration: int
    ids: tuple[str, ...]
    names: tuple[str, ...]
    values: Tensor
    random: dict[str, Tensor]


class Guard:
    """Watches every step's loss terms and gradient norms.

    folder: where nonfinite.json (step, images, values) and nonfinite.safetensors (the random state that the step began
    with) are written, for replay. deferred: look when asked to, instead of at every step; the optimisers must
    then be fused ones (see `optimise.build`).
    """

    def __init__(self, folder: Path, device: torch.device, optimisers: Iterable[Optimizer], *, deferred: bool) -> None:
        self.folder, self.deferred = folder, deferred
        self._iteration, self._ids, self._device = 0, tuple[str, ...](), device
        self._random: dict[str, Tensor] = {}
        self._waiting: list[_Seen] = []
        self._found = torch.zeros((), device=device)  # 1 from the first step on that is not finite
        if deferred:
            for optimiser in optimisers:
                optimiser.grad_scale, optimiser.found_inf = None, self._found  # type: ignore[attr-defined]

    def begin(self, iteration: int, ids: tuple[str, ...]) -> None:
        """Say which step and images the next values belong to."""
        self._iteration, self._ids, self._random = iteration, ids, pack_random(self._device)

    def check(self, values: Mapping[str, Tensor]) -> None:
        """Watch scalars before an update: NonFiniteError, at once or, where deferred, at the next `look`."""
        seen = _Seen(self._iteration, self._ids, tuple(values), torch.stack(list(values.values())), self._random)
        finite = torch.isfinite(seen.values).all()
        if self.deferred:
            torch.maximum(self._found, finite.logical_not().float(), out=self._found)
            self._waiting.append(seen)
        elif not bool(finite):
            self._stop(seen)

    def look(self) -> None:
        """Wait for the device; NonFiniteError names the first step since the last look that was not finite."""
        waiting, self._waiting = self._waiting, []
        if waiting and bool(self._found):
            self._stop(next(seen for seen in waiting if not bool(torch.isfinite(seen.values).all())))

    def _stop(self, seen: _Seen) -> None:
        found = dict(zip(seen.names, seen.values.tolist(), strict=True))
        values = {name: str(value) for name, value in found.items()}
        place = self.folder / "nonfinite.json"
        if not rank():  # of several processes all stop here, with the same values
            write_json(place, {"iteration": seen.iteration, "images": list(seen.ids), "values": values})
            write_tensors(place.with_suffix(".safetensors"), seen.random)
        bad = [name for name, value in found.items() if not math.isfinite(value)]
        raise NonFiniteError(
            explain(
                f"Training stopped before update {seen.iteration + 1}: {', '.join(bad)} not finite.",
                expected="finite loss terms and gradients",
                found=values,
                where=f"images {', '.join(seen.ids)}; written to {place}",
                fix="lower the learning rate, add warm-up or gradient_clip, or look at these images and labels; "
                "the same command goes on from the last state and meets the same step again",
            )
        )
