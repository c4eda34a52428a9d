"""Disk full, read-only folders, no memory, values that are not finite: a clear end, the last good state intact."""

from __future__ import annotations

import errno
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from forks import process
from stopped import TAUGHT, TEACHER, eight_images

from segkd import steps
from segkd.config.runs import Run
from segkd.errors import NonFiniteError, OutOfMemoryError, StorageError
from segkd.files import atomic_write, read_json, sha256_file, write_json
from segkd.methods.base import Progress
from segkd.networks import weights
from segkd.networks.outputs import Outputs
from segkd.tracking.journal import Journal, read
from segkd.training import loop
from segkd.training import run as runs
from segkd.training import state as states
from segkd.training.lock import only_writer

ALONE = Run("tiny", "small")


def fail(number: int, after: int = 0) -> Callable[..., Any]:
    """A system call that fails with this error number, from the call after `after` on."""
    calls = [0]

    def failing(*_: object, **__: object) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(number, os.strerror(number))

    return failing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return eight_images(tmp_path / "project")


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "state-00000001-0.safetensors": lambda path, n: states.save_state(
        path.parent, states.State({"x": torch.full((3,), float(n))}, {"iteration": n})
    ),
    "weights.safetensors": lambda path, n: weights.write(path, {"x": torch.full((3,), float(n))}),
    "run.json": lambda path, n: write_json(path, {"n": n}),
    "figure.svg": lambda path, n: atomic_write(path, f"<svg>{n}</svg>"),
}
CALLS = {"os.fsync": errno.ENOSPC, "os.fdopen": errno.EDQUOT, "tempfile.mkstemp": errno.EROFS}


@pytest.mark.fault("P3", "no room, no quota, read-only, while a state, weights, run.json or a figure is written")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", WRITERS)
def test_what_was_there_stays(tmp_path: Path, name: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path / name, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    module, function = {"os": os, "tempfile": tempfile}[call.split(".", maxsplit=1)[0]], call.split(".")[1]
    with monkeypatch.context() as patch:
        patch.setattr(module, function, fail(CALLS[call]))
        with pytest.raises(StorageError, match=r"cannot be written[\s\S]*free space[\s\S]*the same command") as caught:
            WRITERS[name](tmp_path / name, 2)
    assert caught.value.errno == CALLS[call]
    assert os.strerror(CALLS[call]) in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    WRITERS[name](tmp_path / name, 2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} != before


@pytest.mark.fault("P2", "disk full while a state is written in mid-run; the same command when there is space again")
def test_disk_full_in_mid_run_and_on_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shas() -> tuple[str, str]:
        record = read_json(root / ALONE.folder / "run.json")
        return record["weights"]["sha256"], record["best"]["sha256"]

    steps.student(ALONE, steps.Options(root=root))
    calm = shas()
    save, done = states.save_state, []

    def full(folder: Path, state: states.State) -> Path:
        done.append(state.iteration)
        if state.iteration == 4:
            monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
        return save(folder, state)

    monkeypatch.setattr(states, "save_state", full)
    with pytest.raises(StorageError, match="No space left on device"):
        steps.student(ALONE, steps.Options(root=root, save_seconds=0))
    monkeypatch.undo()
    kept = states.load_state(root / ALONE.folder / "state")
    assert kept is not None
    assert kept.iteration == 3
    steps.student(ALONE, steps.Options(root=root))
    assert shas() == calm
    assert not list((root / ALONE.folder).glob(".*"))


@pytest.mark.fault("P3", "disk full while the journal is written: what was flushed stays whole")
def test_journal_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.train(1, {"loss": 1.0})
    journal.flush()
    journal.train(2, {"loss": 0.5})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail(errno.ENOSPC))
        with pytest.raises(StorageError, match="No space left"):
            journal.flush()
    assert [line["iteration"] for line in read(journal.path)] == [1]
    journal.flush()
    assert [line["iteration"] for line in read(journal.path)] == [1, 2]


@pytest.mark.fault("P3", "no room for the arrays of `prepare`, met in mid-file: what was prepared before stays")
def test_no_room_while_data_are_prepared(root: Path) -> None:
    def there() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (root / "data/prepared/digits").iterdir()}

    before = there()
    preparing = process(_prepare_with_little_room, root)
    preparing.start()
    preparing.join(60)
    assert preparing.exitcode == StorageError.exit_code
    assert "images.bin cannot be written" in (root / "message.txt").read_text()
    assert there() == before
    (root / "data/prepared/digits/manifest.json").unlink()
    steps.prepare("digits", root=root)
    assert there() == before


def _prepare_with_little_room(root: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the kernel refuses, as a full disk would
    try:
        steps.prepare("digits", root=root)
    except StorageError as error:
        (root / "message.txt").write_text(str(error))
        sys.exit(error.exit_code)


@pytest.mark.fault("P3", "a read-only run folder: said before the training")
def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", fail(errno.EROFS))
    with pytest.raises(StorageError, match="Read-only file system"), only_writer(tmp_path / "state"):
        pass


def raising(error: Exception, iteration: int) -> Callable[..., Any]:
    backward = loop.backward

    def failing(run: loop.Training, batch: Any, progress: Progress) -> dict[str, torch.Tensor]:
        if progress.iteration == iteration:
            raise error
        return backward(run, batch, progress)

    return failing


SHORT = {
    "CUDA out of memory. Tried to allocate 2.00 GiB": torch.OutOfMemoryError,
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes": RuntimeError,
    "": MemoryError,
}


@pytest.mark.fault("P3", "out of memory in a step: what was tried, and the setting to change; the state stays")
@pytest.mark.parametrize("words", SHORT)
def test_out_of_memory_names_the_setting(root: Path, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "backward", raising(SHORT[words](words), 2))
    with pytest.raises(OutOfMemoryError) as caught:
        steps.student(ALONE, steps.Options(root=root, save_seconds=0))
    assert "2 images of" in str(caught.value)
    assert "set micro_batch: 1 in the recipe" in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.exit_code == 6
    kept = states.load_state(root / ALONE.folder / "state")
    assert kept is not None
    assert kept.iteration == 2


@pytest.mark.fault("P3", "out of memory at the look at the validation split: evaluation.batch is named")
def test_out_of_memory_while_validating(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segkd.evaluation import quick

    def short(*_: object) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(quick, "miou", short)
    with pytest.raises(OutOfMemoryError, match=r"validation split[\s\S]*evaluation\.batch"):
        steps.student(ALONE, steps.Options(root=root))


@pytest.mark.fault("P3", "an error of another kind is not taken for a lack of memory")
def test_other_errors_stay_what_they_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "backward", raising(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 1))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        steps.student(ALONE, steps.Options(root=root))


@pytest.fixture
def bad_teacher(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A teacher whose logits are not finite from its third image batch on."""
    load, calls = runs.load_teacher, [0]

    def spoil(module: torch.nn.Module, given: object, outputs: Outputs) -> Outputs:
        calls[0] += 1
        return replace(outputs, logits=outputs.logits * float("inf")) if calls[0] > 2 else outputs

    def loaded(*words: Any) -> Any:
        teacher, done = load(*words)
        teacher.register_forward_hook(spoil)
        return teacher, done

    monkeypatch.setattr(runs, "load_teacher", loaded)
    yield


@pytest.mark.fault("P7", "teacher logits that are not finite: stopped before the update, teacher and state untouched")
def test_teacher_that_is_not_finite(root: Path, bad_teacher: None) -> None:
    steps.teacher(TEACHER, steps.Options(root=root))
    before = sha256_file(root / TEACHER.folder / "weights.safetensors")
    with pytest.raises(NonFiniteError, match="before update 3") as caught:
        steps.student(TAUGHT, steps.Options(root=root, save_seconds=0))
    assert caught.value.exit_code == 3
    assert sha256_file(root / TEACHER.folder / "weights.safetensors") == before
    kept = states.load_state(root / TAUGHT.folder / "state")
    assert kept is not None
    assert kept.iteration == 2
    assert all(bool(torch.isfinite(t).all()) for t in kept.tensors.values() if t.is_floating_point())
    told = read_json(root / TAUGHT.folder / "nonfinite.json")
    assert told["iteration"] == 2
    assert len(told["images"]) == 2
    random = weights.read(root / TAUGHT.folder / "nonfinite.safetensors")
    assert torch.equal(random["random.cpu"], kept.tensors["random.cpu"])
