"""Files of which less is known: another hash than sha256, no hash, no size; and telling wrong ones apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import BODY, Server, answer, page, serving, sound, status

from segkd.data.fetch import Patience, Remote, fetch
from segkd.data.progress import progress
from segkd.data.remote import fault_of
from segkd.errors import ConfigError, DownloadError

QUICK = Patience(attempts=3, timeout=0.5, pause=0.01)
ALGORITHMS = ("sha256", "sha1", "md5")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def remote(server: Server, script, name: str = "a.zip", size: int | None = None, **hashes: str) -> Remote:
    return Remote(server.remote(name, script).url, name, size, **hashes)


def get(folder: Path, *remotes: Remote, **more) -> None:
    fetch(remotes, folder, title="test", patience=QUICK, **{"by_hand": "place them by hand", **more})


def digest(algorithm: str, body: bytes = BODY) -> str:
    return hashlib.new(algorithm, body).hexdigest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [None, len(BODY)])
def test_each_hash_is_checked_with_and_without_a_size(tmp_path, server, algorithm, size):
    get(tmp_path, remote(server, sound, size=size, **{algorithm: digest(algorithm).upper()}))
    assert (tmp_path / "a.zip").read_bytes() == BODY and len(server.asked) == 1


@pytest.mark.fault("P3", "a download with another hash")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_hash_is_named(tmp_path, server, algorithm):
    wrong = remote(server, sound, **{algorithm: digest(algorithm, b"another")})
    with pytest.raises(DownloadError, match=rf"a.zip: the content is another one \(wrong {algorithm}\)"):
        get(tmp_path, wrong)
    assert len(server.asked) == 2 and list(tmp_path.iterdir()) == []


def test_the_strongest_hash_decides():
    known = dict.fromkeys(ALGORITHMS, "0")
    for algorithm in ALGORITHMS:
        assert Remote("u", "n", None, **known).check == (algorithm, "0")
        del known[algorithm]
    assert Remote("u", "n", 5).check is None


def test_a_file_of_which_nothing_is_known_is_taken_once(tmp_path, server):
    unknown = remote(server, sound)
    get(tmp_path, unknown)
    get(tmp_path, unknown)
    assert (tmp_path / "a.zip").read_bytes() == BODY and len(server.asked) == 1


def cut_once(handler, earlier: int) -> None:
    sound(handler, earlier) if earlier else answer(handler, BODY[:40000], length=len(BODY))


@pytest.mark.fault("P3", "a download of unknown size that is cut")
def test_what_the_server_announced_must_come(tmp_path, server):
    get(tmp_path, remote(server, cut_once))
    assert [wanted for _, wanted in server.asked] == [None, "bytes=40000-"]
    assert (tmp_path / "a.zip").read_bytes() == BODY


def ends_there(handler, earlier: int) -> None:
    if handler.headers.get("Range"):
        answer(handler, b"", 416, Content_Range=f"bytes */{len(BODY)}")
    else:
        sound(handler, earlier)


@pytest.mark.parametrize(("part", "requests"), [(BODY, 1), (BODY + b"more", 2)])
def test_a_complete_part_of_unknown_size_is_known_by_the_servers_word(tmp_path, server, part, requests):
    (tmp_path / "a.zip.part").write_bytes(part)
    get(tmp_path, remote(server, ends_there))
    assert (tmp_path / "a.zip").read_bytes() == BODY and len(server.asked) == requests


@pytest.mark.fault("P3", "a login page instead of a file of unknown size")
def test_a_web_page_is_no_file_of_unknown_size(tmp_path, server):
    with pytest.raises(DownloadError, match="a web page came instead"):
        get(tmp_path, remote(server, page))
    assert list(tmp_path.iterdir()) == []


def test_what_to_do_by_hand_is_said_for_the_files_that_failed(tmp_path, server):
    good, bad = remote(server, sound, "good.zip"), remote(server, status(404), "bad.zip")
    with pytest.raises(DownloadError, match=r"to do: .*or fetch bad\.zip yourself$"):
        get(tmp_path, good, bad, by_hand=lambda failed: f"fetch {' '.join(one.name for one in failed)} yourself")


def test_who_is_not_let_in_hears_so_at_once(tmp_path, server):
    def closed(request, timeout):
        raise ConfigError("no account")

    with pytest.raises(ConfigError, match="no account"):
        get(tmp_path, remote(server, sound), open_=closed)
    assert server.asked == []


SHA1 = digest("sha1")


@pytest.mark.fault("P3", "files put there by hand that are not the published ones")
@pytest.mark.parametrize(
    ("content", "known", "message"),
    [
        (BODY, {}, ""),
        (BODY, {"bytes": len(BODY)}, ""),
        (BODY, {"sha1": SHA1}, ""),
        (BODY, {"sha1": SHA1, "bytes": 5}, ""),  # the hash is surer than a stated size
        (BODY[:-1], {"sha1": SHA1}, "another one (wrong sha1)"),
        (BODY[:-1], {"sha1": SHA1, "bytes": len(BODY)}, "is too short: 102399 bytes, published are 102400"),
        (BODY[:-1], {"bytes": len(BODY)}, "is too short"),
        (BODY + b"x", {"sha1": SHA1, "bytes": len(BODY)}, "is too long: 102401 bytes"),
        (BODY[::-1], {"md5": "0", "bytes": len(BODY), "note": "as before"}, "(wrong md5); as before"),
        (b"\n<!doctype HTML><p>Log in", {"sha1": SHA1, "bytes": len(BODY)}, "is a web page"),
        (b"<html>", {}, "is a web page"),
        (b"", {"sha1": SHA1}, "wrong sha1"),
    ],
)
def test_files_that_lie_there_are_told_apart(tmp_path, content, known, message):
    (tmp_path / "a").write_bytes(content)
    fault = fault_of(Remote("u", "a", **{"bytes": None, **known}), tmp_path / "a")
    assert message in fault and bool(message) == bool(fault)


def test_an_unknown_total_is_logged_at_each_doubling(caplog):
    caplog.set_level("INFO", logger="segkd.data.progress")
    with progress("x", 0, size=True) as advance:
        for _ in range(1024):
            advance(1 << 16)
    assert len(caplog.messages) == 7 and caplog.messages[-1] == "x: 67.1 MB"
