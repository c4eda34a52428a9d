"""Measure one row in this process, which should be a fresh one: python -m benchmarks.measure '{"index": 0, ...}'."""

from __future__ import annotations

import gc
import json
import resource
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from benchmarks.cases import CASES, Case, Loss
from benchmarks.inputs import Inputs

MEBI = 2**20
ROUNDING = 1e-4  # above it, it is worth asking which of the two forms is off: the textbook form in float64 decides
Mode = Literal["float32", "autocast", "compiled"]


@dataclass(frozen=True)
class Job:
    """What to measure. textbook: only that form's memory; else segkd's memory, then both forms' times."""

    index: int
    textbook: bool
    device: str = "cpu"
    mode: Mode = "float32"
    repeat: int = 3
    tiny: bool = False


class Peak:
    """Bytes by which memory rose, at most, above what it was at the start.

    On Linux the kernel's own high-water mark of resident memory, set back first, so that nothing is sampled and
    nothing from before counts; elsewhere that mark without setting it back; on a GPU the allocator's.
    """

    def __init__(self, device: str) -> None:
        self.gpu = device.startswith("cuda")
        gc.collect()
        if self.gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
        else:
            _forget_peak()
            self.start = _peak()

    def rise(self) -> int:
        """Bytes since the start."""
        return (torch.cuda.max_memory_allocated() if self.gpu else _peak()) - self.start


def _forget_peak() -> None:
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5", encoding="ascii")


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def draw(case: Case, job: Job, tiny: bool) -> Inputs:
    """The row's tensors, always the same; maps in bfloat16 unless the mode is float32."""
    torch.manual_seed(0)
    drawn = case.draw(case.tiny if tiny else case.dims)
    narrow = job.mode != "float32"
    maps = [x.detach().to(torch.bfloat16) if narrow and x.dim() == 4 else x.detach() for x in drawn]
    return tuple(x.to(job.device).requires_grad_(old.requires_grad) for x, old in zip(maps, drawn, strict=True))


def step(loss: Loss, arguments: Inputs, job: Job) -> tuple[Tensor, list[Tensor]]:
    """Forward and backward: the value and the gradients."""
    wanted = [x for x in arguments if x.requires_grad]
    narrow = job.mode != "float32"
    with torch.autocast(job.device.partition(":")[0], dtype=torch.bfloat16) if narrow else nullcontext():
        value = loss(*arguments)
    return value.detach(), list(torch.autograd.grad(value, wanted))


def _seconds(loss: Loss, arguments: Inputs, job: Job) -> float:
    """Processor time of one step; on a GPU the time until it is done."""
    gpu = job.device.startswith("cuda")
    clock = time.perf_counter if gpu else time.process_time
    if gpu:
        torch.cuda.synchronize()
    start = clock()
    step(loss, arguments, job)
    if gpu:
        torch.cuda.synchronize()
    return clock() - start


def _forms(case: Case, job: Job) -> dict[str, Loss]:
    forms = {"textbook": case.textbook, "segkd": case.segkd}
    if job.mode == "compiled":
        forms["segkd"] = torch.compile(case.segkd, fullgraph=True, dynamic=False)
        if not case.pairs_in_loops:
            forms["textbook"] = torch.compile(case.textbook, dynamic=False)
    return forms


def _reference(case: Case, arguments: Inputs, job: Job, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """The textbook form on the same numbers, not in bfloat16, in which its own values would be off by up to 20 %."""
    wide = [x.detach().to(dtype) if x.is_floating_point() else x for x in arguments]
    leaves = tuple(x.requires_grad_(old.requires_grad) for x, old in zip(wide, arguments, strict=True))
    return step(case.textbook, leaves, replace(job, mode="float32"))


def _differences(value: Tensor, gradients: list[Tensor], reference: tuple[Tensor, list[Tensor]]) -> dict[str, float]:
    return {"value": _apart([value], [reference[0]]), "gradient": _apart(gradients, reference[1])}


def _apart(got: list[Tensor], wanted: list[Tensor]) -> float:
    """Largest ||difference|| / ||wanted|| of pairs of tensors."""
    pairs = [(x.double(), y.double()) for x, y in zip(got, wanted, strict=True)]
    return max(float((x - y).norm() / y.norm().clamp_min(1e-300)) for x, y in pairs)


def run(job: Job) -> dict[str, float]:
    """memory (bytes); of segkd's form also times (s) of both, and how far value and gradient are from the textbook's.

    exact: 1 where that is the textbook form in float64, because in float32 the two differed by more than rounding.
    """
    torch.set_num_threads(1)
    case = CASES[job.index]
    forms = _forms(case, job)
    loss = forms["textbook" if job.textbook else "segkd"]
    step(loss, draw(case, job, tiny=True), job)  # code, libraries and the autograd thread are in memory from now on
    arguments = draw(case, job, tiny=job.tiny)
    if job.mode == "compiled":
        step(loss, arguments, job)  # compiled for these sizes
    peak = Peak(job.device)
    value, gradients = step(loss, arguments, job)
    result = {"memory": float(peak.rise())}
    if not job.textbook:
        for exact in (torch.float32, torch.float64):
            result |= _differences(value, gradients, _reference(case, arguments, job, exact))
            result["exact"] = float(exact == torch.float64)
            if max(result["value"], result["gradient"]) <= ROUNDING:
                break
        del gradients
        result |= _times(forms, arguments, job)
    return result


def _times(forms: dict[str, Loss], arguments: Inputs, job: Job) -> dict[str, float]:
    """Medians; the forms take turns, and in turns the lead."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    if job.mode == "compiled":
        step(forms["textbook"], arguments, job)  # compiled for these sizes; the other form is already
    for k in range(job.repeat):
        for name in sorted(forms, reverse=k % 2 == 0):
            times[name].append(_seconds(forms[name], arguments, job))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main(text: str) -> None:
    """Print the result of a job, both as JSON."""
    print(json.dumps(run(Job(**json.loads(text)))))


def command(job: Job) -> list[str]:
    """The command line of a fresh process for this job."""
    return [sys.executable, "-m", "benchmarks.measure", json.dumps(asdict(job))]


if __name__ == "__main__":
    main(sys.argv[1])
