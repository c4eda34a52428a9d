"""An unfinished run that is met by damage, by other conditions or by a second process: named, never silently redone."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forks import process
from killing import attempt, result, train_until
from stopped import TAUGHT, TEACHER, killed_in_mid_epoch

from segkd import steps
from segkd.data.prepared import Prepared
from segkd.data.restore import give_receipt
from segkd.errors import CheckpointError, DriftError, LockedError
from segkd.files import read_json, sha256_file, write_json
from segkd.networks import weights
from segkd.tracking.journal import Journal, read
from segkd.training import lock
from segkd.training import run as runs
from segkd.training import state as states
from segkd.training.lock import only_writer


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return killed_in_mid_epoch(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def calm(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("calm") / "project"
    shutil.copytree(killed, root)
    assert attempt(root, TAUGHT, fresh=True) == 0
    return root


@pytest.fixture
def root(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path / "project")
    return tmp_path / "project"


def saved(root: Path) -> list[Path]:
    return sorted((root / TAUGHT.folder / "state").glob("state-*"))


def train(root: Path, **options: bool) -> None:
    steps.student(TAUGHT, steps.Options(root=root, **options))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "one bit flipped": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "of something else": lambda content: b"PK\x03\x04 a zip file, or so it seems",
}


@pytest.mark.fault("P2", "a damaged newest state: named in log and journal, the one before it used")
@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_state(root: Path, calm: Path, how: str) -> None:
    newest = saved(root)[-1]
    newest.write_bytes(DAMAGE[how](newest.read_bytes()))
    assert attempt(root, TAUGHT) == 0
    assert result(root, TAUGHT) == result(calm, TAUGHT)
    events = [line for line in read(root / TAUGHT.folder / "metrics.jsonl") if line["kind"] == "event"]
    (told,) = [line["detail"] for line in events if line["event"] == "damaged state"]
    assert told.startswith(newest.name)


@pytest.mark.fault("P2", "all states damaged: refused, never silently from scratch")
def test_all_states_damaged(root: Path) -> None:
    for path in saved(root):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"No state of this run can be trusted[\s\S]*--fresh"):
        train(root)
    assert len(saved(root)) == 2, "what is left may still be mended from a backup"


@pytest.mark.fault("P2", "a state truncated at every prefix")
def test_every_prefix_of_a_state_is_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    one = states.State({"x": torch.arange(4.0)}, {"iteration": 1})
    before = states.save_state(tmp_path, one)
    newest = states.save_state(tmp_path, states.State({"x": torch.arange(4.0)}, {"iteration": 2}))
    content = newest.read_bytes()
    for length in range(len(content)):
        newest.write_bytes(content[:length])
        found = states.load_state(tmp_path)
        assert found is not None
        assert found.iteration == 1, before


@pytest.mark.fault("P2", "the state of another seed, undamaged")
def test_state_of_another_run(root: Path, killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DriftError, match=r"configuration: .*; seed 0 -> 1"):
        other = type(TAUGHT)("tiny", "small", "kd", "large", 1)
        shutil.copytree(root / TAUGHT.folder, root / other.folder)
        steps.student(other, steps.Options(root=root))


def edited(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("lr: 0.003", "lr: 0.002"))


def other_torch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "9.9.9")


def other_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "code_fingerprint", lambda *_: "other")


def other_teacher(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / TEACHER.folder
    tensors = {name: tensor * 2 for name, tensor in weights.read(path / "weights.safetensors").items()}
    record = read_json(path / "run.json")
    record["weights"]["sha256"] = weights.write(path / "weights.safetensors", tensors)
    write_json(path / "run.json", record)


def other_data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "data/prepared/digits"
    labels = bytearray((folder / "labels.bin").read_bytes())
    labels[0] ^= 1
    (folder / "labels.bin").write_bytes(labels)
    manifest = read_json(folder / "manifest.json")
    manifest["files"]["labels.bin"]["sha256"] = sha256_file(folder / "labels.bin")
    write_json(folder / "manifest.json", manifest)
    give_receipt("digits", root)
    record = read_json(root / TEACHER.folder / "run.json")  # else the teacher's data are missed first
    record["data"]["sha256"] = Prepared(folder).sha256
    write_json(root / TEACHER.folder / "run.json", record)


DRIFT = {
    "configuration: recipe.optimiser.lr 0.003 -> 0.002": edited,
    "torch: ": other_torch,
    "code: ": other_code,
    "teacher: ": other_teacher,
    "data: ": other_data,
}


@pytest.mark.fault("P2", "going on with another configuration, PyTorch, code, teacher or data: refused, way out named")
@pytest.mark.parametrize("told", DRIFT)
def test_drift_is_refused_and_the_way_out_named(root: Path, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DRIFT[told](root, monkeypatch)
    with pytest.raises(DriftError) as caught:
        train(root)
    assert f"  - {told}" in str(caught.value)
    assert f"segkd student {TAUGHT.name} --fresh" in str(caught.value)
    assert str(root / TAUGHT.folder / "state") in str(caught.value)
    assert len(saved(root)) == 2


@pytest.mark.fault("P3", "going on in spite of drift: recorded in run.json")
def test_allowed_drift_is_recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited(root, monkeypatch)
    train(root, allow_drift=True)
    (drift,) = read_json(root / TAUGHT.folder / "run.json")["drift"]
    assert drift == "configuration: recipe.optimiser.lr 0.003 -> 0.002"


@pytest.mark.fault("P2", "a second run on the same output: told who holds it, and it changes nothing")
def test_second_run_is_told_who_holds_it_and_changes_nothing(root: Path) -> None:
    folder = root / TAUGHT.folder
    with only_writer(folder / "state"):
        torn = (folder / "metrics.jsonl").read_bytes() + b'{"kind": "train", "iter'  # the other is writing a line
        (folder / "metrics.jsonl").write_bytes(torn)
        assert attempt(root, TAUGHT) == 4
        with pytest.raises(LockedError, match=f"process {os.getpid()} on {socket.gethostname()}"):
            holder = folder / "state" / "holder.txt"
            raise lock._locked(folder, lock._who(holder), "")
        assert (folder / "metrics.jsonl").read_bytes() == torn
    Journal(folder / "metrics.jsonl").rewind(1)
    assert read(folder / "metrics.jsonl")[-1]["iteration"] <= 1


@pytest.mark.fault("P2", "a folder held by a process of another machine: respected while that lives")
def test_holder_on_another_machine_is_respected_while_it_lives(tmp_path: Path) -> None:
    holder = tmp_path / "holder.txt"
    holder.write_text("process 7 on elsewhere\n")
    with (
        pytest.raises(LockedError, match=r"process 7 on elsewhere, which gave a sign of life \d+ s ago"),
        only_writer(tmp_path),
    ):
        pass
    assert holder.read_text() == "process 7 on elsewhere\n"
    long_ago = time.time() - lock.SILENT - 1
    os.utime(holder, (long_ago, long_ago))
    with only_writer(tmp_path):
        assert holder.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    assert not holder.exists()


@pytest.mark.fault("P2", "the lock of a process of this machine that was killed: taken over")
def test_lock_of_a_dead_process_is_taken_over(root: Path) -> None:
    left = root / TAUGHT.folder / "state" / "holder.txt"
    assert left.read_text().endswith(f" on {socket.gethostname()}\n"), "the killed process left it"
    with only_writer(left.parent):
        assert left.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


@pytest.mark.fault("P2", "SIGINT twice: the second stops at once, the state before it is intact")
def test_second_interrupt_stops_at_once(root: Path) -> None:
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("iterations: 6", "iterations: 100000"))
    training = process(train_until, root, TAUGHT, "", {"save_seconds": 0.0, "fresh": True})
    training.start()
    deadline = time.monotonic() + 60
    while not any(states._NAME.match(path.name) and "-00000005-" in path.name for path in saved(root)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for _ in range(40):  # the first asks, the next one acts, wherever the loop is
        if training.is_alive():
            os.kill(int(training.pid or 0), signal.SIGINT)
            time.sleep(0.001)
    training.join(30)
    assert training.exitcode not in {0, None}
    assert states.load_state(root / TAUGHT.folder / "state") is not None
