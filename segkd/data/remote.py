"""A published file, and telling it from a web page, a part, and another file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PAGES = {"text/html", "application/xhtml+xml"}


@dataclass(frozen=True)
class Remote:
    """A published file. name: where it goes, relative to the target folder.

    bytes, and sha256, sha1 or md5: what it must be, None where nobody stated it. note: more to say of a wrong hash.
    """

    url: str
    name: str
    bytes: int | None
    sha256: str | None = None
    sha1: str | None = None
    md5: str | None = None
    note: str = ""

    @property
    def check(self) -> tuple[str, str] | None:
        """The strongest hash that is known: its algorithm and hex digest."""
        known = (("sha256", self.sha256), ("sha1", self.sha1), ("md5", self.md5))
        return next(((algorithm, digest.lower()) for algorithm, digest in known if digest), None)


def fault_of(remote: Remote, path: Path) -> str:
    """Why the file at `path` is not the published one, or "". A known hash decides alone, else the size does."""
    size = path.stat().st_size
    if remote.check is not None:
        right = _digest(path, remote.check[0]) == remote.check[1]
    else:
        right = remote.bytes in {None, size} and not _holds_page(path)
    if right:
        return ""
    if _holds_page(path):
        return "is a web page instead of the file (a login or a proxy?)"
    if remote.bytes is not None and remote.bytes != size:
        return f"is too {'short' if size < remote.bytes else 'long'}: {size} bytes, published are {remote.bytes}"
    algorithm = remote.check[0] if remote.check else "size"
    return f"the content is another one (wrong {algorithm})" + (f"; {remote.note}" if remote.note else "")


def is_page(content: bytes) -> bool:
    """Whether a file's first bytes are those of a web page."""
    return content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def _holds_page(path: Path) -> bool:
    with path.open("rb") as file:
        return is_page(file.read(256))


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.new, algorithm, usedforsecurity=False)).hexdigest()
