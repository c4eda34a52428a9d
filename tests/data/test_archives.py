"""Extraction: honest archives come out as they went in, hostile ones write nothing at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hostile import entry, raw_header, tarred, tree, written, zipped, zipped_as
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segkd.data.archives import Archive, Limits, extract, matches
from segkd.data.members import FILE, FOLDER, Member, Names
from segkd.errors import DataError, StorageError

GOOD = {"top/train/a.png": b"one" * 50, "top/train/sub/b.png": b"two", "top/val/c.png": b"", "top/README": b"read"}
TARS = (".tar", ".tgz", ".tar.gz")


def made(path: Path, contents: dict[str, bytes]) -> Path:
    return zipped(path, contents) if path.suffix == ".zip" else tarred(path, contents)


@pytest.fixture
def place(tmp_path) -> Path:
    """archive/ and raw/ within a folder that is watched."""
    (tmp_path / "watched/raw").mkdir(parents=True)
    return tmp_path / "watched"


def refuses(place: Path, path: Path, message: str, *, limits: Limits | None = None, wanted=("top",)) -> str:
    """Extraction raises DataError, and the watched folder is as before, byte by byte."""
    before = tree(place)
    with pytest.raises(DataError, match=message) as caught:
        extract(path, place / "raw", wanted, limits=limits)
    assert tree(place) == before
    return str(caught.value)


@pytest.mark.parametrize("ending", [".zip", *TARS])
def test_the_wanted_members_come_out_with_their_hashes(place, ending):
    found = extract(made(place / f"x{ending}", GOOD), place / "raw", ("top/train", "top/*.png"))
    assert list(found) == ["top/train/a.png", "top/train/sub/b.png", "top/val/c.png"]
    for name, facts in found.items():
        content = (place / "raw" / name).read_bytes()
        assert content == GOOD[name]
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert not (place / "raw/top/README").exists()
    assert [path.name for path in (place / "raw").iterdir()] == ["top"]


def test_a_name_with_a_dot_and_a_folder_told_twice_are_usual(place):
    members = [
        (entry("./", kind=tarfile.DIRTYPE), b""),
        (entry("./top/", kind=tarfile.DIRTYPE), b""),
        (entry("top", kind=tarfile.DIRTYPE), b""),
        (entry("./top/a", b"x"), b"x"),
    ]
    assert list(extract(tarred(place / "x.tar", members), place / "raw", ("top",))) == ["top/a"]


def test_a_tar_that_is_packed_in_spite_of_its_name_is_read(place):
    tarred(place / "x.tgz", GOOD).rename(place / "x.tar")
    assert len(extract(place / "x.tar", place / "raw", ("top",))) == 4


def test_files_join_what_another_archive_gave(place):
    extract(zipped(place / "x.zip", {"top/train/a": b"old", "top/train/b": b"b"}), place / "raw", ("top",))
    extract(zipped(place / "y.zip", {"top/train/a": b"new", "top/val/c": b"c"}), place / "raw", ("top",))
    files = {name: content for name, content in tree(place / "raw").items() if content is not None}
    assert files == {"top/train/a": b"new", "top/train/b": b"b", "top/val/c": b"c"}


def test_modes_of_an_archive_are_not_taken_over(place):
    info = entry("top/a", b"x")
    info.mode = 0o6777
    extract(tarred(place / "x.tar", [(info, b"x")]), place / "raw", ("top",))
    assert stat.S_IMODE((place / "raw/top/a").stat().st_mode) & 0o7111 == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/x", "absolute"),
        ("//x", "absolute"),
        ("C:/x", "absolute"),
        ("c:x", "absolute"),
        ("../x", "leads out"),
        ("top/../../x", "leads out"),
        ("top/..", "leads out"),
        ("top\\..\\x", "backslash"),
        ("..\\x", "backslash"),
        ("\\\\server\\x", "backslash"),
        ("top//x", "empty name"),
        ("top/a\x1b[2J", "unprintable"),
        ("top/a\nb", "unprintable"),
        ("top/" + "n" * 300, "too long"),
        ("d/" * 70 + "x", "too long"),
    ],
)
@pytest.mark.parametrize("ending", [".zip", ".tar", ".tgz"])
def test_names_that_lead_elsewhere_are_refused(place, ending, name, message):
    refuses(place, made(place / f"x{ending}", {**GOOD, name: b"evil"}), message)


def test_a_name_with_a_zero_byte_is_refused(place):
    path = zipped(place / "x.zip", {"top/good": b"", "top/aXb": b""})
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a\0b"))
    refuses(place, path, "unprintable")


def test_a_name_that_is_no_text_is_refused(place):
    refuses(place, written(place / "x.tar", raw_header(b"top/\xff", 0) + bytes(1024)), "unprintable")


@pytest.mark.parametrize(
    "names",
    [
        ("top/a", "top/a"),
        ("top/a", "top/A"),
        ("top/a", "TOP/b"),
        ("top/a", "top/a/b"),
        ("top/a/b", "top/a"),
        ("top/caf\u00e9", "top/cafe\u0301"),
        ("top/a", "top/./a"),
        ("top/x/", "top/X/y"),
    ],
)
def test_names_that_clash_are_refused(place, names):
    kinds = {True: tarfile.DIRTYPE, False: tarfile.REGTYPE}
    members = [(entry(name.rstrip("/"), kind=kinds[name.endswith("/")]), b"") for name in names]
    refuses(place, tarred(place / "x.tar", members), "clashes with")


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        (tarfile.SYMTYPE, "/etc", "symbolic link"),
        (tarfile.SYMTYPE, "top/good", "symbolic link"),
        (tarfile.LNKTYPE, "../../secret", "hard link"),
        (tarfile.LNKTYPE, "top/good", "hard link"),
        (tarfile.CHRTYPE, "", "device"),
        (tarfile.BLKTYPE, "", "device"),
        (tarfile.FIFOTYPE, "", "fifo"),
        (tarfile.GNUTYPE_SPARSE, "", "sparse"),
    ],
)
@pytest.mark.parametrize("ending", [".tar", ".tgz"])
def test_links_devices_and_the_like_are_refused_in_tars(place, ending, kind, target, message):
    members = [(entry("top/good", b"x"), b"x"), (entry("top/bad", kind=kind, link=target), b"")]
    refuses(place, tarred(place / f"x{ending}", members), message)


def mode(value: int):
    def change(info: zipfile.ZipInfo) -> None:
        info.create_system, info.external_attr = 3, value << 16

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (mode(stat.S_IFLNK | 0o777), "symbolic link"),
        (mode(stat.S_IFCHR | 0o666), "device"),
        (mode(stat.S_IFIFO | 0o666), "device or fifo"),
        (mode(stat.S_IFSOCK | 0o666), "device or fifo"),
        (lambda info: setattr(info, "compress_type", zipfile.ZIP_LZMA), "method"),
    ],
)
def test_links_devices_and_the_like_are_refused_in_zips(place, change, message):
    refuses(place, zipped_as(place / "x.zip", change), message)


def test_encrypted_members_are_refused(place):
    path = zipped(place / "x.zip", {"top/a": b"secret"})
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    refuses(place, path, "encrypted")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(members=3), "more than 3 members"),
        (Limits(total=100), "more than 100 bytes in total"),
        (Limits(file=100), "states 150 bytes, allowed are 100"),
    ],
)
@pytest.mark.parametrize("ending", [".zip", ".tgz"])
def test_too_much_is_refused(place, ending, limits, message):
    refuses(place, made(place / f"x{ending}", GOOD), message, limits=limits)


@pytest.mark.parametrize("ending", [".zip", ".tgz"])
def test_a_bomb_is_refused(place, ending):
    refuses(place, made(place / f"x{ending}", {"top/a": bytes(4_000_000)}), "allowed is a ratio of 100")


def test_many_small_bombs_are_refused_together(place):
    contents = {f"top/{k}": bytes(900_000) for k in range(5)}
    refuses(place, zipped(place / "x.zip", contents), "or more, allowed is a ratio of 100")


def test_a_bombs_header_is_enough(place):
    """A member of 2 TiB is refused by what its header says: nothing of it is read."""
    refuses(place, written(place / "x.tgz", raw_header(b"top/a", 2 << 40), gz=True), "more than .* bytes in total")


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_an_extended_header_is_not_read_into_memory(place, kind):
    refuses(place, written(place / "x.tgz", raw_header(b"top/a", 1 << 40, kind), gz=True), "states a length of")


@pytest.mark.parametrize("kind", [b"0", b"L", b"x"])
def test_a_negative_length_ends_the_look(place, kind):
    content = raw_header(b"top/good", 0) + raw_header(b"top/a", -512, kind) + bytes(1024)
    refuses(place, written(place / "x.tar", content), "-512 bytes|damaged|broken|length of")


def test_headers_of_headers_without_end_are_refused(place):
    header = raw_header(b"././@LongLink", 1, b"L") + b"n".ljust(512, b"\0")
    refuses(place, written(place / "x.tar", header * 5000), "read to its end")


def test_a_zip_whose_header_states_less_than_there_is(place):
    path = zipped(place / "x.zip", {"top/a": b"y" * 5000}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    refuses(place, path, "CRC|bytes, there are")


def test_a_zip_whose_header_states_more_than_there_is(place):
    path = zipped(place / "x.zip", {"top/a": b"y" * 50})
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (500_000).to_bytes(4, "little")
    path.write_bytes(content)
    refuses(place, path, "states 500000 bytes, there are 50")


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tgz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
def test_a_cut_archive_is_refused(place, ending, share):
    noise = {f"top/{k}": os.urandom(3000) for k in range(5)}
    path = made(place / f"x{ending}", noise)
    path.write_bytes(path.read_bytes()[: int(share * sum(map(len, noise.values())))])
    refuses(place, path, "read to its end")


def test_a_tar_cut_between_two_members_is_refused(place):
    path = tarred(place / "x.tar", {"top/a": b"x" * 512, "top/b": b"x" * 512})
    path.write_bytes(path.read_bytes()[:1024])
    refuses(place, path, "ends too early")


@pytest.mark.parametrize("ending", [".zip", ".tgz"])
@pytest.mark.parametrize("part", [0.25, 0.5])
def test_a_flipped_byte_is_found(place, ending, part):
    """A plain tar has no checksum of contents: there the published hash of the archive must tell."""
    path = made(place / f"x{ending}", {"top/a": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    content[int(part * len(content))] ^= 1
    path.write_bytes(content)
    refuses(place, path, "read to its end")


@pytest.mark.parametrize(("more", "message"), [(1 << 20, ""), (65 << 20, "goes on after its end")])
def test_a_tar_may_be_padded_but_not_without_end(place, more, message):
    content = raw_header(b"top/a", 0) + bytes(1024 + more)
    path = written(place / "x.tgz", content, gz=True)
    if message:
        refuses(place, path, message)
    else:
        assert list(extract(path, place / "raw", ("top",))) == ["top/a"]


def test_a_web_page_is_no_archive(place):
    refuses(place, written(place / "x.zip", b"<!DOCTYPE html><title>Login</title>" * 100), "read to its end")
    refuses(place, written(place / "x.tgz", b"<!DOCTYPE html><title>Login</title>" * 100), "read to its end")


def test_all_faults_come_at_once_and_say_what_to_do(place):
    path = zipped(place / "x.zip", {"../a": b"", "/b": b"", "top/C": b"", "top/c": b""})
    text = refuses(place, path, "of the usual kind")
    for words in ("'../a': leads out", "'/b': absolute", "'top/c': clashes with 'top/C'", "--from"):
        assert words in text


def test_what_is_wanted_and_not_there_is_said(place):
    refuses(place, zipped(place / "x.zip", GOOD), r"top/test: is not in it", wanted=("top/train", "top/test"))


def test_a_full_disk_is_found_before(place, monkeypatch):
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    path = zipped(place / "x.zip", GOOD)
    before = tree(place)
    with pytest.raises(StorageError, match=r"too full to extract x\.zip"):
        extract(path, place / "raw", ("top",))
    assert tree(place) == before


def test_a_disk_that_fills_up_leaves_nothing(place, monkeypatch):
    path = zipped(place / "x.zip", GOOD)
    before, real = tree(place), Path.open

    def full(self, mode="r", *args, **options):
        if self.name == "b.png" and "x" in mode:
            raise OSError(28, "No space left on device")
        return real(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match="No space left"):
        extract(path, place / "raw", ("top",))
    assert tree(place) == before


@pytest.mark.parametrize("there", ["file", "link", "folder"])
def test_a_link_in_the_way_is_not_followed(place, tmp_path, there):
    outside = tmp_path / "outside"
    outside.mkdir()
    if there == "link":
        (place / "raw/top").symlink_to(outside)
    elif there == "file":
        (place / "raw/top").write_text("mine")
    else:
        (place / "raw/top/README").mkdir(parents=True)
    with pytest.raises(DataError, match="Something else stands"):
        extract(zipped(place / "x.zip", GOOD), place / "raw", ("top",))
    assert not list(outside.iterdir())


@pytest.mark.parametrize("how", ["link", "folder", "file"])
def test_what_a_killed_extraction_left_is_cleared(place, tmp_path, how):
    """Whatever stands where the hidden folder goes: a half-filled one, or a link that leads out."""
    outside, hidden = tmp_path / "outside", place / "raw/.x.zip.extracting"
    outside.mkdir()
    if how == "link":
        hidden.symlink_to(outside)
    elif how == "file":
        hidden.write_text("")
    else:
        (hidden / "top").mkdir(parents=True)
        (hidden / "top/half").write_text("half")
    found = extract(zipped(place / "x.zip", GOOD), place / "raw", ("top",))
    assert len(found) == 4 and not (place / "raw/top/half").exists() and not list(outside.iterdir())


KILLED = """
import os, sys
from pathlib import Path
from segkd.data import archives
real, count = Path.replace, iter(range(100))
def replace(self, target):
    if next(count) == int(sys.argv[3]):
        os._exit(137)
    return real(self, target)
Path.replace = replace
archives.extract(Path(sys.argv[1]), Path(sys.argv[2]), ("top", "more"))
"""


@pytest.mark.parametrize("after", [0, 1])
def test_a_kill_between_extraction_and_renaming_is_made_good_by_running_again(place, after):
    path = zipped(place / "x.zip", {**GOOD, "more/d": b"d"})
    run = subprocess.run([sys.executable, "-c", KILLED, path, place / "raw", str(after)], check=False)
    assert run.returncode == 137
    assert [(place / "raw" / name).exists() for name in ("more", "top")] == [after == 1, False]
    assert len(extract(path, place / "raw", ("top", "more"))) == 5
    files = {name: content for name, content in tree(place / "raw").items() if content is not None}
    assert files == {**GOOD, "more/d": b"d"}


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("a", {"a", "a/b", "a/b/c.png"}),
        ("a/", {"a", "a/b", "a/b/c.png"} - {"a"}),
        ("a/b", {"a/b", "a/b/c.png"}),
        ("a*", {"a", "a/b", "a/b/c.png", "ab"}),
        ("a/*.png", {"a/b/c.png"}),
        ("A", set()),
    ],
)
def test_wanted_is_a_name_a_folder_or_a_glob(wanted, fits):
    names = {"a", "a/b", "a/b/c.png", "ab"}
    assert {name for name in names if matches(name, wanted)} == fits | ({"a"} & fits)


@pytest.mark.parametrize(
    "words",
    [
        {"name": "../x.zip", "wanted": ("a",)},
        {"name": ".x.zip", "wanted": ("a",)},
        {"name": "x.rar", "wanted": ("a",)},
        {"name": "x.zip", "wanted": ("*",)},
        {"name": "x.zip", "wanted": ("../a",)},
        {"name": "x.zip", "wanted": ("",)},
        {"name": "x.zip", "wanted": ("a",), "into": "/tmp"},
        {"name": "x.zip", "wanted": ("a",), "into": "../tmp"},
    ],
)
def test_an_entry_that_leads_out_is_a_slip(words):
    with pytest.raises(ValueError, match=r"file name|extracted from|begin with"):
        Archive(url="http://127.0.0.1/x", **words)


PARTS = st.sampled_from(["a", "A", "b", "..", ".", "", "C:", "~", "a\\b", "\x00", " ", "e\u0301", "\u00e9", "ß", "SS"])
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.one_of(NAMES, st.text(max_size=12)), st.booleans()), max_size=8))
def test_names_that_are_taken_are_distinct_and_stay_within(members):
    names, taken = Names(), []
    for name, folder in members:
        clean, fault = names.take(Member(name, 0, None, FOLDER if folder else FILE, None))
        assert not (clean and fault)
        if clean:
            taken.append((clean, folder))
    root = Path("/target")
    for name, _ in taken:
        assert Path(os.path.normpath(root / name)) == root / name
        assert (root / name).is_relative_to(root) and root / name != root
        assert name.isprintable() and "\\" not in name
    files = [name.casefold() for name, folder in taken if not folder]
    assert len(files) == len(set(files))
    assert not any(other.casefold().startswith(f"{file}/") for file in files for other, _ in taken)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.dictionaries(st.one_of(NAMES, st.text(min_size=1, max_size=12)), st.binary(max_size=20), max_size=4))
@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_no_archive_writes_outside_its_folder(tmp_path, ending, contents):
    shutil.rmtree(tmp_path / "box", ignore_errors=True)
    box = tmp_path / "box"
    (box / "deep/raw").mkdir(parents=True)
    try:
        path = made(box / f"x{ending}", {**contents, "top/good": b"good"})
    except (ValueError, UnicodeError):  # names that cannot even be stored
        return
    before = tree(box)
    try:
        extract(path, box / "deep/raw", ("top", *{"a", "A", "b"} & {name.split("/")[0] for name in contents}))
    except DataError:
        assert tree(box) == before
        return
    new = {name: content for name, content in tree(box).items() if name not in before}
    assert all(name.startswith("deep/raw/") for name in new) and new["deep/raw/top/good"] == b"good"
    assert {name: tree(box)[name] for name in before} == before
