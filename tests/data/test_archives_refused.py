"""Hostile and damaged archives of every sort: each is refused, and nothing at all is written."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hostile import GOOD, entry, made, raw_header, tarred, tree, written, zipped, zipped_as

from segkd.data.archives import Limits, extract
from segkd.errors import DataError


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


@pytest.mark.fault(
    "P4", "archive members that are absolute, lead out, hold backslashes or control characters, or are too long"
)
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


@pytest.mark.fault("P4", "an archive member with a zero byte in its name")
def test_a_name_with_a_zero_byte_is_refused(place):
    path = zipped(place / "x.zip", {"top/good": b"", "top/aXb": b""})
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a\0b"))
    refuses(place, path, "unprintable")


@pytest.mark.fault("P4", "an archive member whose name is no text")
def test_a_name_that_is_no_text_is_refused(place):
    refuses(place, written(place / "x.tar", raw_header(b"top/\xff", 0) + bytes(1024)), "unprintable")


@pytest.mark.fault("P4", "archive members that are one file on some systems")
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


@pytest.mark.fault("P4", "links, devices, pipes and sparse files in a tar")
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


@pytest.mark.fault("P4", "links, devices, pipes and odd compression in a zip")
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


@pytest.mark.fault("P4", "encrypted members of a zip")
def test_encrypted_members_are_refused(place):
    path = zipped(place / "x.zip", {"top/a": b"secret"})
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    refuses(place, path, "encrypted")


@pytest.mark.fault("P4", "more members or bytes than a data set has")
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


@pytest.mark.fault("P4", "an archive bomb")
@pytest.mark.parametrize("ending", [".zip", ".tgz"])
def test_a_bomb_is_refused(place, ending):
    refuses(place, made(place / f"x{ending}", {"top/a": bytes(4_000_000)}), "allowed is a ratio of 100")


@pytest.mark.fault("P4", "an archive bomb in many small members")
def test_a_bomb_among_honest_files_is_refused(place):
    contents = {"top/a": bytes(4_000_000), "top/b": os.urandom(100_000)}
    refuses(place, zipped(place / "x.zip", contents), "'top/a': unpacks .* allowed is a ratio of 100")


def test_many_small_bombs_are_refused_together(place):
    contents = {f"top/{k}": bytes(900_000) for k in range(5)}
    refuses(place, zipped(place / "x.zip", contents), "or more, allowed is a ratio of 100")


@pytest.mark.fault("P4", "an archive whose header promises 2 TiB")
def test_a_bombs_header_is_enough(place):
    """A member of 2 TiB is refused by what its header says: nothing of it is read."""
    refuses(place, written(place / "x.tgz", raw_header(b"top/a", 2 << 40), gz=True), "more than .* bytes in total")


@pytest.mark.fault("P4", "a tar with an extended header of a TiB")
@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_an_extended_header_is_not_read_into_memory(place, kind):
    refuses(place, written(place / "x.tgz", raw_header(b"top/a", 1 << 40, kind), gz=True), "states a length of")


@pytest.mark.fault("P4", "a tar with a negative length")
@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_a_negative_length_of_an_extended_header_is_refused(place, kind):
    content = raw_header(b"top/a", -512, kind) + bytes(1024)
    refuses(place, written(place / "x.tar", content), "length of -512 bytes")


def test_a_negative_length_ends_the_look(place):
    """It leads back to its own header, over and over."""
    content = raw_header(b"top/good", 0) + raw_header(b"top/a", -512) + bytes(1024)
    text = refuses(place, written(place / "x.tar", content), "states -512 bytes")
    assert text.count("top/a") == 1


def test_headers_of_headers_without_end_are_refused(place):
    header = raw_header(b"././@LongLink", 1, b"L") + b"n".ljust(512, b"\0")
    refuses(place, written(place / "x.tar", header * 5000), "read to its end")


@pytest.mark.fault("P4", "a zip whose header states less than there is")
def test_a_zip_whose_header_states_less_than_there_is(place):
    path = zipped(place / "x.zip", {"top/a": b"y" * 5000}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    refuses(place, path, "CRC|bytes, there are")


@pytest.mark.fault("P4", "a zip whose header states more than there is")
def test_a_zip_whose_header_states_more_than_there_is(place):
    path = zipped(place / "x.zip", {"top/a": b"y" * 50})
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (500_000).to_bytes(4, "little")
    path.write_bytes(content)
    refuses(place, path, "states 500000 bytes, there are 50")


@pytest.mark.fault("P3", "an archive that is cut off")
@pytest.mark.parametrize("ending", [".zip", ".tar", ".tgz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
def test_a_cut_archive_is_refused(place, ending, share):
    noise = {f"top/{k}": os.urandom(3000) for k in range(5)}
    path = made(place / f"x{ending}", noise)
    path.write_bytes(path.read_bytes()[: int(share * sum(map(len, noise.values())))])
    refuses(place, path, "read to its end")


@pytest.mark.fault("P3", "a tar that is cut off between two members")
def test_a_tar_cut_between_two_members_is_refused(place):
    path = tarred(place / "x.tar", {"top/a": b"x" * 512, "top/b": b"x" * 512})
    path.write_bytes(path.read_bytes()[:1024])
    refuses(place, path, "ends too early")


@pytest.mark.fault("P3", "a flipped bit in an archive")
@pytest.mark.parametrize("ending", [".zip", ".tgz"])
@pytest.mark.parametrize("part", [0.25, 0.5])
def test_a_flipped_byte_is_found(place, ending, part):
    """A plain tar has no checksum of contents: there the published hash of the archive must tell."""
    path = made(place / f"x{ending}", {"top/a": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    content[int(part * len(content))] ^= 1
    path.write_bytes(content)
    refuses(place, path, "read to its end")


@pytest.mark.fault("P4", "a tar that goes on after its end")
@pytest.mark.parametrize(("more", "message"), [(1 << 20, ""), (65 << 20, "goes on after its end")])
def test_a_tar_may_be_padded_but_not_without_end(place, more, message):
    content = raw_header(b"top/a", 0) + bytes(1024 + more)
    path = written(place / "x.tgz", content, gz=True)
    if message:
        refuses(place, path, message)
    else:
        assert list(extract(path, place / "raw", ("top",))) == ["top/a"]


@pytest.mark.fault("P3", "a login page instead of an archive")
def test_a_web_page_is_no_archive(place):
    refuses(place, written(place / "x.zip", b"<!DOCTYPE html><title>Login</title>" * 100), "read to its end")
    refuses(place, written(place / "x.tgz", b"<!DOCTYPE html><title>Login</title>" * 100), "read to its end")


def test_all_faults_come_at_once_and_say_what_to_do(place):
    path = zipped(place / "x.zip", {"../a": b"", "/b": b"", "top/C": b"", "top/c": b""})
    text = refuses(place, path, "of the usual kind")
    for words in ("'../a': leads out", "'/b': absolute", "'top/c': clashes with 'top/C'", "--from"):
        assert words in text


@pytest.mark.fault("P3", "an archive without what is wanted from it")
def test_what_is_wanted_and_not_there_is_said(place):
    refuses(place, zipped(place / "x.zip", GOOD), r"top/test: is not in it", wanted=("top/train", "top/test"))
