"""The members of a zip or tar as its headers state them, and names that are unfit to be written."""

from __future__ import annotations

import gzip
import io
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

FILE, FOLDER = "file", "folder"
PIECE = 1 << 20  # bytes read at once; no header of an honest tar is longer
PADDING = 64  # such pieces, at most, after the end mark
LONGEST, DEEPEST = 255, 64  # bytes between two slashes; folders within each other
DRIVE = re.compile(r"[A-Za-z]:")
TAR_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a fifo",
}
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    struct.error,
    UnicodeDecodeError,
    RecursionError,  # headers of headers of headers
)


@dataclass(frozen=True)
class Member:
    """name as stored; bytes and packed as the header states them (packed: None in a tar).

    kind: "file", "folder", or in words what else it is.
    """

    name: str
    bytes: int
    packed: int | None
    kind: str
    handle: Any


class Reader(Protocol):
    """An open archive."""

    def members(self) -> Iterator[Member]:
        """All members, in stored order."""

    def open(self, member: Member) -> IO[bytes]:
        """A file's content; ask in stored order, since a tar.gz is unpacked anew for every step back."""


class DamagedError(Exception):
    """The archive itself cannot be read to its end."""


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Open a .zip, .tar, .tar.gz or .tgz. DamagedError for whatever breaks here or while it is read."""
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                yield _Zip(archive)
        else:
            with path.open("rb") as file, _Content(file) as content, tarfile.open(fileobj=content, mode="r:") as tar:
                yield _Tar(tar, content)
    except BROKEN as error:
        raise DamagedError(str(error) or type(error).__name__) from None


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def members(self) -> Iterator[Member]:
        for info in self._archive.infolist():
            yield Member(info.orig_filename, info.file_size, info.compress_size, _zip_kind(info), info)

    def open(self, member: Member) -> IO[bytes]:
        return self._archive.open(member.handle)


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "a device or fifo"
    if info.flag_bits & 0x41:
        return "encrypted"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} or info.flag_bits & 0x20:
        return f"packed by a method that is not read here ({info.compress_type})"
    return FOLDER if info.orig_filename.endswith("/") else FILE


class _Tar:
    def __init__(self, archive: tarfile.TarFile, content: io.BufferedIOBase) -> None:
        self._archive, self._content = archive, content

    def members(self) -> Iterator[Member]:
        """All that tarfile finds; then DamagedError at a missing end mark, or what gzip's checksum at its end finds.

        tarfile itself takes a cut archive, or a broken header, for the end, and reads no further than that.
        """
        try:
            for info in self._archive:
                yield Member(info.name, info.size, None, _tar_kind(info), info)
        except ValueError as error:  # numbers in extended headers that are none
            raise DamagedError(f"a header is broken: {error}") from None
        self._content.seek(self._archive.offset)
        if self._content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DamagedError("it ends too early, or a header is broken")
        for _ in range(PADDING):
            if not self._content.read(PIECE):
                return
        raise DamagedError("it goes on after its end")

    def open(self, member: Member) -> IO[bytes]:
        content = self._archive.extractfile(member.handle)
        if content is None:
            raise DamagedError(f"{member.name!r} has no content")
        return content


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issparse():
        return "a sparse file"
    if info.isdir():
        return FOLDER
    return FILE if info.isreg() else TAR_KINDS.get(info.type, "something else than a file or folder")


class _Content(io.BufferedIOBase):
    """What is in a .tar or .tar.gz, for tarfile, which would read a header of any stated length into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        self._file: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=file) if packed else file

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= PIECE:
            raise DamagedError(f"a header states a length of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if offset < 0:
            raise DamagedError("a header points before the beginning")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class Names:
    """Cleans names and remembers them, so that no two members can be the same file on any usual file system."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}

    def take(self, member: Member) -> tuple[str, str]:
        """(name as a relative path with single slashes, "") or ("", what is wrong with it)."""
        raw = member.name.removesuffix("/") if member.kind == FOLDER else member.name
        fault = name_fault(raw)
        name = "/".join(part for part in raw.split("/") if part != ".")
        if fault or not name:
            return "", fault or ("" if member.kind == FOLDER else "no name")
        fault = self._clash(name, folder=member.kind == FOLDER)
        return ("", fault) if fault else (name, "")

    def _clash(self, name: str, *, folder: bool) -> str:
        parent = name.rpartition("/")[0]
        if parent and (fault := self._clash(parent, folder=True)):
            return fault
        mine = (name, folder)
        earlier = self._seen.setdefault(unicodedata.normalize("NFC", name).casefold(), mine)
        return "" if earlier is mine or (folder and earlier == mine) else f"clashes with {shown(earlier[0])}"


def name_fault(name: str) -> str:
    """What makes a name unfit to be written below a folder, or ""."""
    parts = name.split("/")
    rules = {
        "absolute name": name.startswith("/") or DRIVE.match(name),
        "leads out of the folder (..)": ".." in parts,
        "backslash in its name": "\\" in name,
        "empty name": "" in parts,
        "unprintable name": not name.isprintable(),  # control characters, and bytes that are no UTF-8
        "name too long": len(parts) > DEEPEST or any(len(part.encode(errors="replace")) > LONGEST for part in parts),
    }
    return next((fault for fault, broken in rules.items() if broken), "")


def shown(name: str) -> str:
    """A name that is safe to print."""
    return ascii(name if len(name) <= LONGEST else name[:LONGEST] + "...")
