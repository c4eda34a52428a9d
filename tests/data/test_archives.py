"""Extraction: what comes out, where it goes, and that nothing goes anywhere else."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hostile import GOOD, entry, made, tarred, tree, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segkd.data.archives import Archive, extract, matches
from segkd.data.members import FILE, FOLDER, Member, Names
from segkd.errors import DataError, StorageError

TARS = (".tar", ".tgz", ".tar.gz")


@pytest.fixture
def place(tmp_path) -> Path:
    """archive/ and raw/ within a folder that is watched."""
    (tmp_path / "watched/raw").mkdir(parents=True)
    return tmp_path / "watched"


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


@pytest.mark.fault("P4", "an archive that sets setuid bits and modes")
def test_modes_of_an_archive_are_not_taken_over(place):
    info = entry("top/a", b"x")
    info.mode = 0o6777
    extract(tarred(place / "x.tar", [(info, b"x")]), place / "raw", ("top",))
    assert stat.S_IMODE((place / "raw/top/a").stat().st_mode) & 0o7111 == 0


@pytest.mark.fault("P3", "too little room to extract an archive")
def test_a_full_disk_is_found_before(place, monkeypatch):
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    path = zipped(place / "x.zip", GOOD)
    before = tree(place)
    with pytest.raises(StorageError, match=r"too full to extract x\.zip"):
        extract(path, place / "raw", ("top",))
    assert tree(place) == before


@pytest.mark.fault("P3", "the disk fills up while an archive is extracted")
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


@pytest.mark.fault("P4", "a link, file or folder where an archive is extracted to")
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


@pytest.mark.fault("P2", "what a killed extraction left, or a link in its place")
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


@pytest.mark.fault("P2", "kill -9 between extraction and rename")
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


@pytest.mark.fault("P4", "any names in an archive (hypothesis)")
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


@pytest.mark.fault("P4", "archives of any names and contents (hypothesis)")
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
