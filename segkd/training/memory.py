"""Out of memory: what was tried, on which device, and the setting that needs less. Nothing is changed by itself.

A smaller batch would be another recipe; whether to take one is for a person to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from segkd.errors import OutOfMemoryError, explain
from segkd.training.device import Place
from segkd.training.manifest import memory

if TYPE_CHECKING:
    from segkd.training.loop import Plan

VALIDATING = (
    "the look at the validation split",
    "lower evaluation.batch in the recipe (the score stays the same), then give the same command with --allow-drift: "
    "it goes on where it was and records the change",
)


def training_with(plan: Plan, crop: object) -> tuple[str, str]:
    """What a training step holds at once, and the largest smaller setting of micro_batch."""
    doing = f"{plan.micro_batch} images of {crop} in one forward pass (batch {plan.batch})"
    less = [part for part in range(1, plan.micro_batch) if plan.batch % part == 0]
    if not less:
        return doing, "use a smaller crop or network, or a device with more memory"
    return doing, (
        f"set micro_batch: {less[-1]} in the recipe: gradients are summed to the same batch, though batch norm then "
        f"sees {less[-1]} images at once; then give the same command with --fresh, or with --allow-drift to go on"
    )


@contextmanager
def enough_memory(place: Place, doing: str, fix: str) -> Iterator[None]:
    """Turn a failed allocation of PyTorch, CUDA or Python into an OutOfMemoryError that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        peak = memory(place)["peak_gpu_bytes"] or memory(place)["peak_rss_bytes"] or 0
        raise OutOfMemoryError(
            explain(
                f"There is not enough memory for {doing}.",
                expected=f"all of it on {place.name or 'the CPU'}",
                found=f"{str(error).splitlines()[0] if str(error) else type(error).__name__}; "
                f"peak so far {peak / 2**30:.2f} GiB",
                where=place.device,
                fix=fix,
            )
        ) from error


def _out_of_memory(error: BaseException) -> bool:
    """torch.OutOfMemoryError is a RuntimeError; PyTorch's allocator for CPUs raises a bare one."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
