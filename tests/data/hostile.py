"""Archives made on the spot, honest and hostile."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

Contents = dict[str, bytes]
GOOD = {"top/train/a.png": b"one" * 50, "top/train/sub/b.png": b"two", "top/val/c.png": b"", "top/README": b"read"}


def zipped(path: Path, contents: Contents, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with these members; a name that ends in / is a folder. Names are stored as they are, even bad ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, method
            archive.writestr(info, content)
    return path


def zipped_as(path: Path, change: Callable[[zipfile.ZipInfo], None], name: str = "top/bad") -> Path:
    """A zip with a good member and one whose header is changed before it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("top/good", b"good")
        info = zipfile.ZipInfo(name)
        change(info)
        archive.writestr(info, b"target")
    return path


def tarred(path: Path, contents: Contents | Iterable[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """A tar (.tar) or tar.gz (.tgz, .gz) with these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix in {".tgz", ".gz"} else "w") as archive:
        members = (
            ((entry(name, content), content) for name, content in contents.items())
            if isinstance(contents, dict)
            else contents
        )
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def made(path: Path, contents: Contents) -> Path:
    """A zip or tar, as the name ends."""
    return zipped(path, contents) if path.suffix == ".zip" else tarred(path, contents)


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A tar header."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info


def raw_header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """One tar header block with any size, also a negative one (base 256)."""
    sign = b"\x80" if size >= 0 else b"\xff"
    field = b"%011o\0" % size if 0 <= size < 8**11 else sign + size.to_bytes(11, signed=True)
    block = name.ljust(100, b"\0") + b"0000644\0" * 3 + field + b"0" * 11 + b"\0"
    block += b" " * 8 + kind + b"\0" * 100 + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def written(path: Path, content: bytes, *, gz: bool = False) -> Path:
    """A file with this content, packed by gzip if asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if gz else content)
    return path


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder: content of files, None for anything else."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
