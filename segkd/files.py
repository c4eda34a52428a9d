"""Writing files so that a reader sees the old content or the new, never a part; and hashing them."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from segkd import crash
from segkd.errors import DataError, StorageError, explain

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextmanager
def atomic_open(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; on success fsync it and rename it over `path`.

    StorageError where there is no room or no permission; what `path` held before stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        crash.point(f"renaming {path.name}")
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:  # another one may be about a file that was read
            raise cannot_write(path, error) from error
        raise


def cannot_write(path: Path, error: OSError) -> StorageError:
    """The error that says which file has no room or may not be written, and that nothing is lost."""
    fault = StorageError(
        explain(
            f"{path.name} cannot be written.",
            expected="room and permission to write",
            found=error.strerror or error,
            where=path.parent,
            fix="free space or mend the permission, then give the same command again; what was there before is intact",
        )
    )
    fault.errno = error.errno
    return fault


def clear_left(path: Path) -> None:
    """Remove the temporary files that killed processes left beside `path`; for its only writer."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; without this a power cut can bring the old file back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Replace a file's content in one step."""
    with atomic_open(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def atomic_save(path: Path, save: Callable[[BinaryIO], None]) -> None:
    """Replace a file in one step by what `save(file)` writes (numpy.savez, torch.save)."""
    with atomic_open(path) as file:
        save(file)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON in one step; NaN and infinity are refused, since JSON has none."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Content of a JSON file; DataError where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            explain(
                "A file is missing.",
                expected=path.name,
                found="no such file",
                where=path.parent,
                fix="run the step that makes it",
            )
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            explain(
                "A file is damaged.",
                expected="JSON",
                found=error,
                where=path,
                fix="delete it and run the step that makes it again",
            )
        ) from None


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
