"""A local server that answers as it is told, for tests of fetching."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = b"published weights"
SHA = hashlib.sha256(BODY).hexdigest()


def good(body: bytes = BODY) -> tuple[int, bytes, int]:
    return 200, body, len(body)


@dataclass
class Server:
    """Answers every request with the next of `answers` (the last one for ever): (status, body, promised length)."""

    url: str = ""
    answers: list[tuple[int, bytes, int]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            status, body, length = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{running.server_port}/models/"
    try:
        yield state
    finally:
        running.shutdown()
        running.server_close()
