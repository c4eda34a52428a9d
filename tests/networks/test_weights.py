"""Weights on disk: what is written comes back, and nothing else is taken for it."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from small_networks import network
from torch import Tensor

from segkd.errors import CheckpointError
from segkd.networks.weights import load_into, read, write

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3), "c": torch.zeros(0, 4)}


def test_what_is_written_comes_back_with_the_files_hash(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.safetensors"
    sha256 = write(path, TENSORS)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    found = read(path, sha256)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) and found[name].dtype == TENSORS[name].dtype for name in found)
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_a_whole_network_survives_the_way(tmp_path: Path) -> None:
    trained, fresh = network(seed=1, attention="cbam"), network(seed=2, attention="cbam")
    path = tmp_path / "weights.safetensors"
    load_into(fresh, read(path, write(path, trained.state_dict())), where=path)
    assert all(
        torch.equal(one, other)
        for one, other in zip(trained.state_dict().values(), fresh.state_dict().values(), strict=True)
    )


def test_bytes_depend_on_names_and_values_alone(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    forms = [
        {"x": x, "y": x[0].clone()},
        {"y": x[0].clone().requires_grad_(), "x": x.to(memory_format=torch.channels_last)},
        {"x": x.transpose(0, 1).clone().transpose(0, 1), "y": x[0]},
    ]
    assert len({write(tmp_path / "w.safetensors", form) for form in forms}) == 1


@pytest.mark.fault("P3", "weights cut off at every length")
def test_every_truncated_file_is_refused(tmp_path: Path) -> None:
    path, content = tmp_path / "w.safetensors", save(TENSORS)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"w\.safetensors"):
            read(path)


@pytest.mark.fault("P3", "a flipped bit in weights")
def test_every_flipped_bit_is_found_by_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    sha256 = write(path, TENSORS)
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(CheckpointError, match="not the one that was written"):
            read(path, sha256)


@pytest.mark.fault("P3", "weights with any byte changed and no hash (hypothesis)")
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_without_a_hash_gives_tensors_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(save(TENSORS))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    try:
        found = read(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(tensor, Tensor) for tensor in found.values())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("touched"),)  # type: ignore[return-value]


@pytest.mark.fault("P4", "weights that are empty, a web page, or a pickle with code in it")
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"<html>log in</html>", b"{}", pickle.dumps(Evil())])
def test_foreign_files_are_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(CheckpointError, match="safetensors"):
        read(tmp_path / "foreign")
    assert not (tmp_path / "touched").exists()


@pytest.mark.fault("P3", "weights that are missing")
def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="to do"):
            read(path)


@pytest.mark.fault("P3", "weights with missing, extra and wrongly shaped keys")
def test_every_key_that_does_not_fit_is_listed_and_nothing_is_loaded() -> None:
    net = network(classes=3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    tensors = {name: tensor + 1 for name, tensor in network(classes=4).state_dict().items()}
    del tensors["backbone.bn1.weight"]
    tensors |= {"module.extra": torch.zeros(7), "backbone.bn1.bias": tensors["backbone.bn1.bias"].double()}
    with pytest.raises(CheckpointError) as caught:
        load_into(net, tensors, where="somewhere")
    for line in (
        "missing: backbone.bn1.weight (3,)",
        "unexpected: module.extra (7,)",
        "shape of head.classifier.weight: expected (3, 13, 1, 1), found (4, 13, 1, 1)",
        "shape of head.classifier.bias: expected (3,), found (4,)",
        "type of backbone.bn1.bias: expected torch.float32, found torch.float64",
        "5 keys",
        "somewhere",
    ):
        assert line in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
