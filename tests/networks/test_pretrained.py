"""ImageNet weights: fetched once, checked, laid over the backbone; against a local server and folders."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from served_files import BODY, SHA, Server, good
from small_networks import network
from torch import Tensor

from segkd.errors import CheckpointError, ConfigError, DownloadError
from segkd.networks import pretrained
from segkd.networks.catalogue import CATALOGUE
from segkd.networks.fetch import TRIES, fetch
from segkd.networks.pretrained import load_pretrained

pytestmark = pytest.mark.usefixtures("cache")


def test_a_file_is_fetched_once_and_kept(server: Server, cache: Path) -> None:
    server.answers = [good()]
    for _ in range(2):
        path = fetch("w.pth", server.url, SHA[:8])
        assert path == cache / "w.pth"
        assert path.read_bytes() == BODY
    assert server.asked == ["/models/w.pth"]


@pytest.mark.fault("P3", "damaged ImageNet weights in the cache")
def test_a_damaged_copy_in_the_cache_is_fetched_again(server: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / "w.pth").write_bytes(b"damaged")
    server.answers = [good()]
    assert fetch("w.pth", server.url, SHA[:8]).read_bytes() == BODY


@pytest.mark.fault("P5", "a server of weights that fails once")
@pytest.mark.parametrize("failure", [(500, b"", 0), (200, BODY[:5], len(BODY)), good(b"<html>log in</html>")])
def test_a_failure_is_tried_again(server: Server, failure: tuple[int, bytes, int]) -> None:
    server.answers = [failure, good()]
    assert fetch("w.pth", server.url, SHA[:8], pause=0).read_bytes() == BODY


@pytest.mark.fault("P3", "a server of weights that keeps failing")
@pytest.mark.parametrize(
    ("failure", "tries"), [((503, b"", 0), TRIES), (good(b"other"), TRIES), ((404, b"", 0), 1), ((403, b"", 0), 1)]
)
def test_lasting_failures_end_and_leave_nothing(
    server: Server, cache: Path, failure: tuple[int, bytes, int], tries: int
) -> None:
    server.answers = [failure]
    with pytest.raises(DownloadError, match=r"by hand, or set SEGKD_WEIGHTS"):
        fetch("w.pth", server.url, SHA[:8], pause=0)
    assert len(server.asked) == tries
    assert [file.name for file in cache.iterdir() if "lock" not in file.name] == []


@pytest.mark.fault("P5", "no network where the weights are there")
def test_without_network_a_file_put_into_the_cache_is_enough(cache: Path) -> None:
    cache.mkdir()
    (cache / "w.pth").write_bytes(BODY)
    assert fetch("w.pth", "http://127.0.0.1:9/", SHA[:8]).read_bytes() == BODY


@pytest.mark.parametrize("form", ["folder", "url", "environment"])
def test_a_local_folder_serves_as_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    folder = tmp_path / "my weights"
    folder.mkdir()
    (folder / "w.pth").write_bytes(BODY)
    source: dict[str, str | Path] = {"folder": {"source": folder}, "url": {"source": folder.as_uri()}}.get(form, {})
    if form == "environment":
        monkeypatch.setenv("SEGKD_WEIGHTS", str(folder))
    assert fetch("w.pth", "http://127.0.0.1:9/", SHA[:8], **source).read_bytes() == BODY


@pytest.mark.fault("P3", "a cache of weights that cannot be written")
def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SEGKD_CACHE", str(tmp_path / "file" / "cache"))
    server.answers = [good()]
    with pytest.raises(DownloadError, match=r"w\.pth"):
        fetch("w.pth", server.url, SHA[:8], pause=0)


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path, content: object, name: str = "imagenet-resnet18") -> None:
    """Put a checkpoint into `folder` under a name with its hash, as the publisher does, and into the catalogue."""
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / "draft")
    sha256 = hashlib.sha256((folder / "draft").read_bytes()).hexdigest()
    (folder / "draft").replace(folder / f"weights-{sha256[:8]}.pth")
    monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], file=f"weights-{sha256[:8]}.pth"))


def published(backbone: str, *, counters: bool) -> dict[str, Tensor]:
    """What torchvision publishes, at the width of the test's networks: backbone and classifier."""
    tensors = dict(network(seed=7, backbone=backbone).backbone.state_dict())
    extra = {"fc.weight": (1000, 26), "fc.bias": (1000,)}
    if backbone == "mobilenetv2":
        extra = {"features.18.0.weight": (8, 8, 1, 1), "classifier.1.weight": (1000, 8), "classifier.1.bias": (1000,)}
    tensors |= {name: torch.zeros(shape) for name, shape in extra.items()}
    return {name: tensor for name, tensor in tensors.items() if counters or not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenetv2"])
def test_weights_are_laid_over_the_backbone_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, counters: bool
) -> None:
    name, tensors = f"imagenet-{backbone}", published(backbone, counters=counters)
    publish(monkeypatch, tmp_path / "weights", tensors, name)
    net = network(backbone=backbone, attention="cbam")
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    left_out = load_pretrained(net, name, source=tmp_path / "weights")
    assert left_out == [key for key in tensors if key.startswith(("fc.", "classifier.", "features.18."))]
    for key, tensor in net.state_dict().items():
        expected = tensors.get(key.removeprefix("backbone."), before[key])
        assert torch.equal(tensor, expected)


def test_weights_come_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    publish(monkeypatch, tmp_path / "weights", published("resnet18", counters=True))
    [file] = (tmp_path / "weights").iterdir()
    server.answers = [good(file.read_bytes())]
    entry = CATALOGUE["imagenet-resnet18"]
    monkeypatch.setitem(CATALOGUE, "imagenet-resnet18", replace(entry, base=server.url))
    net = network()
    load_pretrained(net, "imagenet-resnet18")
    assert torch.equal(net.backbone.conv1.weight, network(seed=7).backbone.conv1.weight)
    assert server.asked == [f"/models/{file.name}"]


@pytest.mark.fault("P3", "ImageNet weights that do not fit")
def test_every_other_mismatch_is_listed_and_nothing_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = published("resnet18", counters=False)
    del tensors["layer1.0.conv1.weight"]
    tensors |= {"layer9.weight": torch.zeros(1), "bn1.bias": torch.zeros(99)}
    publish(monkeypatch, tmp_path / "weights", tensors)
    net = network()
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(net, "imagenet-resnet18", source=tmp_path / "weights")
    for line in ("missing: layer1.0.conv1.weight", "unexpected: layer9.weight", "shape of bn1.bias", "3 keys"):
        assert line in str(caught.value)
    assert torch.equal(net.backbone.conv1.weight, network().backbone.conv1.weight)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch touched",)


@pytest.mark.fault("P4", "a downloaded checkpoint with code in it, or of other things")
@pytest.mark.parametrize(
    "content", [{"conv1.weight": Evil()}, Evil(), torch.zeros(3), {"state": {"a": torch.zeros(1)}}]
)
def test_checkpoints_of_other_things_are_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    publish(monkeypatch, tmp_path / "weights", content)
    with pytest.raises(CheckpointError, match="a dictionary of tensors"):
        load_pretrained(network(), "imagenet-resnet18", source=tmp_path / "weights")
    assert not (tmp_path / "touched").exists()


@pytest.mark.fault("P4", "a downloaded checkpoint with any byte changed (hypothesis)")
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=100, deadline=None, derandomize=True)  # stumbling over the same stones each time
@given(st.data())
def test_a_damaged_checkpoint_gives_tensors_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    torch.save({"a": torch.arange(4.0)}, path, _use_new_zipfile_serialization=data.draw(st.booleans()))
    content = bytearray(path.read_bytes())[: data.draw(st.integers(0, 4000))]
    for _ in range(min(len(content), data.draw(st.integers(0, 3)))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = pretrained.read(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(tensor, Tensor) for tensor in found.values())


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"backbone": "resnet34"}, "imagenet-resnet18"),
        ({"stem": "deep"}, "imagenet-resnet18"),
        ({"stem": "conv3"}, "imagenet-resnet18"),
        ({}, "imagenet-resnet"),
        ({}, "imagenet-resnet18-deep"),
        ({"backbone": "xception41"}, "imagenet-xception41"),
        ({"backbone": "mit-b0", "output_stride": 32}, "imagenet-mit-b4"),
    ],
)
def test_weights_of_another_backbone_are_refused_before_anything_is_fetched(
    cache: Path, fields: dict[str, object], name: str
) -> None:
    with pytest.raises(ConfigError, match="pretrained"):
        load_pretrained(network(**fields), name)
    assert not cache.exists()
