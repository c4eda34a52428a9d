"""`segkd download NAME --from DIR`: archives by name, or what they unpack to, taken over without touching DIR."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hostile import tarred, tree, zipped

from segkd.config.data import ADE20KData
from segkd.data import copies
from segkd.data import download as download_step
from segkd.data.archives import Archive
from segkd.data.download import download
from segkd.data.fetch import Patience
from segkd.data.published import bring
from segkd.errors import DataError, DownloadError, StorageError
from segkd.files import read_json

NOWHERE = "http://127.0.0.1:9"
ONCE = Patience(attempts=1, timeout=1)
IMAGES = {"kit/VOC/JPEG/1.jpg": b"one", "kit/VOC/JPEG/2.jpg": b"two", "kit/VOC/Lists/val.txt": b"1"}
MASKS = {"masks/1.png": b"m1", "masks/city/2.png": b"m2"}
LIST = b"1\n2\n"
EXPECTED = {**IMAGES, **{f"labels/{name}": body for name, body in MASKS.items()}, "lists/train.txt": LIST}


def published(folder: Path) -> tuple[Archive, ...]:
    """Writes two archives and a list, and describes them."""
    tarred(folder / "images.tgz", {**IMAGES, "kit/README": b"read"})
    zipped(folder / "masks.zip", MASKS)
    (folder / "train.txt").write_bytes(LIST)
    hashes = {path.name: hashlib.sha1(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    def entry(name: str, *wanted: str, into: str = "") -> Archive:
        return Archive(f"{NOWHERE}/{name}", name, wanted, sha1=hashes[name], into=into, page="http://page.org")

    return (
        entry("images.tgz", "kit/VOC/JPEG", "kit/VOC/Lists/val.txt"),
        entry("masks.zip", "masks/*.png", into="labels"),
        entry("train.txt", into="lists"),
    )


@pytest.fixture
def archives(tmp_path) -> tuple[Archive, ...]:
    return published(tmp_path / "published")


@pytest.fixture
def unpacked(tmp_path) -> Path:
    """A folder with the published layout, and things that do not belong to it."""
    folder = tmp_path / "unpacked"
    for name, body in {**EXPECTED, "kit/VOC/JPEG/.DS_Store": b"?", "notes.txt": b"mine", "kit/README": b"r"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


@pytest.fixture
def raw(tmp_path) -> Path:
    return tmp_path / "data/raw"


def go(archives, raw: Path, source: Path | None):
    return bring("voc", archives, raw, source=source, patience=ONCE)


def contents(raw: Path) -> dict[str, bytes]:
    return {name: body for name, body in tree(raw).items() if body is not None and not name.startswith(".archives/")}


def test_archives_by_name_are_verified_extracted_and_left_there(tmp_path, archives, raw):
    before = tree(tmp_path / "published")
    how, files, more = go(archives, raw, tmp_path / "published")
    assert how == "copy" and sorted(files) == sorted(EXPECTED) and contents(raw) == EXPECTED
    assert more["published_bytes"] == 6
    assert {entry["way"] for entry in more["archives"].values()} == {"archive"}
    assert tree(tmp_path / "published") == before


def test_archives_that_lie_in_the_target_stay_as_well(tmp_path, archives, raw):
    shutil.copytree(tmp_path / "published", raw / ".archives")
    go(archives, raw, raw / ".archives")
    assert contents(raw) == EXPECTED
    assert tree(tmp_path / "published").items() <= tree(raw / ".archives").items()


def test_unpacked_files_are_linked(archives, raw, unpacked):
    before = tree(unpacked)
    how, files, more = go(archives, raw, unpacked)
    assert how == "copy" and contents(raw) == EXPECTED and tree(unpacked) == before
    for name, body in EXPECTED.items():
        assert files[name] == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        assert (raw / name).samefile(unpacked / name)
    checks = {name: entry["check"] for name, entry in more["archives"].items()}
    assert checks == {"images.tgz": "not checked", "masks.zip": "not checked", "train.txt": "sha1"}
    assert more["published_bytes"] == 1


def test_where_no_link_can_be_files_are_copied(archives, raw, unpacked, monkeypatch):
    def refuse(*args, **more):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    go(archives, raw, unpacked)
    assert contents(raw) == EXPECTED and not (raw / "lists/train.txt").samefile(unpacked / "lists/train.txt")


def test_the_two_may_be_mixed(tmp_path, archives, raw, unpacked):
    shutil.rmtree(unpacked / "kit")
    shutil.copy(tmp_path / "published/images.tgz", unpacked)
    _, _, more = go(archives, raw, unpacked)
    assert contents(raw) == EXPECTED
    assert [entry["way"] for entry in more["archives"].values()] == ["archive", "copy", "archive"]


@pytest.mark.parametrize("inner", ["kit", "kit/VOC"])
def test_a_folder_within_the_layout_will_do(archives, raw, unpacked, inner):
    go(archives[:1], raw, unpacked / inner)
    assert contents(raw) == IMAGES


def test_a_relative_folder_will_do(archives, raw, unpacked, monkeypatch):
    monkeypatch.chdir(unpacked / "kit")
    go(archives[:1], raw, Path("VOC"))
    assert contents(raw) == IMAGES


@pytest.mark.fault("P4", "links and loops in a user's own folder")
def test_links_within_the_users_own_folder_are_followed(archives, raw, unpacked, tmp_path):
    """Data sets are often put together from links; a link that leads back ends the walk."""
    (unpacked / "kit/VOC/JPEG").rename(tmp_path / "elsewhere")
    (unpacked / "kit/VOC/JPEG").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/1.jpg").rename(tmp_path / "one.jpg")
    (tmp_path / "elsewhere/1.jpg").symlink_to(tmp_path / "one.jpg")
    (unpacked / "labels/masks/loop").symlink_to(unpacked / "labels")
    go(archives, raw, unpacked)
    assert contents(raw) == EXPECTED
    assert not any(path.is_symlink() for path in raw.rglob("*"))


@pytest.mark.fault("P3", "a user's copy that is incomplete")
def test_all_that_is_missing_is_listed_and_nothing_taken(archives, raw, unpacked, tmp_path):
    shutil.rmtree(unpacked / "kit/VOC/Lists")
    (unpacked / "labels/masks/1.png").unlink()
    (unpacked / "labels/masks/city/2.png").unlink()
    (unpacked / "lists/train.txt").write_bytes(b"1\n")
    with pytest.raises(DataError, match="is no copy of voc") as caught:
        go(archives, raw, unpacked)
    for words in (
        "neither images.tgz nor all of kit/VOC/JPEG, kit/VOC/Lists/val.txt [http://page.org]",
        "neither masks.zip nor all of labels/masks/*.png",
        "lists/train.txt: the content is another one (wrong sha1)",
        "segkd download voc",
    ):
        assert words in str(caught.value)
    assert not raw.exists()


@pytest.mark.fault("P3", "a wrong archive in a user's copy")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><title>Log in</title>", "masks.zip: is a web page instead of the file"),
        (b"PK", "masks.zip: the content is another one .wrong sha1"),
    ],
)
def test_a_wrong_archive_is_refused_before_anything_is_taken(tmp_path, archives, raw, content, message):
    (tmp_path / "published/masks.zip").write_bytes(content)
    with pytest.raises(DataError, match=message):
        go(archives, raw, tmp_path / "published")
    assert not raw.exists()


@pytest.mark.parametrize("source", ["nowhere", "published/masks.zip"])
def test_what_is_no_folder_holds_nothing(tmp_path, archives, raw, source):
    with pytest.raises(DataError, match=r"neither images\.tgz nor"):
        go(archives, raw, tmp_path / source)


@pytest.mark.fault("P5", "no network where a copy is there")
def test_a_copy_is_kept_without_network(archives, raw, unpacked):
    first = go(archives, raw, unpacked)
    assert go(archives, raw, None) == first


def test_a_copy_that_lost_a_file_is_fetched_instead(archives, raw, unpacked):
    go(archives, raw, unpacked)
    (raw / "labels/masks/1.png").unlink()
    with pytest.raises(DownloadError, match=r"masks\.zip: no connection"):
        go(archives, raw, None)


def test_files_taken_from_where_they_are_stay(archives, raw, unpacked):
    go(archives, raw, unpacked)
    go(archives, raw, raw)
    assert contents(raw) == EXPECTED


@pytest.mark.fault("P4", "a link in the target folder of a copy")
@pytest.mark.parametrize("source", ["unpacked", "published"])
def test_a_link_in_the_target_is_not_written_through(archives, raw, unpacked, tmp_path, source):
    (tmp_path / "outside").mkdir()
    raw.mkdir(parents=True)
    (raw / "labels").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="A link stands"):
        go(archives, raw, tmp_path / source)
    assert list((tmp_path / "outside").iterdir()) == []


def test_the_whole_target_may_be_a_link_to_another_disk(archives, raw, unpacked, tmp_path):
    (tmp_path / "large").mkdir()
    raw.parent.mkdir(parents=True)
    raw.symlink_to(tmp_path / "large")
    go(archives, raw, unpacked)
    assert contents(tmp_path / "large") == EXPECTED


def test_an_older_file_gives_way_to_the_users(archives, raw, unpacked):
    (raw / "lists").mkdir(parents=True)
    (raw / "lists/train.txt").write_bytes(b"old")
    (raw / "lists/.train.txt.coming").write_bytes(b"left by a killed run")
    go(archives, raw, unpacked)
    assert contents(raw) == EXPECTED


def test_room_is_looked_for_where_files_must_be_copied(archives, raw, unpacked, monkeypatch):
    usage = shutil.disk_usage(unpacked)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    go(archives[1:2], raw, unpacked)  # links need no room
    monkeypatch.setattr(copies, "bytes_to_copy", lambda found, target: 2_000_000_000)
    with pytest.raises(StorageError, match=r"too full to take voc over\.[\s\S]*2\.0 GB free"):
        go(archives[1:2], raw, unpacked)


def test_only_files_on_another_disk_must_be_copied(archives, unpacked, raw):
    found = copies.find(archives[1], unpacked)
    assert found is not None and copies.bytes_to_copy(found, raw) == 0
    state = SimpleNamespace(st_dev=unpacked.stat().st_dev + 1, st_size=7)
    away = replace(found, files={**found.files, "labels/masks/3.png": SimpleNamespace(stat=lambda: state)})
    assert copies.bytes_to_copy(away, raw) == 7


@pytest.mark.fault("P4", "unprintable names in a user's copy")
def test_unprintable_names_are_not_taken(archives, raw, unpacked):
    (unpacked / "labels/masks/a\nb.png").write_bytes(b"")
    go(archives, raw, unpacked)
    assert contents(raw) == EXPECTED


def test_the_step_takes_a_copy(archives, raw, unpacked, monkeypatch):
    monkeypatch.setitem(download_step.ARCHIVES, "ade20k", lambda config: archives)
    found = read_json(download("ade20k", ADE20KData(kind="ade20k"), raw, source=unpacked))
    assert found["how"] == "copy" and sorted(found["files"]) == sorted(EXPECTED)
