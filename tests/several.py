"""Functions called in several processes of one gloo group, as torchrun would start them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forks import process


def together(work: Callable[..., None], *args: Any, count: int = 2, seconds: float = 120) -> list[int | None]:
    """Exit codes of `count` processes that call work(*args) as members of one run; by rank."""
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = Path(folder) / "rendezvous"
        members = [process(_member, rank, count, rendezvous, work, args) for rank in range(count)]
        for member in members:
            member.start()
        _wait(members, seconds)
        return [member.exitcode for member in members]


def _wait(members: Sequence[Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for member in members:
        member.join(max(deadline - time.monotonic(), 0.1))
    for member in members:
        member.kill()
        member.join()


def _member(rank: int, count: int, rendezvous: Path, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    words = {"RANK": rank, "WORLD_SIZE": count, "SEGKD_RENDEZVOUS": f"file://{rendezvous}", "SEGKD_DEVICE": "cpu"}
    os.environ.update({name: str(value) for name, value in words.items()})
    work(*args)
