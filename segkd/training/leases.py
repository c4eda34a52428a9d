"""Which GPUs of this machine a run computes on: a lock per GPU, which the system releases however its holder ends.

Locks are named by what a GPU is, not by its number, which CUDA_VISIBLE_DEVICES and schedulers change per process.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from segkd.errors import ConfigError, explain

log = logging.getLogger(__name__)
_held: dict[str, FileLock] = {}  # until this process ends: a run's later parts compute where the first did


def usable() -> list[int]:
    """Numbers of the GPUs that this process may use: those of SEGKD_DEVICES (e.g. 0,2), else all that PyTorch sees."""
    import torch

    there, wish = list(range(torch.cuda.device_count())), os.environ.get("SEGKD_DEVICES")
    if not wish:
        return there
    words = [word.strip() for word in wish.split(",")]
    if not set(words) <= {str(number) for number in there}:
        raise ConfigError(
            explain(
                "SEGKD_DEVICES names GPUs that are not there.",
                expected=f"numbers from {', '.join(map(str, there)) or 'none'}, with commas between",
                found=wish,
                where="environment",
                fix="correct it, or unset it; CUDA_VISIBLE_DEVICES renumbers GPUs from 0",
            )
        )
    return list(dict.fromkeys(int(word) for word in words))


def leased(count: int = 1) -> list[str]:
    """Names of `count` GPUs (cuda:<n>) that this process holds from now on; see `lease`."""
    import torch

    numbers = usable()
    identities = [str(torch.cuda.get_device_properties(number).uuid) for number in numbers]
    return [f"cuda:{numbers[place]}" for place in lease(identities, count)]


def several(count: int) -> list[str]:
    """The devices of a run of `count` processes: a GPU each, all leased at once; without GPUs the CPU for all."""
    import torch

    wish = os.environ.get("SEGKD_DEVICE", "auto")
    if wish == "cpu" or (wish == "auto" and not torch.cuda.is_available()):
        return ["cpu"] * count
    if wish != "auto":
        raise ConfigError(
            explain(
                f"SEGKD_DEVICE names one device, and the recipe needs {count}.",
                expected="SEGKD_DEVICE unset, auto or cpu",
                found=f"SEGKD_DEVICE={wish}",
                where=f"recipe with gpus: {count}",
                fix="choose GPUs by SEGKD_DEVICES, e.g. SEGKD_DEVICES=0,1",
            )
        )
    return leased(count)


def lease(gpus: Sequence[str], count: int = 1, folder: Path | None = None, *, patience: float = 2.0) -> list[int]:
    """Positions in `gpus` of `count` that no other segkd process of this user holds; held until this process ends.

    gpus: an identity each. All are taken or none, under one lock of the machine, so that no two runs wait for each
    other. Where too few are free, a run that needs one shares one, with a warning; a run that needs several waits, and
    looks again every `patience` seconds: its processes cannot share a GPU. ConfigError where there are too few at all.
    """
    if count > len(gpus):
        raise _too_few(count, len(gpus))
    mine = [number for number, gpu in enumerate(gpus) if gpu in _held]
    if len(mine) >= count:
        return mine[:count]
    folder = folder or Path(tempfile.gettempdir())
    waited = False
    while True:
        with FileLock(_path(folder, "machine")):
            found = _take(gpus, count, folder)
        if found:
            return found
        if count == 1:
            log.warning("all %d GPUs are held by other segkd runs; sharing one: start fewer at once", len(gpus))
            return [os.getpid() % len(gpus)]
        if not waited:
            log.warning("waiting for %d of %d GPUs: other segkd runs hold too many", count, len(gpus))
        waited = True
        time.sleep(patience)


def _take(gpus: Sequence[str], count: int, folder: Path) -> list[int]:
    """Lock the first `count` that are free; none where there are fewer."""
    taken: dict[int, FileLock] = {}
    for number, gpu in enumerate(gpus):
        if len(taken) == count:
            break
        lock = FileLock(_path(folder, gpu), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        taken[number] = lock
    if len(taken) < count:
        for lock in taken.values():
            lock.release()
        return []
    _held.update({gpus[number]: lock for number, lock in taken.items()})
    return list(taken)


def _path(folder: Path, name: str) -> Path:
    return folder / f"segkd-{os.getuid()}-gpu-{name}.lock"


def _too_few(count: int, there: int) -> ConfigError:
    return ConfigError(
        explain(
            "This machine has too few GPUs for the recipe.",
            expected=f"{count} GPUs (gpus: {count})",
            found=f"{there} that this process may use",
            where="CUDA_VISIBLE_DEVICES, SEGKD_DEVICES",
            fix="run it on a machine with more, or set `gpus` and `micro_batch` of the recipe to what there is",
        )
    )
