"""Several processes that train one run together: each on its part of every batch, all with the same weights.

Gradients are averaged here, in one message per step, instead of by DistributedDataParallel: micro-batches, groups that
stand still, parameters that a method leaves out and optimisers of its own need no exception, names stay as they are,
and a resumed run sums in the same order. Its overlap with the backward pass would save about a hundredth of a step.
With one process nothing here happens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from segkd.errors import CheckpointError, ConfigError, explain
from segkd.ops.processes import gathered, processes
from segkd.training import state as states

PATIENCE = timedelta(minutes=30)  # the first process looks at the validation split while the others wait for it


def rank() -> int:
    """Number of this process among those of its run, from 0; the first alone writes."""
    return dist.get_rank() if processes() > 1 else 0


def count() -> int:
    """Number of processes of this run."""
    return processes()


@contextmanager
def joined(wanted: int) -> Iterator[None]:
    """Be one of a run's `wanted` processes: those that `launch` or torchrun started, told by their environment.

    RANK, WORLD_SIZE as torchrun sets them; SEGKD_RENDEZVOUS: where they find each other, else MASTER_ADDR and _PORT.
    """
    if wanted == 1:
        yield
        return
    there = os.environ.get("WORLD_SIZE")
    if there != str(wanted):
        raise ConfigError(
            explain(
                "The recipe is for another number of processes.",
                expected=f"{wanted} processes (gpus: {wanted})",
                found=there,
                where="WORLD_SIZE, set by torchrun",
                fix=f"torchrun --nproc-per-node {wanted}, or start `segkd` alone: it starts the others itself",
            )
        )
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if nccl else "gloo",
        init_method=os.environ.get("SEGKD_RENDEZVOUS", "env://"),
        rank=int(os.environ["RANK"]),
        world_size=wanted,
        timeout=PATIENCE,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors of one type and device by their means over the processes, in one message."""
    own = list(tensors)
    if processes() == 1 or not own:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in own])
    dist.all_reduce(flat)
    flat /= processes()
    parts = torch.split(flat, [tensor.numel() for tensor in own])
    for tensor, part in zip(own, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def average_gradients(optimisers: Iterable[Optimizer]) -> None:
    """Replace the gradients of all parameters by their means; every process must have reached the same parameters."""
    groups = (group for optimiser in optimisers for group in optimiser.param_groups)
    average(parameter.grad for group in groups for parameter in group["params"] if parameter.grad is not None)


def averaged(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars' means over the processes, not finite where one process's is not: what one stops at, all stop at."""
    if processes() == 1 or not terms:
        return terms
    values = torch.stack(list(terms.values()))
    average([values])
    return dict(zip(terms, values.unbind(), strict=True))


def agreed(*wishes: bool) -> tuple[bool, ...]:
    """Each wish, true if any process has it: what all do, all must do at the same step. Waits for all, never a GPU."""
    if processes() == 1:
        return wishes
    found = torch.tensor([float(wish) for wish in wishes])
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return tuple(bool(one) for one in found)


def seed(number: int) -> None:
    """Seed torch's generator; processes draw differently (dropout on their images), the first as one alone would."""
    if rank():
        number = int(np.random.SeedSequence((number, rank())).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(number)


def pack_random(device: torch.device) -> dict[str, Tensor]:
    """The random states of all processes; the first's under the names that it has alone."""
    own = states.pack_random(device)
    if processes() == 1:
        return own
    everyone = {name: gathered(tensor[None]) for name, tensor in own.items()}
    return {_name(name, number): row for name, rows in everyone.items() for number, row in enumerate(rows)}


def unpack_random(device: torch.device, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of pack_random: this process's state of the saved ones."""
    names = ("random.cpu", "random.cuda")
    own = {name: tensors[_name(name, rank())] for name in names if _name(name, rank()) in tensors}
    states.unpack_random(device, own)


def _name(name: str, number: int) -> str:
    return f"{name}.{number}" if number else name


def require_equal(modules: Mapping[str, nn.Module], done: int) -> None:
    """CheckpointError where processes stand at different iterations or hold different weights or buffers."""
    if processes() == 1:
        return
    total = hashlib.sha256(str(done).encode())
    for module in modules.values():
        for tensor in module.state_dict().values():
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    digests = gathered(torch.tensor(list(total.digest()), dtype=torch.uint8)[None])
    differing = [number for number, digest in enumerate(digests) if not torch.equal(digest, digests[0])]
    if differing:
        raise CheckpointError(
            explain(
                f"The processes of this run differ after iteration {done}.",
                expected="the same weights and buffers in all",
                found=f"others than in process 0 in {', '.join(map(str, differing))}",
                where="process group",
                fix="check that all see the same files, on GPUs of one kind; start again with --fresh",
            )
        )


class Silent:
    """The journal of a process that writes nothing, because the first one does."""

    def train(self, iteration: int, values: dict[str, float]) -> None:
        """Nothing."""

    def val(self, iteration: int, values: dict[str, float]) -> None:
        """Nothing."""

    def event(self, iteration: int, event: str, detail: str = "") -> None:
        """Nothing."""

    def rewind(self, iteration: int, *, validated: bool = True) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""
