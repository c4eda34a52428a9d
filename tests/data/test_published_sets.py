"""What holds for all data sets that are published as archives: fingerprints, restoring, threads, memory."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from drawn_sets import few, grey_png, jpeg, of_ids
from made_data import put
from pydantic import TypeAdapter

from segkd.config.data import ADE20KData, ContextData, DatasetConfig
from segkd.data import ade20k, check, voc
from segkd.data.catalogue import PUBLISHED
from segkd.data.check import Check
from segkd.data.download import download
from segkd.data.fingerprint import source_fingerprint
from segkd.data.labels import LabelMap
from segkd.data.prepare import prepare
from segkd.data.readers import ARCHIVES
from segkd.data.restore import give_receipt, restore
from segkd.data.sources import collect
from segkd.files import read_json

ADE = ADE20KData(kind="ade20k")
TRAIN = 40


def config_of(kind: str) -> Any:
    return TypeAdapter(DatasetConfig).validate_python({"kind": kind})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with ADE20K in miniature, of many sizes, in data/raw."""
    few(monkeypatch, "ade20k", train=TRAIN, val=2)
    base = tmp_path / "mine/ADEChallengeData2016"
    for k in range(TRAIN + 2):
        part = "training" if k < TRAIN else "validation"
        size = (5 + k % 4, 6 + k % 3)
        put(base / f"images/{part}/{k:03d}.jpg", jpeg(k, *size))
        put(base / f"annotations/{part}/{k:03d}.png", grey_png(of_ids(0, k + 1, height=size[0], width=size[1])))
    download("ade20k", ADE, tmp_path / "data/raw/ade20k", source=tmp_path / "mine")
    return tmp_path


def made(root: Path, name: str) -> dict[str, str]:
    prepare("ade20k", ADE, root / "data/raw/ade20k", root / name)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (root / name).iterdir()}


def test_fingerprints_need_nothing_and_tell_apart() -> None:
    configs = [config_of(kind) for kind in PUBLISHED] + [ContextData(kind="context", background=False)]
    found = [source_fingerprint(config) for config in configs]
    assert len(set(found)) == len(configs)
    assert found == [source_fingerprint(config) for config in configs]


def test_fingerprint_follows_the_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_fingerprint(config_of("voc"))
    monkeypatch.setitem(ARCHIVES, "voc", (dataclasses.replace(voc.VOC_ARCHIVE, sha256="0" * 64),))
    assert source_fingerprint(config_of("voc")) != before


def test_fingerprint_follows_what_the_ids_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_fingerprint(config_of("ade20k"))
    monkeypatch.setattr(ade20k, "label_map", lambda: LabelMap.of({1: 0}))
    assert source_fingerprint(config_of("ade20k")) != before


def test_lost_prepared_data_come_back_from_the_raw_files(root: Path) -> None:
    place = root / "data/prepared/ade20k"
    before = made(root, "data/prepared/ade20k")
    give_receipt("ade20k", root)
    shutil.rmtree(place)
    assert restore("ade20k", ADE, root) == place
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()} == before


def test_any_number_of_threads_gives_the_same_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads, window in ((1, 1), (2, 8), (7, 18)):
        monkeypatch.setattr(check, "THREADS", threads)
        monkeypatch.setattr(check, "WINDOW", window)
        found.append(made(root, f"with{threads}"))
    assert found[0] == found[1] == found[2]


def test_few_pictures_are_held_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    look = check.look
    monkeypatch.setattr(check, "look", lambda collection, pair: looked.append(pair) or look(collection, pair))
    monkeypatch.setattr(check, "WINDOW", 5)
    raw = root / "data/raw/ade20k"
    for taken, _ in enumerate(Check(collect(ADE, raw, read_json(raw / "manifest.json"))).sound(), 1):
        assert len(looked) <= taken + 5
    assert len(looked) == TRAIN + 2
