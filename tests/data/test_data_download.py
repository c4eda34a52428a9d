"""The step `download`: camvid from a server and from a copy, the others in place; fingerprints; the catalogue."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_data import folder, ids, picture, png, put
from PIL import Image

from segkd.config.data import CamVidData, DigitsData
from segkd.data import camvid
from segkd.data.catalogue import info
from segkd.data.download import download
from segkd.data.fetch import Patience
from segkd.data.fingerprint import hash_files, source_fingerprint
from segkd.data.prepare import prepare
from segkd.data.prepared import Prepared
from segkd.errors import ConfigError, DataError, DownloadError
from segkd.files import sha256_file

CONFIG = CamVidData(kind="camvid")
COUNTS = {"train": 3, "val": 1, "test": 2}
HEIGHT, WIDTH = 9, 12


def drawn() -> dict[str, bytes]:
    """Published name -> content, in the genuine layout: six folders, labels 0 to 11."""
    contents = {}
    for s, (split, count) in enumerate(COUNTS.items()):
        for k in range(count):
            label = ids(10 * s + k, HEIGHT, WIDTH, 12)
            label[label == 255] = 11
            contents[f"{split}/seq_{s}{k}.png"] = png(picture(10 * s + k, HEIGHT, WIDTH))
            contents[f"{split}annot/seq_{s}{k}.png"] = png(label)
    return contents


@pytest.fixture
def small(monkeypatch) -> dict[str, bytes]:
    """CamVid with six images; returns what is published."""
    contents = drawn()
    made = tuple(
        camvid.Row(
            name.split("/")[0].removesuffix("annot"),
            "label" if "annot" in name else "image",
            f"dataset/{name}",
            len(content),
            hashlib.sha256(content).hexdigest(),
            WIDTH,
            HEIGHT,
        )
        for name, content in contents.items()
    )
    monkeypatch.setattr(camvid, "rows", lambda: made)
    monkeypatch.setattr(camvid, "CAMVID", dataclasses.replace(camvid.CAMVID, counts=COUNTS))
    return contents


def copy(root: Path, contents: dict[str, bytes], *, jpeg: bool = False) -> Path:
    for name, content in contents.items():
        if jpeg and "annot" not in name:
            buffer = io.BytesIO()
            Image.open(io.BytesIO(content)).save(buffer, "JPEG", quality=95)
            put(root / name.replace(".png", ".jpg"), buffer.getvalue())
        else:
            put(root / name, content)
    return root


def manifest(raw: Path) -> dict:
    return json.loads((raw / "manifest.json").read_text())


@pytest.mark.parametrize(("jpeg", "published"), [(False, 12), (True, 6)])
def test_a_copy_is_taken_over_checked_and_prepared(tmp_path, small, jpeg, published):
    source = copy(tmp_path / "copy", small, jpeg=jpeg)
    before = {file: file.read_bytes() for file in source.rglob("*.*")}
    raw = tmp_path / "raw"
    assert download("camvid", CONFIG, raw, source=source) == raw / "manifest.json"
    found = manifest(raw)
    assert (found["how"], found["published_bytes"], len(found["files"])) == ("copy", published, 12)
    assert found["redistributable"] is False
    assert all(sha256_file(raw / name) == entry["sha256"] for name, entry in found["files"].items())
    data = Prepared(prepare("camvid", CONFIG, raw, tmp_path / "prepared").parent)
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [3, 1, 2]
    label = np.asarray(Image.open(io.BytesIO(small["trainannot/seq_01.png"])))
    assert np.array_equal(data.split("train").label(1), np.where(label == 11, 255, label))
    assert data.split("train").ids == ["seq_00", "seq_01", "seq_02"]
    assert {file: file.read_bytes() for file in source.rglob("*.*")} == before


def test_the_repositorys_folder_around_the_copy_is_found(tmp_path, small):
    copy(tmp_path / "clone/dataset", small)
    assert manifest(download("camvid", CONFIG, tmp_path / "raw", source=tmp_path / "clone").parent)["how"] == "copy"


@pytest.mark.fault("P3", "a copy of a data set with missing and wrong files")
def test_all_faults_of_a_copy_come_at_once(tmp_path, small):
    source = copy(tmp_path / "copy", small)
    (source / "train/seq_00.png").unlink()
    put(source / "train/seq_20.png", small["test/seq_20.png"])
    put(source / "valannot/seq_10.png", png(np.full((HEIGHT, WIDTH), 31, np.uint8)))
    put(source / "test/seq_21.png", png(picture(5, HEIGHT, 2 * WIDTH)))
    put(source / "testannot/seq_20.png", b"")
    with pytest.raises(DataError) as caught:
        download("camvid", CONFIG, tmp_path / "raw", source=source)
    for fault in (
        "5 faults",
        "train/seq_00.png: is missing",
        "train/seq_20.png: is not part of this split",
        "valannot/seq_10.png: has label ids [31] beside 0 to 11",
        "test/seq_21.png: is 24 x 9, not 12 x 9",
        "testannot/seq_20.png: is empty",
    ):
        assert fault in str(caught.value)
    assert not (tmp_path / "raw/manifest.json").exists()


def test_an_empty_copy_is_refused(tmp_path, small):
    with pytest.raises(DataError, match="12 faults"):
        download("camvid", CONFIG, tmp_path / "raw", source=tmp_path)


def test_better_files_replace_a_copy(tmp_path, small):
    raw = tmp_path / "raw"
    download("camvid", CONFIG, raw, source=copy(tmp_path / "jpeg", small, jpeg=True))
    put(raw / "notes.txt", "mine")
    download("camvid", CONFIG, raw, source=copy(tmp_path / "png", small))
    assert not list(raw.rglob("*.jpg")) and manifest(raw)["published_bytes"] == 12
    assert (raw / "notes.txt").exists()


@pytest.mark.fault("P5", "no network after the data were brought")
def test_a_copy_taken_over_earlier_is_kept_without_network(tmp_path, small, monkeypatch):
    monkeypatch.setattr(camvid, "BASE", "http://127.0.0.1:9/")
    raw = tmp_path / "raw"
    download("camvid", CONFIG, raw, source=copy(tmp_path / "jpeg", small, jpeg=True))
    before = manifest(raw)
    (raw / "manifest.json").unlink()  # as Snakemake does before it runs the step again
    download("camvid", CONFIG, raw)
    assert manifest(raw) == before


def test_a_download_fetches_the_rest_and_names_the_way_by_hand(tmp_path, small, monkeypatch):
    import functools
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            """Quiet."""

    served = copy(tmp_path / "served/dataset", small)
    (served / "val/seq_10.png").rename(tmp_path / "away.png")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        monkeypatch.setattr(camvid, "BASE", f"http://127.0.0.1:{server.server_port}/")
        raw, patience = tmp_path / "raw", Patience(attempts=1)
        with pytest.raises(DownloadError, match=r"val/seq_10.png: HTTP 404[\s\S]*segkd download camvid --from DIR"):
            download("camvid", CONFIG, raw, patience=patience)
        assert not (raw / "manifest.json").exists()
        (tmp_path / "away.png").rename(served / "val/seq_10.png")
        download("camvid", CONFIG, raw, patience=patience)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (manifest(raw)["how"], manifest(raw)["published_bytes"]) == ("download", 12)
    assert all((raw / name).read_bytes() == content for name, content in small.items())
    assert prepare("camvid", CONFIG, raw, tmp_path / "prepared").exists()


@pytest.mark.fault("P3", "a raw file lost or damaged after the download")
def test_a_raw_file_lost_or_damaged_after_download_is_found(tmp_path, small):
    raw = tmp_path / "raw"
    download("camvid", CONFIG, raw, source=copy(tmp_path / "copy", small))
    (raw / "train/seq_00.png").unlink()
    put(raw / "val/seq_10.png", small["test/seq_20.png"])
    with pytest.raises(DataError) as caught:
        prepare("camvid", CONFIG, raw, tmp_path / "prepared")
    assert "train/seq_00.png: cannot be read" in str(caught.value)
    assert "val/seq_10.png: has changed" in str(caught.value)


def test_the_committed_manifest_is_camvids():
    rows = camvid.rows()
    assert len(rows) == 1402 and len({row.sha256 for row in rows}) == 1402
    images = [row for row in rows if row.kind == "image"]
    assert {split: sum(row.split == split for row in images) for split in COUNTS} == info("camvid").counts
    assert {(row.width, row.height) for row in rows} == {(480, 360)}
    assert all(row.name.startswith(row.split) and row.name.endswith(".png") for row in rows)
    assert len(camvid.COMMIT) == 40 and camvid.COMMIT in camvid.BASE


def test_camvids_void_is_ignored():
    labels = camvid.label_map()
    assert labels.ids() == list(range(12)) and labels.table[:12].tolist() == [*range(11), 255]


def test_digits_need_nothing_but_leave_a_manifest(tmp_path):
    config = DigitsData(kind="digits", seed=4)
    found = manifest(download("digits", config, tmp_path).parent)
    assert found["how"] == "embedded" and found["config"]["seed"] == 4 and found["files"] == {}
    assert len(found["digits_sha256"]) == 64


def test_a_folder_stays_where_it_is(tmp_path):
    config = folder(tmp_path / "files", {"train": 1, "val": 1})
    found = manifest(download("mine", config, tmp_path / "raw").parent)
    assert found["how"] == "in place" and len(found["files"]) == 5
    assert [file.name for file in (tmp_path / "raw").iterdir()] == ["manifest.json"]


def test_from_is_for_downloads_only(tmp_path):
    with pytest.raises(ConfigError, match="takes no copy"):
        download("digits", DigitsData(kind="digits"), tmp_path, source=tmp_path)


@pytest.mark.parametrize("kind", ["camvid", "digits"])
def test_entries_of_the_catalogue_are_whole(kind):
    entry = info(kind)
    assert len(entry.classes) == len(entry.palette) == len(set(entry.palette)) == 11
    assert entry.licence and entry.demands and entry.homepage.startswith("http")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="one of ade20k, camvid"):
        info("imagenet")


def test_the_catalogue_imports_nothing_heavy():
    code = (
        "import sys, segkd.data.catalogue as c, segkd.data.download, segkd.data.fingerprint; c.info('digits');"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'mlflow', 'matplotlib') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_fingerprints_change_with_what_the_data_are_made_from(tmp_path, monkeypatch):
    digits = [source_fingerprint(DigitsData(kind="digits", seed=seed)) for seed in (0, 0, 1)]
    assert digits[0] == digits[1] != digits[2]
    first = source_fingerprint(CONFIG)
    monkeypatch.setattr(camvid, "MANIFEST", put(tmp_path / "other.csv", "split\n"))
    assert source_fingerprint(CONFIG) != first


@pytest.mark.parametrize("name", ["dataset.yaml", "images/train/train0.png", "labels/val/val1.png"])
def test_a_folders_fingerprint_is_its_content(tmp_path, name):
    here, there = (folder(tmp_path / place) for place in ("here", "there"))
    first = source_fingerprint(here, None)
    assert source_fingerprint(there, None) == first
    file = tmp_path / "here" / name
    file.write_bytes(file.read_bytes() + b"\n")
    assert source_fingerprint(here, None) != first


def test_hashes_are_remembered_until_a_file_changes(tmp_path):
    file = put(tmp_path / "files/a", b"one")
    old = time.time() - 100
    os.utime(file, (old, old))
    first = hash_files(tmp_path / "files", ["a"], tmp_path / "cache")
    file.write_bytes(b"two")  # same size and time: the remembered hash shows that the file was not read
    os.utime(file, (old, old))
    assert hash_files(tmp_path / "files", ["a"], tmp_path / "cache") == first
    os.utime(file, (old + 1, old + 1))
    assert hash_files(tmp_path / "files", ["a"], tmp_path / "cache") != first


def test_a_file_written_just_now_is_hashed_again(tmp_path):
    file = put(tmp_path / "files/a", b"one")
    stamp = file.stat().st_mtime_ns
    first = hash_files(tmp_path / "files", ["a"], tmp_path / "cache")
    file.write_bytes(b"two")
    os.utime(file, ns=(stamp, stamp))  # within the clock's grain
    assert hash_files(tmp_path / "files", ["a"], tmp_path / "cache") != first


def test_a_log_gets_a_few_plain_lines(caplog):
    from segkd.data.progress import progress

    caplog.set_level("INFO", logger="segkd.data.progress")
    with progress("camvid", 1000) as advance:
        for _ in range(1000):
            advance(1)
    assert len(caplog.messages) == 10 and caplog.messages[-1] == "camvid: 1000 of 1000"


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    from segkd.data.progress import progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("camvid", 2_000_000, size=True) as advance:
        advance(2_000_000)
    assert "camvid" in capsys.readouterr().err
