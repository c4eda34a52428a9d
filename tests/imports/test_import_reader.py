"""What the confined reader takes and what it refuses: nothing in a checkpoint runs, grows or is believed."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from segkd.errors import CheckpointError
from segkd.imports import reader
from segkd.imports.read import READER, _told, read_checkpoint

WEIGHTS = {
    "b.weight": torch.arange(6.0).view(2, 3),
    "a.weight": torch.ones(3, dtype=torch.float16),
    "a.running_mean": torch.zeros(3, dtype=torch.bfloat16),
    "a.num_batches_tracked": torch.tensor(7),
}


class Call:
    """Pickles as a call of a function: what unpickling would do."""

    def __init__(self, function: Any, *words: Any) -> None:
        self.what = (function, words)

    def __reduce__(self) -> Any:
        return self.what


def saved(folder: Path, content: object, **options: Any) -> Path:
    path = folder / "theirs.pth"
    torch.save(content, path, **options)
    return path


def repacked(path: Path, change: dict[str, Any], compress: int = zipfile.ZIP_STORED) -> Path:
    """The archive with some entries changed or added, stored or compressed."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    for ending, edit in change.items():
        name = next((name for name in entries if name.endswith(ending)), f"theirs/{ending}")
        entries[name] = edit(entries.get(name, b""))
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def extract(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    target = path.with_suffix(".safetensors")
    told = reader.extract(path, target)
    return told, load_file(target)


def refusal(path: Path) -> str:
    target = path.with_suffix(".safetensors")
    with pytest.raises(reader.RefusedError) as caught:
        reader.extract(path, target)
    assert not target.exists()
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("holder", ["", "state_dict", "model"])
def test_weights_come_out_as_they_are(tmp_path: Path, zipped: bool, holder: str) -> None:
    content = {holder: WEIGHTS, "epoch": 3, "args": {"lr": 0.1}} if holder else WEIGHTS
    told, found = extract(saved(tmp_path, content, _use_new_zipfile_serialization=zipped))
    assert told["holder"] == holder
    assert told["names"] == list(WEIGHTS)
    assert told["beside"] == ({"'epoch'": "int", "'args'": "dict"} if holder else {})
    for name, tensor in WEIGHTS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_what_real_trainers_save(tmp_path: Path) -> None:
    """A module's state dict, with its `_metadata`; parameters; tensors that lay on a GPU, in another memory format."""
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).to(
        memory_format=torch.channels_last
    )
    content = {"state_dict": module.state_dict(), "epoch": 1}
    path = repacked(
        saved(tmp_path, content), {"data.pkl": lambda data: data.replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:0")}
    )
    _, found = extract(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in module.state_dict().items())
    told, _ = extract(saved(tmp_path, dict(module.named_parameters())))
    assert told["names"] == ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.mark.parametrize("module", ["numpy._core.multiarray", "numpy.core.multiarray"])
def test_numbers_of_numpy_are_read(tmp_path: Path, module: str) -> None:
    best = {"best_pred": np.float64(0.7785), "epoch": np.int64(119), "f": np.float32(1), "done": np.bool_(True)}
    path = saved(tmp_path, {"state_dict": WEIGHTS, **best, "optimizer": {"state": {}, "param_groups": []}})
    name = b"numpy._core.multiarray"
    repacked(path, {"data.pkl": lambda data: data.replace(name, module.encode())})
    told, _ = extract(path)
    assert told["beside"]["'best_pred'"] == "float64"
    assert told["beside"]["'optimizer'"] == "dict"


@pytest.mark.fault("P4", "released checkpoints with code in them")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["system", "write", "connect", "eval", "array"])
def test_code_is_named_and_never_run(tmp_path: Path, name: str, zipped: bool) -> None:
    canary = tmp_path / "canary"
    calls = {
        "system": (Call(os.system, f"touch {canary}"), "posix.system"),
        "write": (Call(open, str(canary), "w"), "io.open (it was not run)"),
        "connect": (Call(socket.create_connection, ("127.0.0.1", 9)), "socket.create_connection"),
        "eval": (Call(eval, f"open({str(canary)!r}, 'w')"), "eval (it was not run)"),
        "array": (np.zeros(3), "numpy._core.multiarray._reconstruct"),
    }
    call, said = calls[name]
    path = saved(tmp_path, {"state_dict": {**WEIGHTS, "x": call}}, _use_new_zipfile_serialization=zipped)
    assert said in refusal(path)
    assert not canary.exists()


@pytest.mark.fault("P3", "released checkpoints cut off anywhere")
@pytest.mark.parametrize("zipped", [True, False])
def test_files_cut_off_anywhere_are_refused(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path, {"state_dict": WEIGHTS}, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in {0, 1, 2, 3, 4, 5, 30, *range(6, len(whole), 37), len(whole) - 1}:
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.fault("P4", "released checkpoints with any byte changed (hypothesis)")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(tmp_path: Path, place: float, value: int) -> None:
    path = saved(tmp_path, {"state_dict": WEIGHTS})
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = value
    path.write_bytes(content)
    try:
        told, found = extract(path)
    except reader.RefusedError as error:
        assert str(error)
    else:
        assert sorted(told["names"]) == sorted(found)


@pytest.mark.fault("P3", "a web page, a pointer or an archive instead of a checkpoint")
def test_other_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pth"
    for content, said in (
        (b"", "an empty file"),
        (b"\n <!DOCTYPE html><html>Google Drive - Virus scan warning", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Error"),
        (pickle.dumps({"state_dict": {}}, protocol=2), "Error"),
    ):
        path.write_bytes(content)
        assert said in refusal(path)
    save_file({"a": torch.zeros(1)}, path)
    assert "Error" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    assert "without data.pkl" in refusal(path)


@pytest.mark.fault("P4", "a checkpoint that is a bomb, TorchScript, or claims more bytes than it has")
def test_archives_that_torch_save_does_not_write(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": WEIGHTS})
    repacked(path, {"data/9": lambda _: bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "compressed" in refusal(path)
    repacked(saved(tmp_path, WEIGHTS), {"code/__torch__.py": lambda _: b"def forward(self): pass"})
    assert "TorchScript" in refusal(path)
    whole = saved(tmp_path, WEIGHTS).read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        start = archive.start_dir
    size = whole.index(b"PK\x01\x02", start) + 24  # uncompressed size of the first entry in the directory
    path.write_bytes(whole[:size] + (1 << 30).to_bytes(4, "little") + whole[size + 4 :])
    assert "claim more bytes" in refusal(path) or "damaged" in refusal(path)


@pytest.mark.fault("P4", "checkpoints that hold no state dict, expanded or sparse tensors")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "a list"),
        ({}, "an empty dictionary"),
        ({"epoch": 1, "weights": WEIGHTS}, "none of state_dict, model"),
        ({"state_dict": WEIGHTS, "model": WEIGHTS}, "several of them"),
        ({"state_dict": {**WEIGHTS, "epoch": 3}}, "'epoch' is a int"),
        ({"state_dict": {3: torch.zeros(1)}}, "3 is no name"),
        ({"state_dict": {"a\x1b[2J": torch.zeros(1)}}, r"'a\x1b[2J' is no name"),
        ({"state_dict": {"a": torch.zeros(1).expand(1000, 1000)}}, "of shape (1000, 1000), but has 4 bytes"),
        ({"state_dict": {"a": torch.zeros(2, 2).to_sparse()}}, "uncommon kind"),
        ({"state_dict": {"a": torch.zeros(2, dtype=torch.complex64)}}, "uncommon kind"),
        ({"state_dict": {"a": torch.empty(2, device="meta")}}, "uncommon kind"),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, content: object, said: str) -> None:
    assert said in refusal(saved(tmp_path, content))


@pytest.mark.fault("P4", "a checkpoint of many names for one tensor")
def test_second_names_of_a_tensor_are_taken_but_not_any_number_of_them(tmp_path: Path) -> None:
    tensor = torch.randn(5000)
    path = saved(tmp_path, {"a": tensor, "b": tensor})
    told, found = extract(path)
    assert told["names"] == ["a", "b"]
    assert torch.equal(found["a"], found["b"])
    path.with_suffix(".safetensors").unlink()
    assert "tensors of 200000 bytes" in refusal(saved(tmp_path, {f"a{k}": tensor for k in range(10)}))


CONFINED = """
import json, os, resource, runpy, socket, subprocess, sys
module = runpy.run_path(sys.argv[1])
folder = sys.argv[2]
told = {"network": module["leave_network"](), "interfaces": [name for _, name in socket.if_nameindex()]}
module["confine"](1000)
told["limits"] = {kind: resource.getrlimit(getattr(resource, kind))[0] for kind in ("RLIMIT_FSIZE", "RLIMIT_CPU")}
def fails(action):
    try:
        action()
    except BaseException as error:
        return type(error).__name__
    return "it was done"
told["tried"] = {
    "connect": fails(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
    "bind": fails(lambda: socket.socket().bind(("127.0.0.1", 0))),
    "start": fails(lambda: subprocess.run(["true"])),
    "system": fails(lambda: os.system("touch " + folder + "/new")),
    "fork": fails(os.fork),
    "write": fails(lambda: open(folder + "/new", "w")),
    "append": fails(lambda: open(folder + "/old", "a")),
    "open": fails(lambda: os.open(folder + "/new", os.O_CREAT | os.O_WRONLY)),
    "remove": fails(lambda: os.remove(folder + "/old")),
    "rename": fails(lambda: os.rename(folder + "/old", folder + "/new")),
    "memory": fails(lambda: bytearray(3 << 30)),
    "read": fails(lambda: open(folder + "/old").read()),
}
print(json.dumps(told))
"""


@pytest.mark.fault("P4", "code in the process that reads checkpoints")
def test_the_reading_process_is_confined(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("as it was")
    words = [sys.executable, "-I", "-c", CONFINED, str(READER), str(tmp_path)]
    told = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=60).stdout)
    assert told["tried"].pop("read") == "it was done"
    assert told["tried"].pop("memory") == "MemoryError"
    assert set(told["tried"].values()) == {"RefusedError"}
    assert told["limits"]["RLIMIT_FSIZE"] == reader.MIB + reader.COPIES * 1000
    assert 60 <= told["limits"]["RLIMIT_CPU"] < 70
    assert told["network"].endswith("audit hook")
    if told["network"].startswith("network namespace"):
        assert told["interfaces"] == ["lo"]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "as it was"


def test_a_checkpoint_is_read_by_that_process(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": WEIGHTS, "best_pred": np.float64(0.5)})
    found = read_checkpoint(path)
    assert list(found.tensors) == list(WEIGHTS)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in WEIGHTS.items())
    assert (found.holder, found.beside, found.size) == ("state_dict", {"'best_pred'": "float64"}, path.stat().st_size)


@pytest.mark.fault("P4", "a checkpoint that takes 32 GiB of memory")
def test_what_that_process_refuses_is_one_error(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = saved(tmp_path, {"state_dict": Call(os.system, f"touch {canary}")})
    with pytest.raises(CheckpointError, match=r"posix\.system .it was not run") as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value) and "weights_only" not in str(caught.value)
    path = saved(tmp_path, {"state_dict": WEIGHTS, "x": Call(bytearray, 32 << 30)})  # PyTorch allows this one
    with pytest.raises(CheckpointError, match="more memory"):
        read_checkpoint(path)
    assert not canary.exists()


@pytest.mark.fault("P3", "a checkpoint whose reader dies")
def test_files_that_are_none_and_readers_that_die(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="no plain file"):
        read_checkpoint(tmp_path)
    for code, output, said in ((-24, "", "SIGXCPU"), (1, "Traceback", "did not survive: Killed")):
        done = subprocess.CompletedProcess([], code, output, "one\nKilled\n")
        with pytest.raises(CheckpointError, match=said):
            _told(tmp_path, done)
