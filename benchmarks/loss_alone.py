"""A method's loss by itself: on outputs of its networks, computed once, without the networks' own passes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.parts import Stopwatch
from benchmarks.scene import Pair, Sizes, backward, halfway, network_inputs
from segkd.data.loading import Batch
from segkd.networks.outputs import Outputs, Stage
from segkd.training.device import Place


def seconds(made: Pair, batch: Batch, sizes: Sizes, place: Place, watch: Stopwatch, repeat: int) -> float:
    """The shortest of `repeat` passes of the method's terms and its critic's, forward and backward; 0 for `none`.

    Gradients end at the student's outputs. The cross-entropy belongs to the networks.
    """
    if made.method is None or made.teacher is None:
        return 0.0
    (images, labels), progress = network_inputs(batch, sizes, place), halfway(sizes)
    with torch.no_grad():
        ours, taught = made.student(images), made.teacher(images)
    criticised, taken = any(True for _ in made.method.own_optimisers()), []
    for _ in range(1 + repeat):  # the first one only takes memory
        student = leaves(ours)
        made.method.zero_grad(set_to_none=True)
        start = watch.clock()
        backward(made.method(student, taught, labels, progress))
        if criticised:
            backward(made.method.critic(student, taught, labels, progress))
        taken.append(watch.clock() - start)
    return min(taken[1:])


def leaves(outputs: Outputs) -> Outputs:
    """The same values, each map a leaf that takes a gradient."""
    return replace(outputs, **{one.name: _leaf(getattr(outputs, one.name)) for one in fields(outputs)})


def _leaf(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().requires_grad_()
    if isinstance(value, Stage):
        return Stage(*map(_leaf, value))
    if isinstance(value, tuple):
        return tuple(map(_leaf, value))
    return {name: _leaf(one) for name, one in value.items()} if value is not None else None
