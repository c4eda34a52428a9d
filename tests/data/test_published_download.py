"""Data sets that are published as archives: fetched, verified, extracted, kept, trusted, or refused with what to do."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hostile import tarred, tree, zipped
from web_server import Server, answer, page, serving, sound, status

from segkd.config.data import VocAugData
from segkd.data import download as download_step
from segkd.data.archives import Archive
from segkd.data.download import download
from segkd.data.fetch import Patience
from segkd.data.published import bring, peak
from segkd.data.shelf import Shelf
from segkd.errors import DataError, DownloadError, StorageError

QUICK = Patience(attempts=2, timeout=2, pause=0.01)
IMAGES = {"VOC/JPEG/1.jpg": b"one" * 300, "VOC/JPEG/2.jpg": b"two" * 300, "VOC/Extra/3.jpg": b"three"}
MASKS = {"masks/1.png": b"m1" * 100, "masks/2.png": b"m2" * 100}
LIST = b"1\n2\n"
NAMES = ["VOC/JPEG/1.jpg", "VOC/JPEG/2.jpg", "labels/masks/1.png", "labels/masks/2.png", "lists/train.txt"]


class Publisher:
    """Two archives and a loose list on a local server; `archives` describes them."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        tarred(folder / "images.tar", IMAGES)
        zipped(folder / "masks.zip", MASKS)
        (folder / "train.txt").write_bytes(LIST)
        self.archives = (
            self.entry("images.tar", ("VOC/JPEG",), "md5"),
            self.entry("masks.zip", ("masks/*.png",), "sha1", into="labels"),
            self.entry("train.txt", (), "sha256", into="lists"),
        )

    def entry(self, name: str, wanted: tuple[str, ...], algorithm: str | None, into: str = "") -> Archive:
        content = (self.folder / name).read_bytes()
        self.serve(name, content)
        url = f"http://127.0.0.1:{self.server.server_port}/{name}"
        known = {algorithm: hashlib.new(algorithm, content).hexdigest()} if algorithm else {}
        return Archive(url, name, wanted, len(content), into=into, page=f"http://page.org/{name}", **known)

    def serve(self, name: str, content: bytes) -> None:
        self.server.scripts[f"/{name}"] = lambda handler, earlier: sound(handler, earlier, content)

    def asked(self) -> list[str]:
        paths = [path.removeprefix("/") for path, _ in self.server.asked]
        self.server.asked.clear()
        return sorted(paths)


@pytest.fixture
def publisher(tmp_path) -> Iterator[Publisher]:
    with serving() as server:
        yield Publisher(server, tmp_path / "published")


@pytest.fixture
def raw(tmp_path) -> Path:
    return tmp_path / "watched/raw"


def go(publisher: Publisher, raw: Path, **more):
    return bring("voc", publisher.archives, raw, patience=QUICK, **more)


def contents(raw: Path) -> dict[str, bytes]:
    return {name: body for name, body in tree(raw).items() if body is not None and not name.startswith(".archives/")}


EXPECTED = {
    **{name: IMAGES[name] for name in NAMES[:2]},
    **{f"labels/{name}": body for name, body in MASKS.items()},
    "lists/train.txt": LIST,
}


def test_what_is_wanted_is_brought_and_the_archives_go(publisher, raw):
    how, files, more = go(publisher, raw)
    assert how == "download" and list(files) == NAMES and contents(raw) == EXPECTED
    for name, entry in files.items():
        assert entry == {"bytes": len(EXPECTED[name]), "sha256": hashlib.sha256(EXPECTED[name]).hexdigest()}
    assert more["published_bytes"] == 5 and "trusted on first use" not in more
    assert {name: entry["check"] for name, entry in more["archives"].items()} == {
        "images.tar": "md5",
        "masks.zip": "sha1",
        "train.txt": "sha256",
    }
    assert [path.name for path in (raw / ".archives").iterdir() if path.suffix != ".json"] == []
    assert publisher.asked() == ["images.tar", "masks.zip", "train.txt"]


def test_archives_are_kept_if_asked(publisher, raw):
    go(publisher, raw, keep=True)
    for name in ("images.tar", "masks.zip", "train.txt"):
        assert (raw / ".archives" / name).read_bytes() == (publisher.folder / name).read_bytes()
    (raw / "VOC/JPEG/1.jpg").unlink()
    publisher.asked()
    go(publisher, raw, keep=True)
    assert publisher.asked() == [] and contents(raw) == EXPECTED


def test_what_is_there_is_not_fetched_again(publisher, raw):
    first = go(publisher, raw)
    publisher.asked()
    assert go(publisher, raw) == first and publisher.asked() == []


def lose(raw: Path) -> None:
    (raw / "labels/masks/1.png").unlink()


def change(raw: Path) -> None:
    (raw / "labels/masks/1.png").write_bytes(b"m9" * 100)


def damage_the_record(raw: Path) -> None:
    (raw / ".archives/masks.zip.json").write_text("{")


def lose_the_record(raw: Path) -> None:
    (raw / ".archives/masks.zip.json").unlink()


@pytest.mark.fault("P3", "files or records lost or damaged after the download")
@pytest.mark.parametrize("trouble", [lose, change, damage_the_record, lose_the_record])
def test_only_what_is_not_as_it_was_is_brought_again(publisher, raw, trouble):
    first = go(publisher, raw)
    publisher.asked()
    trouble(raw)
    assert go(publisher, raw) == first
    assert publisher.asked() == ["masks.zip"] and contents(raw) == EXPECTED


def test_another_description_is_another_archive(publisher, raw):
    go(publisher, raw)
    publisher.asked()
    images, *others = publisher.archives
    publisher.archives = (replace(images, wanted=("VOC/JPEG", "VOC/Extra")), *others)
    _, files, _ = go(publisher, raw)
    assert publisher.asked() == ["images.tar"] and "VOC/Extra/3.jpg" in files


@pytest.mark.fault("P2", "a kill between extraction and record")
def test_a_kill_before_the_record_is_made_good_without_fetching(publisher, raw, monkeypatch):
    def killed(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Shelf, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            go(publisher, raw)
    publisher.asked()
    assert list(go(publisher, raw)[1]) == NAMES
    assert publisher.asked() == [] and contents(raw) == EXPECTED


@pytest.mark.fault("P2", "a transfer of an archive that is cut")
def test_a_cut_transfer_goes_on_where_it_ended(publisher, raw):
    content = (publisher.folder / "images.tar").read_bytes()

    def cut(handler, earlier: int) -> None:
        answer(handler, content[:4000], length=len(content))

    publisher.server.scripts["/images.tar"] = cut
    with pytest.raises(DownloadError, match=r"images\.tar: the connection was cut at 4000"):
        bring("voc", publisher.archives, raw, patience=Patience(attempts=1, timeout=2))
    publisher.serve("images.tar", content)
    publisher.server.asked.clear()
    go(publisher, raw)
    assert ("/images.tar", "bytes=4000-") in publisher.server.asked and contents(raw) == EXPECTED


@pytest.mark.fault("P3", "each trouble of a publisher's server")
@pytest.mark.parametrize(
    ("name", "script", "message"),
    [
        ("images.tar", lambda h, k: answer(h, b"?" * 10240), r"wrong md5"),
        ("masks.zip", lambda h, k: answer(h, b"?" * 100), r"too short: 100 bytes, published are \d+"),
        ("masks.zip", page, "a web page came instead of the file"),
        ("masks.zip", status(404), "HTTP 404"),
    ],
)
def test_each_trouble_is_named_and_answered(publisher, raw, name, script, message):
    publisher.server.scripts[f"/{name}"] = script
    with pytest.raises(DownloadError, match=rf"1 of 3 files[\s\S]*- {name}: .*{message}") as caught:
        go(publisher, raw)
    hand = str(caught.value).partition("to do:")[2]
    assert f"{name} from http://page.org/{name}" in hand and "train.txt" not in hand
    assert str(raw / ".archives") in hand and "then: segkd download voc\n" in hand
    assert "segkd download voc --from DIR" in hand
    assert contents(raw) == {}


def test_what_was_put_there_by_hand_is_taken(publisher, raw):
    publisher.server.scripts["/masks.zip"] = page
    (raw / ".archives").mkdir(parents=True)
    shutil.copy(publisher.folder / "masks.zip", raw / ".archives")
    assert go(publisher, raw)[0] == "download" and contents(raw) == EXPECTED
    assert "masks.zip" not in publisher.asked()


@pytest.mark.fault("P4", "a hostile archive with the right hash")
def test_a_hostile_archive_with_the_right_hash_is_refused_all_the_same(publisher, raw):
    zipped(publisher.folder / "masks.zip", {**MASKS, "../../../evil": b"evil"})
    publisher.archives = (*publisher.archives[:1], publisher.entry("masks.zip", ("masks",), "sha1", into="labels"))
    with pytest.raises(DataError, match=r"masks.zip is refused[\s\S]*leads out"):
        go(publisher, raw)
    assert list(contents(raw)) == NAMES[:2] and not list(raw.parent.parent.rglob("evil*"))


def unchecked(publisher: Publisher, content: dict[str, bytes] = MASKS) -> None:
    zipped(publisher.folder / "masks.zip", content)
    publisher.archives = (replace(publisher.entry("masks.zip", ("masks",), None, into="labels"), bytes=None),)


def test_the_first_file_without_a_hash_is_trusted_and_recorded(publisher, raw):
    unchecked(publisher)
    expected = hashlib.sha256((publisher.folder / "masks.zip").read_bytes()).hexdigest()
    _, _, more = go(publisher, raw)
    assert more["trusted on first use"] == {"masks.zip": expected} and more["published_bytes"] == 0
    assert more["archives"]["masks.zip"]["check"] == "trusted on first use"
    assert go(publisher, raw)[2] == more


@pytest.mark.fault("P3", "a published file that changes later")
@pytest.mark.parametrize("left", ["record", "manifest"])
def test_a_later_one_is_compared_with_it(publisher, raw, left):
    unchecked(publisher)
    _, files, more = go(publisher, raw)
    if left == "manifest":
        shutil.rmtree(raw / ".archives")
        (raw / "manifest.json").write_text(json.dumps({**more, "files": files}))
    lose(raw)
    unchecked(publisher, {**MASKS, "masks/3.png": b"new"})
    with pytest.raises(DownloadError, match=r"wrong sha256.*another file came when it was first fetched.*delete"):
        go(publisher, raw)
    assert not (raw / "labels/masks/3.png").exists()
    unchecked(publisher)
    assert go(publisher, raw)[2] == more


@pytest.mark.fault("P3", "too little room for a download")
def test_a_full_disk_is_said_before_anything_is_fetched(publisher, raw, monkeypatch):
    usage = shutil.disk_usage(raw.parent.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3_000_000_000))
    publisher.archives = tuple(replace(one, unpacked=4_200_000_000) for one in publisher.archives[:1])
    with pytest.raises(StorageError, match=r"4\.2 GB free\s+found:    3\.0 GB free[\s\S]*free 1\.2 GB"):
        go(publisher, raw)
    assert publisher.asked() == [] and tree(raw.parent) == {}


@pytest.mark.fault("P3", "the disk fills up during download or extraction")
def test_a_disk_that_fills_up_on_the_way_is_said(publisher, raw, monkeypatch):
    real = Path.open

    def full(self, mode="r", *args, **options):
        if self.name == "2.jpg" and "x" in mode:
            raise OSError(122, "Disk quota exceeded")
        return real(self, mode, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(StorageError, match="quota exceeded"):
            go(publisher, raw)
    assert contents(raw) == {}
    publisher.asked()
    go(publisher, raw)
    assert publisher.asked() == [] and contents(raw) == EXPECTED


def sized(name: str, packed: int | None, unpacked: int | None = None, wanted=("a",)) -> Archive:
    return Archive("http://127.0.0.1/", name, wanted, packed, unpacked=unpacked)


@pytest.mark.parametrize(
    ("archives", "keep", "expected"),
    [
        ([sized("a.zip", 10, 12)], False, 22),
        ([sized("a.zip", 10)], False, 20),
        ([sized("a.zip", None, 12)], False, 24),
        ([sized("a.zip", None)], False, 0),
        ([sized("a.txt", 10, wanted=())], False, 10),
        ([sized("a.zip", 10, 12), sized("b.zip", 4, 3)], False, 26),  # both packed, and one after the other unpacked
        ([sized("a.zip", 10, 2), sized("b.zip", 4, 30)], False, 36),
        ([sized("a.zip", 10, 2), sized("b.zip", 4, 30)], True, 46),
    ],
)
def test_the_most_bytes_at_once(tmp_path, archives, keep, expected):
    assert peak(archives, tmp_path, keep=keep) == expected


def test_what_has_come_needs_no_more_room(tmp_path):
    (tmp_path / ".archives").mkdir()
    (tmp_path / ".archives/a.zip.part").write_bytes(b"1234567")
    assert peak([sized("a.zip", 10, 12)], tmp_path, keep=False) == 15


def test_the_step_writes_the_manifest_last(publisher, raw, monkeypatch):
    monkeypatch.setitem(download_step.ARCHIVES, "voc-aug", lambda config: publisher.archives)
    publisher.server.scripts["/train.txt"] = status(404)
    config = VocAugData(kind="voc-aug")
    with pytest.raises(DownloadError):
        download("voc-aug", config, raw, patience=QUICK)
    assert not (raw / "manifest.json").exists()
    publisher.serve("train.txt", LIST)
    found = json.loads(download("voc-aug", config, raw, patience=QUICK).read_text())
    assert (found["how"], list(found["files"]), found["published_bytes"]) == ("download", NAMES, 5)
    publisher.archives = publisher.archives[1:]
    download("voc-aug", config, raw, patience=QUICK)
    assert not (raw / "VOC/JPEG/1.jpg").exists()  # what this data set has no more
