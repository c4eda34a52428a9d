"""Start the processes of a run on this machine, wait for them, and say in one message what went wrong in any.

They get torchrun's variables, so that one program serves both; torchrun itself would lose exit codes and messages.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from segkd import errors
from segkd.errors import InterruptedRunError, SegkdError, WorkerError, explain
from segkd.files import read_json
from segkd.training.leases import several

log = logging.getLogger(__name__)
GRACE = 10.0  # seconds that the others have to end by themselves after one has failed
PROGRAM = (sys.executable, "-m", "segkd.worker")
ASK = signal.SIGUSR1  # what a worker is asked to stop with: a terminal or scheduler sends the others to all at once


@dataclass
class Worker:
    """One process of a run; it leaves a known error in `outcome`."""

    rank: int
    process: subprocess.Popen[bytes]
    outcome: Path
    ended_here: bool = False

    def end(self) -> None:
        """Kill it, if it still lives."""
        if self.process.poll() is None:
            self.ended_here = True
            self.process.kill()
            self.process.wait()


def launch(words: Sequence[str], count: int) -> None:
    """Run `python -m segkd.worker WORDS` in `count` processes, a GPU each, or all on the CPU where there is none.

    A request to stop (SIGINT, SIGTERM, SIGUSR1) is passed on, a second one ends them. Raises the error that a process
    ended with, WorkerError where one died without a word, InterruptedRunError where they were asked to stop.
    """
    devices = several(count)
    with tempfile.TemporaryDirectory(prefix="segkd-") as folder:
        workers = [_start(words, rank, devices, Path(folder)) for rank in range(count)]
        try:
            with _passing_on(workers) as asked:
                _wait(workers)
        finally:
            for worker in workers:
                worker.end()
        _judge(workers, asked)


def _start(words: Sequence[str], rank: int, devices: Sequence[str], folder: Path) -> Worker:
    outcome = folder / f"outcome-{rank}.json"
    places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(devices))}
    found = {"SEGKD_RENDEZVOUS": f"file://{folder}/rendezvous", "SEGKD_DEVICE": devices[rank]}
    process = subprocess.Popen(
        [*PROGRAM, *words, str(outcome)],
        stdin=subprocess.PIPE,  # closes when this process ends, however it ends: then the worker ends, too
        env=os.environ | places | found,
    )
    return Worker(rank, process, outcome)


@contextlib.contextmanager
def _passing_on(workers: Sequence[Worker]) -> Iterator[list[int]]:
    """Pass requests to stop on to the workers; yields the signals that came."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(ASK)

    if threading.current_thread() is not threading.main_thread():  # handlers can be set nowhere else
        yield asked
        return
    before = {one: signal.signal(one, pass_on) for one in (signal.SIGINT, signal.SIGTERM, ASK)}
    try:
        yield asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _wait(workers: Sequence[Worker]) -> None:
    """Until all have ended, or `GRACE` after one has failed."""
    deadline: float | None = None
    while None in (codes := [worker.process.poll() for worker in workers]):  # all are asked: one may wait for another
        if deadline is None and any(codes):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _judge(workers: Sequence[Worker], asked: Sequence[int]) -> None:
    failed = [worker for worker in workers if worker.process.returncode]
    if not failed:
        return
    died = [worker for worker in failed if worker.process.returncode < 0 and not worker.ended_here]
    told = [worker for worker in failed if worker.outcome.exists()]
    if asked and not told:
        raise InterruptedRunError("stopped at once, on a second request or before the first update")
    if died or not told:
        raise _death((died or failed)[0], len(workers))
    raise _error(told[0])


def _error(worker: Worker) -> SegkdError:
    """The error that a worker left, as if it had been raised here."""
    found = read_json(worker.outcome)
    kind = getattr(errors, str(found["kind"]), SegkdError)
    return kind(str(found["message"]))


def _death(worker: Worker, count: int) -> WorkerError:
    code = worker.process.returncode
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}; its traceback stands above"
    return WorkerError(
        explain(
            f"Process {worker.rank} of the {count} of this run died; the others were ended.",
            expected="all processes to the last iteration",
            found=how,
            where=f"process {worker.process.pid}",
            fix="the same command goes on from the last saved state; SIGKILL often means too little memory",
        )
    )
