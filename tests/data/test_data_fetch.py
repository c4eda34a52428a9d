"""The downloader against a server that misbehaves."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import BODY, Server, answer, page, serving, sound, status

from segkd.data.fetch import Patience, Remote, fetch
from segkd.errors import DownloadError

QUICK = Patience(attempts=3, timeout=0.5, pause=0.01)


def cut(handler, earlier: int) -> None:
    """Hangs up after 40000 bytes, twice; then is sound."""
    start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    if earlier >= 2:
        return sound(handler, earlier)
    headers = {"Content_Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"} if start else {}
    answer(handler, BODY[start : start + 40000], 206 if start else 200, len(BODY) - start, **headers)
    return None


def cut_and_ignores_range(handler, earlier: int) -> None:
    answer(handler, BODY if earlier else BODY[:40000], length=len(BODY))


def busy_then_sound(handler, earlier: int) -> None:
    sound(handler, earlier) if earlier else answer(handler, b"", 503, Retry_After="0")


def silent_then_sound(handler, earlier: int) -> None:
    sound(handler, earlier) if earlier else handler.server.gate.wait(3)


def drips(handler, earlier: int) -> None:
    """One byte now and then: never silent for long, never done."""
    answer(handler, b"", length=len(BODY))
    for _ in range(300):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        if handler.server.gate.wait(0.02):
            return


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def get(folder: Path, *remotes: Remote, patience: Patience = QUICK, connections: int = 8) -> None:
    fetch(remotes, folder, title="test", by_hand="place them by hand", connections=connections, patience=patience)


def asked(server: Server) -> list[str | None]:
    return [wanted for _, wanted in server.asked]


def test_many_files_come_over_parallel_connections(tmp_path, server):
    barrier = threading.Barrier(8)  # opens only when eight requests are there at once

    def together(handler, earlier: int) -> None:
        barrier.wait(5)
        sound(handler, earlier)

    get(tmp_path, *[server.remote(f"sub{k}/{k}.png", together) for k in range(8)])
    assert all((tmp_path / f"sub{k}/{k}.png").read_bytes() == BODY for k in range(8))
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_there_is_not_fetched_again(tmp_path, server):
    remote = server.remote("a.png", sound)
    get(tmp_path, remote)
    get(tmp_path, remote)
    assert len(server.asked) == 1


@pytest.mark.fault("P3", "a damaged file from an earlier download")
def test_a_damaged_file_is_fetched_again(tmp_path, server):
    remote = server.remote("a.png", sound)
    (tmp_path / "a.png").write_bytes(BODY[:-1] + b"x")
    get(tmp_path, remote)
    assert (tmp_path / "a.png").read_bytes() == BODY


@pytest.mark.fault("P2", "a connection that is cut twice")
def test_a_cut_connection_is_resumed_where_it_ended(tmp_path, server):
    get(tmp_path, server.remote("a.png", cut))
    assert (tmp_path / "a.png").read_bytes() == BODY
    assert asked(server) == [None, "bytes=40000-", "bytes=80000-"]


def test_a_part_of_an_earlier_run_is_continued(tmp_path, server):
    (tmp_path / "a.png.part").write_bytes(BODY[:1000])
    get(tmp_path, server.remote("a.png", sound))
    assert asked(server) == ["bytes=1000-"] and (tmp_path / "a.png").read_bytes() == BODY


def test_a_complete_part_needs_no_request(tmp_path, server):
    (tmp_path / "a.png.part").write_bytes(BODY)
    get(tmp_path, server.remote("a.png", sound))
    assert server.asked == [] and (tmp_path / "a.png").read_bytes() == BODY


@pytest.mark.fault("P3", "a partial download of other bytes, or too long")
@pytest.mark.parametrize("part", [b"y" * 1000, b"y" * len(BODY), b"y" * (len(BODY) + 5)])
def test_a_wrong_part_is_thrown_away(tmp_path, server, part):
    (tmp_path / "a.png.part").write_bytes(part)
    get(tmp_path, server.remote("a.png", sound))
    assert (tmp_path / "a.png").read_bytes() == BODY and not (tmp_path / "a.png.part").exists()


@pytest.mark.fault("P3", "a server that ignores Range")
def test_a_server_that_ignores_range_starts_over(tmp_path, server):
    get(tmp_path, server.remote("a.png", cut_and_ignores_range))
    assert asked(server) == [None, "bytes=40000-"] and (tmp_path / "a.png").read_bytes() == BODY


@pytest.mark.fault("P3", "a server that cannot continue")
def test_a_server_that_cannot_continue_starts_over(tmp_path, server):
    def script(handler, earlier: int) -> None:
        status(416)(handler, earlier) if handler.headers.get("Range") else sound(handler, earlier)

    (tmp_path / "a.png.part").write_bytes(BODY[:1000])
    get(tmp_path, server.remote("a.png", script))
    assert asked(server) == ["bytes=1000-", None] and (tmp_path / "a.png").read_bytes() == BODY


@pytest.mark.fault("P5", "a server that is busy or silent for a while")
@pytest.mark.parametrize("script", [busy_then_sound, silent_then_sound])
def test_a_passing_trouble_is_waited_out(tmp_path, server, script):
    get(tmp_path, server.remote("a.png", script))
    assert len(server.asked) == 2 and (tmp_path / "a.png").read_bytes() == BODY


def disguised_page(handler, earlier: int) -> None:
    answer(handler, (b"\n<html>please log in" + b" " * len(BODY))[: len(BODY)], Content_Type="application/octet-stream")


@pytest.mark.fault("P3", "404, 403, 500, a login page, wrong length, wrong hash, cuts, silence")
@pytest.mark.parametrize(
    ("script", "requests", "message"),
    [
        (status(404), 1, "HTTP 404"),
        (status(403), 1, "HTTP 403"),
        (status(500), 3, "HTTP 500.*after 3 attempts"),
        (page, 1, "a web page came instead"),
        (disguised_page, 1, "a web page came instead"),
        (lambda h, k: answer(h, BODY[:-7]), 1, "too short: 102393 bytes, published are 102400"),
        (lambda h, k: answer(h, BODY + b"x"), 1, "too long: 102401 bytes"),
        (lambda h, k: answer(h, BODY[::-1]), 2, "wrong sha256"),
        (lambda h, k: answer(h, BODY[:500], length=len(BODY)), 3, "cut at 500 of 102400 bytes, after 3 attempts"),
        (lambda h, k: h.server.gate.wait(1), 3, "fell silent|no connection"),
    ],
)
def test_what_is_wrong_is_said_and_only_what_may_pass_is_tried_again(tmp_path, server, script, requests, message):
    with pytest.raises(DownloadError, match=rf"a.png: .*{message}") as caught:
        get(tmp_path, server.remote("a.png", script))
    assert len(server.asked) == requests
    assert "place them by hand" in str(caught.value)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.fault("P5", "a server that drips")
def test_a_drip_is_not_waited_for(tmp_path, server, monkeypatch):
    monkeypatch.setattr("segkd.data.fetch.SLOWEST", 10**9)
    with pytest.raises(DownloadError, match="stalled at"):
        get(tmp_path, server.remote("a.png", drips), patience=Patience(attempts=1, timeout=0.2))


@pytest.mark.fault("P3", "some of many files cannot be fetched")
def test_every_failed_file_is_listed_and_the_others_are_kept(tmp_path, server):
    remotes = [server.remote("good.png", sound), server.remote("a.png", status(404)), server.remote("b.png", page)]
    with pytest.raises(DownloadError, match=r"2 of 3 files[\s\S]*a.png: HTTP 404[\s\S]*b.png: a web page"):
        get(tmp_path, *remotes)
    assert (tmp_path / "good.png").read_bytes() == BODY


@pytest.mark.fault("P5", "a server without any of the files")
def test_a_server_without_any_of_the_files_is_left_soon(tmp_path, server):
    with pytest.raises(DownloadError, match="the rest was not tried"):
        get(tmp_path, *[server.remote(f"{k}.png", status(404)) for k in range(100)], connections=2)
    assert len(server.asked) < 20


@pytest.mark.fault("P5", "no server at all")
def test_no_server_at_all(tmp_path, server):
    remote = server.remote("a.png", sound)
    gone = Remote("http://127.0.0.1:9/a.png", "a.png", remote.bytes, remote.sha256)
    with pytest.raises(DownloadError, match="no connection"):
        get(tmp_path, gone)


@pytest.mark.fault("P4", "a download address that names a local file")
def test_only_web_addresses_are_opened(tmp_path):
    (tmp_path / "secret").write_bytes(BODY)
    local = Remote((tmp_path / "secret").as_uri(), "a.png", len(BODY), hashlib.sha256(BODY).hexdigest())
    with pytest.raises(DownloadError, match="not an http address"):
        get(tmp_path, local)


@pytest.mark.fault("P3", "the disk fills up during a download")
def test_a_full_disk_ends_at_once(tmp_path, server, monkeypatch):
    real = Path.open

    def full(self, mode="r", *args, **options):
        if self.name.endswith(".part") and "a" in mode:
            raise OSError(28, "No space left on device")
        return real(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DownloadError, match="No space left"):
        get(tmp_path, server.remote("a.png", sound))
    assert len(server.asked) == 1
