from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segkd.errors import DataError, StorageError
from segkd.tracking import journal as module
from segkd.tracking.journal import Journal, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.jsonl"


def test_lines_have_the_agreed_shape(path: Path) -> None:
    with Journal(path) as journal:
        journal.event(0, "start", "fresh")
        journal.train(1, {"loss": 1.5, "lr": 0.01})
        journal.val(1, {"miou": 0.25})
    start, train, val = read(path)
    assert {**start, "time": 0} == {"kind": "event", "iteration": 0, "time": 0, "event": "start", "detail": "fresh"}
    assert {**train, "time": 0} == {"kind": "train", "iteration": 1, "time": 0, "values": {"loss": 1.5, "lr": 0.01}}
    assert {**val, "time": 0} == {"kind": "val", "iteration": 1, "time": 0, "values": {"miou": 0.25}}
    assert start["time"] <= train["time"] <= val["time"]


@pytest.mark.fault("P3", "any values in a journal (hypothesis)")
@given(st.dictionaries(st.text(min_size=1), st.floats(width=64), max_size=5))
def test_every_float_comes_back_exactly_or_as_null_with_a_note(values: dict[str, float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        with Journal(path) as journal:
            journal.train(3, values)
        text = path.read_text()
        (line,) = read(path)
    bad = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
    assert text.count("\n") == 1
    assert json.loads(text, parse_constant=pytest.fail) == line  # no NaN or Infinity, which JSON has not
    assert line["values"] == {name: None if name in bad else value for name, value in values.items()}
    assert line.get("note", {}) == bad


def test_takes_numpy_scalars(path: Path) -> None:
    with Journal(path) as journal:
        journal.train(1, {"loss": np.float32(0.5), "seen": np.int64(3), "bad": np.float32("inf")})
    assert read(path)[0]["values"] == {"loss": 0.5, "seen": 3.0, "bad": None}


def test_a_call_costs_microseconds(path: Path) -> None:
    journal = Journal(path)
    values = {"loss": 1.23456, "task": 0.5, "kd": 0.7, "lr": 0.003}
    best = min(timeit.repeat(lambda: journal.train(7, values), number=500, repeat=5)) / 500
    assert best < 100e-6  # measured: 9 microseconds


def test_waits_in_memory_until_flush(path: Path) -> None:
    journal = Journal(path)
    journal.train(1, {"loss": 1.0})
    assert not path.exists()
    journal.flush()
    journal.flush()
    assert len(read(path)) == 1


def test_a_follower_sees_lines_without_flush(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_EVERY", -1.0)
    Journal(path).train(1, {"loss": 1.0})
    assert len(read(path)) == 1


@pytest.mark.fault("P2", "a journal that is ahead of the checkpoint")
def test_rewind_forgets_later_iterations_and_only_these(path: Path) -> None:
    journal = Journal(path)
    journal.event(0, "start")
    for iteration in range(1, 11):
        journal.train(iteration, {"loss": float(iteration)})
    journal.flush()
    journal.train(11, {"loss": 11.0})
    before = read(path)
    journal.rewind(4)
    assert read(path) == before[:5]
    journal.train(5, {"loss": 50.0})
    journal.flush()
    assert [line["iteration"] for line in read(path)] == [0, 1, 2, 3, 4, 5]


def test_rewind_to_a_checkpoint_before_its_validation_forgets_that_one(path: Path) -> None:
    journal = Journal(path)
    for iteration in (2, 4):
        journal.train(iteration, {"loss": 1.0})
        journal.val(iteration, {"miou": 0.5})
    journal.rewind(4, validated=False)
    assert [(line["kind"], line["iteration"]) for line in read(path)] == [("train", 2), ("val", 2), ("train", 4)]


def test_rewind_without_a_journal_does_nothing(path: Path) -> None:
    Journal(path).rewind(0)
    assert not path.exists()


@pytest.mark.fault("P2", "a journal with a torn last line")
@pytest.mark.parametrize("tail", [b'{"kind": "tr', b"{", b'{"kind": "train"}\n', b"\0\0\0\0", b"\0\0\n", b'"x"\n'])
def test_a_torn_last_line_is_dropped_on_reading_and_on_reopening(path: Path, tail: bytes) -> None:
    with Journal(path) as journal:
        journal.train(1, {"loss": 1.0})
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert len(read(path)) == 1
    Journal(path).rewind(1)  # opening alone changes nothing: another process may hold the journal
    assert path.read_bytes() == whole


@pytest.mark.fault("P2", "a journal of one torn line")
@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_journal_of_one_torn_line_is_empty(path: Path, cut: int) -> None:
    with Journal(path) as journal:
        journal.train(1, {"loss": 1.0})
    path.write_bytes(path.read_bytes()[:-cut])
    assert read(path) == []
    with Journal(path) as journal:
        journal.train(1, {"loss": 2.0})
    assert [line["values"]["loss"] for line in read(path)] == [2.0]


@pytest.mark.fault("P3", "a journal that is damaged in the middle")
def test_damage_in_the_middle_is_an_error_that_names_the_line(path: Path) -> None:
    with Journal(path) as journal:
        for iteration in range(3):
            journal.train(iteration, {"loss": 1.0})
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "rubbish\n" + lines[2])
    with pytest.raises(DataError, match=r"line\(s\) 2"):
        read(path)


def test_a_missing_journal_is_an_error(path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        read(path)


@pytest.mark.fault("P2", "kill -9 while a journal is written")
def test_kill_9_leaves_what_was_flushed(path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from segkd.tracking.journal import Journal
journal = Journal(Path({str(path)!r}))
journal.train(1, {{"loss": 1.0}})
journal.flush()
journal.train(2, {{"loss": 2.0}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", code], check=False)
    assert process.returncode == -signal.SIGKILL
    assert [line["iteration"] for line in read(path)] == [1]


@pytest.mark.fault("P3", "the disk fills up under a journal")
def test_full_disk_is_a_clear_error_and_keeps_the_last_good_state(path: Path) -> None:
    journal = Journal(path)
    journal.train(1, {"loss": 1.0})
    journal.flush()
    good = path.read_bytes()
    journal.train(2, {"loss": 2.0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(good) + 10, hard))  # the kernel takes 10 bytes, then refuses
    try:
        with pytest.raises(StorageError, match="cannot be written") as caught:
            journal.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == good
    journal.flush()  # room again: nothing was lost
    assert [line["iteration"] for line in read(path)] == [1, 2]


@pytest.mark.fault("P3", "a journal whose folder cannot be made")
def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    journal = Journal(tmp_path / "run" / "metrics.jsonl")
    journal.train(1, {"loss": 1.0})
    with pytest.raises(StorageError):
        journal.flush()


@pytest.mark.fault("P2", "a rewind of the journal that fails")
def test_failed_rewind_keeps_the_journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    for iteration in range(3):
        journal.train(iteration, {"loss": 1.0})
    journal.flush()
    good = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="No space left"):
        journal.rewind(0)
    assert path.read_bytes() == good
