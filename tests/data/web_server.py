"""A local web server of which every page is a script, for downloads that go well and badly."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from segkd.data.fetch import Remote

BODY = bytes(range(256)) * 400  # 102400 bytes
Script = Callable[[BaseHTTPRequestHandler, int], None]


class Server(ThreadingHTTPServer):
    """Answers each path by its script; `asked` holds (path, Range header) of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scripts: dict[str, Script] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.gate = threading.Event()

    def remote(self, name: str, script: Script, body: bytes = BODY, size: int | None = None) -> Remote:
        self.scripts[f"/{name}"] = script
        url = f"http://127.0.0.1:{self.server_port}/{name}"
        return Remote(url, name, size or len(body), hashlib.sha256(body).hexdigest())

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is part of the test."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        earlier = sum(path == self.path for path, _ in self.server.asked)
        self.server.asked.append((self.path, self.headers.get("Range")))
        self.server.scripts[self.path](self, earlier)

    def do_POST(self) -> None:
        self.do_GET()  # scripts tell them apart by handler.command

    def log_message(self, *args) -> None:
        """Quiet."""


def answer(handler, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content_Type": "image/png", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def sound(handler, earlier: int, body: bytes = BODY) -> None:
    """Honours Range."""
    if wanted := handler.headers.get("Range"):
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        content = f"bytes {start}-{len(body) - 1}/{len(body)}"
        answer(handler, body[start:], 206, Content_Range=content)
    else:
        answer(handler, body)


def status(code: int, **headers: str) -> Script:
    return lambda handler, earlier: answer(handler, b"no", code, **headers)


def page(handler, earlier: int) -> None:
    answer(handler, b"<!DOCTYPE html><title>Login</title>", Content_Type="text/html; charset=utf-8")


@contextmanager
def serving() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        made.gate.set()
        made.shutdown()
        thread.join()
        made.server_close()
