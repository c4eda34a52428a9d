"""Runs on one machine take GPUs of their own: a lock each, held by a process, released however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from segkd.errors import ConfigError
from segkd.training import leases
from segkd.training.leases import lease

GPUS = ["one", "two", "three", "four"]
HOLD = (
    "import sys, time; from pathlib import Path; from segkd.training.leases import lease\n"
    "folder, count, patience = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])\n"
    "print(*lease(sys.argv[4:], count, folder, patience=patience), flush=True)\n"
    "sys.stdin.read()"
)


class Holder:
    """A process that leases and keeps its lease until told to end, or killed."""

    def __init__(self, folder: Path, count: int = 1) -> None:
        words = [sys.executable, "-c", HOLD, str(folder), str(count), "0.05", *GPUS]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def holds(self) -> list[int]:
        assert self.process.stdout is not None
        return [int(word) for word in self.process.stdout.readline().split()]

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process holds nothing."""
    monkeypatch.setattr(leases, "_held", {})


def test_eight_jobs_on_four_gpus_each_its_own_and_then_shared(tmp_path: Path) -> None:
    jobs = [Holder(tmp_path) for _ in range(8)]
    found = [job.holds()[0] for job in jobs]
    warned = 8 - 4
    assert set(found) == {0, 1, 2, 3}  # none is idle
    assert len(found) - len(set(found)) == warned  # only those that found all four taken share
    for job in jobs:
        job.end()


def test_four_at_a_time_never_share(tmp_path: Path) -> None:
    """What Snakemake's gpu=4 does with eight jobs: the next starts when one ends."""
    running = {holder.holds()[0]: holder for holder in (Holder(tmp_path) for _ in range(4))}
    assert sorted(running) == [0, 1, 2, 3]
    for freed in (2, 0, 3, 1):
        running.pop(freed).end()
        replacement = Holder(tmp_path)
        assert replacement.holds() == [freed]
        running[freed] = replacement
    for holder in running.values():
        holder.end()


@pytest.mark.fault("P3", "a killed run that held a GPU")
def test_a_killed_holder_frees_its_gpu(tmp_path: Path) -> None:
    holders = [Holder(tmp_path) for _ in GPUS]
    (held,) = holders[1].holds()
    for other in (0, 2, 3):
        holders[other].holds()
    holders[1].end(kill=True)
    after = Holder(tmp_path)
    assert after.holds() == [held]
    for holder in (after, holders[0], holders[2], holders[3]):
        holder.end()


def test_several_gpus_are_taken_all_or_none_and_waited_for(tmp_path: Path) -> None:
    first, one = Holder(tmp_path, 3), None
    assert len(first.holds()) == 3
    second = Holder(tmp_path, 2)  # one is free: it must not take that and wait for another
    time.sleep(0.5)
    one = Holder(tmp_path)
    assert one.holds() == [3]
    assert second.process.poll() is None
    first.end(kill=True)
    assert second.holds() == [0, 1]
    one.end()
    second.end()


def test_two_runs_that_each_need_most_of_the_machine_do_not_block_each_other(tmp_path: Path) -> None:
    jobs = [Holder(tmp_path, 3) for _ in range(3)]
    for _ in jobs:  # whoever holds them ends; the next one gets them
        while True:
            ready = [job for job in jobs if job.process.poll() is None and _has_line(job)]
            if ready:
                break
        assert len(ready) == 1
        assert len(ready[0].holds()) == 3
        ready[0].end()


def _has_line(job: Holder) -> bool:
    import select

    assert job.process.stdout is not None
    return bool(select.select([job.process.stdout], [], [], 0.05)[0])


def test_a_process_keeps_to_what_it_holds(tmp_path: Path, alone: None) -> None:
    assert lease(GPUS, 1, tmp_path) == [0]
    assert lease(GPUS, 1, tmp_path) == [0]  # the student computes where its teacher did
    for lock in leases._held.values():
        lock.release()


def test_locks_belong_to_gpus_whatever_their_numbers(tmp_path: Path, alone: None) -> None:
    other = Holder(tmp_path)
    assert other.holds() == [0]
    assert lease(["one"], 1, tmp_path) == [os.getpid() % 1]  # the same GPU under the only number: shared
    assert lease(["four", "one"], 1, tmp_path) == [0]
    other.end()
    for lock in leases._held.values():
        lock.release()


def test_more_gpus_than_there_are_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected: 5 GPUs"):
        lease(GPUS, 5, tmp_path)


class TestChoice:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: None) -> None:
        """A machine that seems to have four GPUs."""
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: type("Properties", (), {"uuid": GPUS[n]}))
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
        monkeypatch.delenv("SEGKD_DEVICE", raising=False)
        monkeypatch.delenv("SEGKD_DEVICES", raising=False)

    def test_first_free_ones(self) -> None:
        assert leases.several(2) == ["cuda:0", "cuda:1"]

    def test_segkd_devices_restricts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEGKD_DEVICES", "3, 1")
        assert leases.usable() == [3, 1]
        assert leases.leased() == ["cuda:3"]
        with pytest.raises(ConfigError, match="found:    2 that this process may use"):
            leases.several(3)

    @pytest.mark.parametrize("wish", ["4", "one", "0,,1", "-1"])
    def test_segkd_devices_that_are_not_there(self, monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
        monkeypatch.setenv("SEGKD_DEVICES", wish)
        with pytest.raises(ConfigError, match="0, 1, 2, 3"):
            leases.usable()

    def test_one_named_device_is_no_place_for_several_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEGKD_DEVICE", "cuda:1")
        with pytest.raises(ConfigError, match="SEGKD_DEVICES=0,1"):
            leases.several(2)

    def test_the_cpu_takes_any_number_of_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEGKD_DEVICE", "cpu")
        assert leases.several(3) == ["cpu"] * 3
