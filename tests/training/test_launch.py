"""Starting the processes of a run: devices, requests to stop, deaths, and one message for what several of them met."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from segkd.errors import InterruptedRunError, LockedError, NonFiniteError, SegkdError, WorkerError
from segkd.training import launch as module
from segkd.training.launch import launch

WORKER = """
import json, os, signal, sys, threading, time
asked = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: asked.set())
for one in (signal.SIGINT, signal.SIGTERM): signal.signal(one, signal.SIG_IGN)
def follow():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=follow, daemon=True).start()
folder, plan, outcome = sys.argv[1], sys.argv[2].split(","), sys.argv[3]
rank = int(os.environ["RANK"])
open(f"{folder}/{rank}", "w").write(f"{os.getpid()} {os.environ['SEGKD_DEVICE']} {os.environ['WORLD_SIZE']}")
word = plan[rank]
if word == "killed": os.kill(os.getpid(), signal.SIGKILL)
if word == "traceback": sys.exit(1)
if word == "waits": time.sleep(600)
if word == "obeys":
    asked.wait(600)
    json.dump({"kind": "InterruptedRunError", "message": "stopped at iteration 3"}, open(outcome, "w"))
    sys.exit(130)
if word != "done":
    json.dump({"kind": word, "message": "what happened"}, open(outcome, "w"))
    sys.exit(3)
"""


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "PROGRAM", (sys.executable, "-c", WORKER, str(tmp_path)))
    monkeypatch.setattr(module, "GRACE", 0.3)
    monkeypatch.setenv("SEGKD_DEVICE", "cpu")


def pids(folder: Path) -> list[int]:
    return [int(path.read_text().split()[0]) for path in sorted(folder.iterdir())]


def gone(pid: int, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_every_process_gets_its_number_and_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "several", lambda count: [f"cuda:{2 * number}" for number in range(count)])
    launch(["done,done,done"], 3)
    found = [path.read_text().split()[1:] for path in sorted(tmp_path.iterdir())]
    assert found == [["cuda:0", "3"], ["cuda:2", "3"], ["cuda:4", "3"]]


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        ("NonFiniteError,NonFiniteError", NonFiniteError, "^what happened$"),
        ("LockedError,waits", LockedError, "^what happened$"),  # the others would wait for ever
        ("waits,NonFiniteError", NonFiniteError, "^what happened$"),
        ("traceback,killed", WorkerError, "Process 1 of the 2 .*ended by SIGKILL"),
        ("waits,killed", WorkerError, "Process 1 of the 2 .*ended by SIGKILL"),
        ("killed,NonFiniteError", WorkerError, "Process 0 of the 2"),  # the other met the death
        ("traceback,waits", WorkerError, "exit code 1"),
    ],
)
@pytest.mark.fault("P2", "a process of several that dies, fails, or waits for one that has")
def test_one_error_says_what_happened_and_no_process_stays(
    tmp_path: Path, plan: str, error: type[SegkdError], message: str
) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        launch([plan], 2)
    assert all(gone(pid) for pid in pids(tmp_path))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_request_to_stop_reaches_all_processes(tmp_path: Path, sent: signal.Signals) -> None:
    before = signal.getsignal(sent)
    threading.Thread(target=_send, args=(tmp_path, sent, 1)).start()
    with pytest.raises(InterruptedRunError, match="stopped at iteration 3"):
        launch(["obeys,obeys"], 2)
    assert signal.getsignal(sent) == before


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    import subprocess

    code = (
        "from segkd.training import launch as module\n"
        f"module.PROGRAM = {module.PROGRAM!r}\n"
        "module.several = lambda count: ['cpu'] * count\n"
        "module.launch(['waits,waits'], 2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    _until_both(tmp_path)
    parent.kill()
    parent.wait()
    assert all(gone(pid) for pid in pids(tmp_path))


def _send(folder: Path, sent: signal.Signals, times: int) -> None:
    _until_both(folder)  # else nothing is sent: without workers it would end the tests themselves
    for _ in range(times):
        os.kill(os.getpid(), sent)


def _until_both(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not (len(list(folder.iterdir())) == 2 and all(p.read_text() for p in folder.iterdir())):
        if time.monotonic() > deadline:
            raise TimeoutError(f"both processes should have written to {folder} within a minute")
        time.sleep(0.05)
    time.sleep(0.1)
