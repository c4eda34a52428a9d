"""The catalogue of published weights: what this machine has, what it lacks and what to do, without torch."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from served_files import BODY, SHA, Server, good
from small_networks import network

from segkd.config.network import Backbone
from segkd.errors import ConfigError, DownloadError
from segkd.networks.catalogue import CATALOGUE, Entry, available, obtain
from segkd.networks.fetch import fetch, recorded, remember
from segkd.networks.pretrained import load_pretrained

pytestmark = pytest.mark.usefixtures("cache")
NAME = "imagenet-resnet18"


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> Entry:
    """The first entry, with a file whose content is known."""
    entry = replace(CATALOGUE[NAME], file=f"w-{SHA[:8]}.pth")
    monkeypatch.setitem(CATALOGUE, NAME, entry)
    return entry


def put(folder: Path, name: str, content: bytes = BODY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


def test_every_backbone_has_weights() -> None:
    """The paper's arrangement of Xception-41 was never trained by its authors."""
    assert {entry.backbone for entry in CATALOGUE.values()} == set(get_args(Backbone)) - {"xception41"}


def test_hashes_are_read_from_the_names() -> None:
    found = {name: entry.sha256 for name, entry in CATALOGUE.items()}
    without = {"imagenet-resnet18-deep", "imagenet-resnet101-deep"}
    assert {name for name, sha in found.items() if not sha} == without
    assert found["imagenet-resnet18"] == "5c106cde"
    assert found["imagenet-mit-b0"] == "7e0fe6dd"
    assert all(len(sha) == 8 and int(sha, 16) for sha in found.values() if sha)


def test_only_what_nobody_serves_is_had_by_hand_and_says_where() -> None:
    by_hand = {name: entry for name, entry in CATALOGUE.items() if not entry.base}
    assert list(by_hand) == ["imagenet-resnet101-deep"]
    assert all(entry.page.startswith("https://") for entry in by_hand.values())
    assert all(
        entry.base.startswith("https://") and entry.base.endswith("/") for entry in CATALOGUE.values() if entry.base
    )


def test_weights_of_another_normalisation_say_so() -> None:
    assert all("BGR" in entry.note for entry in CATALOGUE.values() if entry.keys == "deep-stem")
    assert "0.5" in CATALOGUE["imagenet-xception41"].note


def test_weights_in_the_cache_are_available(entry: Entry, cache: Path) -> None:
    assert entry.file in available(NAME)
    put(cache, entry.file)
    assert available(NAME) == ""


@pytest.mark.parametrize("form", ["folder", "url"])
def test_weights_in_a_folder_of_the_machine_are_available(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    folder = tmp_path / "my weights"
    monkeypatch.setenv("SEGKD_WEIGHTS", str(folder) if form == "folder" else folder.as_uri())
    assert "my" in available(NAME)
    put(folder, entry.file)
    assert available(NAME) == ""


def test_an_address_on_the_network_is_taken_at_its_word(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGKD_WEIGHTS", "http://127.0.0.1:9/")
    assert available(NAME) == ""


@pytest.mark.fault("P3", "damaged weights that a plan counts on")
def test_damaged_files_are_not_available(
    entry: Entry, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, entry.file, b"damaged")
    monkeypatch.setenv("SEGKD_WEIGHTS", str(put(tmp_path / "too", entry.file, b"damaged")))
    assert "undamaged" in available(NAME)


def test_what_is_missing_says_what_to_do(cache: Path) -> None:
    for name, entry in CATALOGUE.items():
        [line] = available(name).splitlines()
        assert name in line
        assert str(cache) in line
        assert "SEGKD_WEIGHTS" in line
        assert (entry.base + entry.file if entry.base else entry.page) in line


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="imagenet-resnet18, "):
        available("imagenet-vgg")


def test_the_catalogue_needs_no_torch() -> None:
    code = "import sys, segkd.networks.catalogue as c; c.available('imagenet-mit-b0'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_that_can_only_be_had_by_hand_say_where_from_and_where_to(cache: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        obtain("imagenet-resnet101-deep")
    for part in ("drive.google.com", str(cache / "resnet101-imagenet.pth"), "by hand", "SEGKD_WEIGHTS"):
        assert part in str(caught.value)


@pytest.mark.parametrize("place", ["cache", "folder"])
def test_weights_put_there_by_hand_are_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "folder":
        monkeypatch.setenv("SEGKD_WEIGHTS", str(tmp_path / "mine"))
    put(cache if place == "cache" else tmp_path / "mine", "resnet101-imagenet.pth")
    assert obtain("imagenet-resnet101-deep").read_bytes() == BODY


@pytest.mark.fault("P3", "weights without a published hash that change later")
def test_a_remembered_file_must_stay_the_same(server: Server, cache: Path) -> None:
    server.answers = [good()]
    path = fetch("plain.pth", server.url)
    assert recorded(path) == ""
    remember(path)
    remember(path)
    assert (cache / "plain.pth.sha256").read_text() == f"{SHA}  plain.pth\n"
    assert fetch("plain.pth", "http://127.0.0.1:9/") == path
    path.write_bytes(b"changed")
    assert fetch("plain.pth", server.url).read_bytes() == BODY
    path.unlink()
    server.answers = [good(b"another")]
    with pytest.raises(DownloadError, match=rf"(?s){SHA}.*another file came.*delete .*plain.pth.sha256"):
        fetch("plain.pth", server.url, pause=0)
    assert not path.exists()


@pytest.mark.fault("P3", "weights had by hand that change later")
def test_a_remembered_file_had_by_hand_and_changed_is_told(cache: Path) -> None:
    put(cache, "hand.pth")
    remember(fetch("hand.pth", "", page="https://page"))
    put(cache, "hand.pth", b"changed")
    with pytest.raises(DownloadError, match=r"(?s)another file.*https://page.*delete"):
        fetch("hand.pth", "", page="https://page")


def test_a_broken_line_is_known_without_a_hash(server: Server) -> None:
    server.answers = [(200, BODY[:5], len(BODY)), good()]
    assert fetch("plain.pth", server.url, pause=0).read_bytes() == BODY
    assert len(server.asked) == 2


def test_only_weights_that_fitted_are_remembered(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setitem(
        CATALOGUE, "imagenet-resnet18-deep", replace(CATALOGUE["imagenet-resnet18-deep"], base=server.url)
    )
    file = cache / "resnet18-imagenet.pth"
    server.answers = [good(b"<html>log in</html>")]
    with pytest.raises(Exception, match="delete the file"):
        load_pretrained(network(stem="deep"), "imagenet-resnet18-deep")
    assert recorded(file) == ""
    file.unlink()
    torch.save(deep_stem_file(), tmp_path / "published")
    server.answers = [good((tmp_path / "published").read_bytes())]
    net = network(stem="deep")
    assert load_pretrained(net, "imagenet-resnet18-deep") == ["fc.weight"]
    assert recorded(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    expected = network(stem="deep", seed=7).backbone.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.backbone.state_dict().items())


def deep_stem_file() -> dict[str, torch.Tensor]:
    """What CIRKD publishes, at the width of the test's networks."""
    stem = {
        "conv1.0": "conv1",
        "conv1.1": "bn1",
        "conv1.3": "conv2",
        "conv1.4": "bn2",
        "conv1.6": "conv3",
        "bn1": "bn3",
    }
    found = {"fc.weight": torch.zeros(1000, 26)}
    for name, tensor in network(stem="deep", seed=7).backbone.state_dict().items():
        part, _, kind = name.rpartition(".")
        found[f"{stem.get(part, part)}.{kind}"] = tensor
    return found
