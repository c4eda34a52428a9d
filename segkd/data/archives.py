"""Archives as they are published, and taking files out of them without trusting them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

from segkd.data.fetch import LOCAL
from segkd.data.members import FILE, FOLDER, PIECE, DamagedError, Member, Names, Reader, opened, shown
from segkd.data.progress import Advance, progress
from segkd.errors import DataError, StorageError, explain, listing

GIB = 1 << 30
SMALL = 1 << 20  # bytes below which no ratio is a danger
KINDS = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Archive:
    """A published zip, tar, tar.gz or tgz, or with `wanted=()` a loose file that is taken as it is.

    url, name: where it is and its file name. bytes: its exact size. sha256, sha1, md5: as published or as others found;
    with none of them the first download is trusted and later ones are compared with it. page: where a person finds it.
    wanted: members to extract, each a name or folder ("gtFine/train") or a glob ("gtFine/*_labelIds.png", where * also
    stands for /); into: folder below data/raw/<name> that the members, or the loose file, go to. unpacked: bytes of
    what is wanted, about; for the look at the disk before anything is fetched. account: "cityscapes" or None.
    """

    url: str
    name: str
    wanted: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    sha1: str | None = None
    md5: str | None = None
    into: str = ""
    unpacked: int | None = None
    page: str = ""
    account: str | None = None

    def __post_init__(self) -> None:
        if "/" in self.name or self.name.startswith("."):
            raise ValueError(f"an archive's name is a file name, got {self.name!r}")
        if self.wanted and not self.name.lower().endswith(KINDS):
            raise ValueError(f"{self.name}: members are extracted from {', '.join(KINDS)}")
        if any(not one or one[0] in "./*?[" for one in self.wanted) or self.into.startswith(("/", ".")):
            raise ValueError(f"{self.name}: `wanted` and `into` begin with a folder's or file's name")


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: members; bytes in total and of one file; ratio of unpacked to packed bytes."""

    members: int = 300_000
    total: int = 120 * GIB
    file: int = GIB
    ratio: int = 100


def matches(name: str, wanted: str) -> bool:
    """Whether a member is the wanted name, lies in the wanted folder, or fits the wanted glob."""
    if any(one in wanted for one in "*?["):
        return fnmatchcase(name, wanted)
    return name == wanted or name.startswith(wanted.rstrip("/") + "/")


def extract(
    path: Path, into: Path, wanted: tuple[str, ...], *, limits: Limits | None = None
) -> dict[str, dict[str, Any]]:
    """Extract the wanted members of `path` into `into`: name below `into` -> {"bytes", "sha256"}, sorted by name.

    All members are looked at first, wanted or not, and DataError lists what is refused, before anything is written:
    names that are absolute, lead out, clash or cannot be printed; links, devices, encrypted and sparse members; more
    than the limits. The files are written to a hidden folder within `into` and moved when all are there, so that a
    killed extraction leaves nothing that counts, and runs again from the start. StorageError on a full disk.
    """
    limits = limits or Limits()
    hidden = into / f".{path.name}.extracting"
    try:
        with opened(path) as reader:
            chosen = _chosen(path, _looked_at(path, reader, limits), wanted)
            require_room(into, sum(member.bytes for _, member in chosen), f"extract {path.name}")
            _clear(hidden)
            try:
                files = _write(reader, chosen, hidden, path.name)
            except BaseException:
                shutil.rmtree(hidden, ignore_errors=True)
                raise
    except DamagedError as error:
        raise _refused(path, [str(error)], "an archive that can be read to its end") from None
    except OSError as error:
        raise unwritable(error, into) from None
    _move_in(hidden, into)
    return files


def _looked_at(path: Path, reader: Reader, limits: Limits) -> list[tuple[str, Member]]:
    """Cleaned name and member, all of them; DataError where one of them is unfit."""
    names, faults, members, total = Names(), list[str](), list[tuple[str, Member]](), 0
    packed = path.stat().st_size
    for count, member in enumerate(reader.members(), 1):
        total += max(0, member.bytes)
        name, fault = names.take(member)
        fault = fault or _fault(member, limits)
        if fault:
            faults.append(f"{shown(member.name)}: {fault}")
        elif name:
            members.append((name, member))
        if too_much := _too_much(count, total, packed, limits):
            faults.append(too_much)
        if too_much or member.bytes < 0:  # what follows in a bomb is not worth a look, and may have no end
            break
    if faults:
        raise _refused(path, faults, "files and folders of the usual kind, within the limits")
    return members


def _fault(member: Member, limits: Limits) -> str:
    if member.kind not in {FILE, FOLDER}:
        return f"is {member.kind}"
    if not 0 <= member.bytes <= limits.file:
        return f"states {member.bytes} bytes, allowed are {limits.file}"
    if member.packed is not None and member.bytes > max(SMALL, limits.ratio * member.packed):
        return f"unpacks {member.packed} bytes to {member.bytes}, allowed is a ratio of {limits.ratio}"
    return ""


def _too_much(count: int, total: int, packed: int, limits: Limits) -> str:
    if count > limits.members:
        return f"more than {limits.members} members"
    if total > limits.total:
        return f"more than {limits.total} bytes in total"
    if total > max(SMALL, limits.ratio * packed):
        return f"unpacks {packed} bytes to {total} or more, allowed is a ratio of {limits.ratio}"
    return ""


def _chosen(path: Path, members: list[tuple[str, Member]], wanted: tuple[str, ...]) -> list[tuple[str, Member]]:
    files = [(name, member) for name, member in members if member.kind == FILE]
    if lacking := [one for one in wanted if not any(matches(name, one) for name, _ in files)]:
        raise _refused(path, [f"{one}: is not in it" for one in lacking], "an archive with " + ", ".join(wanted))
    return [(name, member) for name, member in files if any(matches(name, one) for one in wanted)]


def _refused(path: Path, faults: list[str], expected: str) -> DataError:
    return DataError(
        explain(
            f"The archive {path.name} is refused; nothing of it was kept.",
            expected=expected,
            found="\n" + listing(faults),
            where=path,
            fix="delete it and get the published one; if that one is so, look at it, unpack it yourself, and hand the "
            "folder over by --from",
        )
    )


def require_room(folder: Path, needed: int, purpose: str) -> None:
    """StorageError where the disk that `folder` is, or will be, on has fewer than `needed` bytes free."""
    place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StorageError(
            explain(
                f"The disk is too full to {purpose}.",
                expected=f"{needed / 1e9:.1f} GB free",
                found=f"{free / 1e9:.1f} GB free",
                where=folder,
                fix=f"free {(needed - free) / 1e9:.1f} GB, or make that folder a link to one on a larger disk",
            )
        )


def unwritable(error: OSError, folder: Path) -> Exception:
    """StorageError for a disk that is full, over quota or read-only; any other error as it is."""
    if error.errno not in LOCAL:
        return error
    return StorageError(
        explain(
            "Files cannot be written.",
            expected="room and permission to write",
            found=error.strerror,
            where=folder,
            fix="make room or give permission, then run it again",
        )
    )


def _clear(hidden: Path) -> None:
    """An empty folder of our own, whatever stood there."""
    if hidden.is_symlink() or hidden.is_file():
        hidden.unlink()
    elif hidden.exists():
        shutil.rmtree(hidden)
    hidden.mkdir(parents=True)


def _write(reader: Reader, chosen: list[tuple[str, Member]], hidden: Path, title: str) -> dict[str, dict[str, Any]]:
    files = {}
    with progress(f"extract {title}", sum(member.bytes for _, member in chosen), size=True) as advance:
        for name, member in chosen:
            target = hidden / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with reader.open(member) as content, target.open("xb") as file:
                files[name] = _copied(content, file, member, advance)
    return dict(sorted(files.items()))


def _copied(content: IO[bytes], file: IO[bytes], member: Member, advance: Advance) -> dict[str, Any]:
    """Copy one member; its true length counts, since a header can lie."""
    size, found = 0, hashlib.sha256()
    for piece in _pieces(content):
        size += len(piece)
        if size > member.bytes:
            break
        file.write(piece)
        found.update(piece)
        advance(len(piece))
    if size != member.bytes:
        raise DamagedError(f"{shown(member.name)}: its header states {member.bytes} bytes, there are {size}")
    return {"bytes": size, "sha256": found.hexdigest()}


def _pieces(content: IO[bytes]) -> Iterator[bytes]:
    while piece := content.read(PIECE):
        yield piece


def _move_in(hidden: Path, into: Path) -> None:
    """Move what is in `hidden` into `into`, folder by folder; a file there is replaced, a link is not followed."""
    for child in sorted(hidden.iterdir()):
        target = into / child.name
        if target.is_symlink() or (target.exists() and target.is_dir() != child.is_dir()):
            raise DataError(
                explain(
                    "Something else stands where an archive's files go.",
                    expected="a folder" if child.is_dir() else "a file",
                    found="a link" if target.is_symlink() else "a file" if child.is_dir() else "a folder",
                    where=target,
                    fix="move it away; to use another disk, make the whole folder of the data set a link",
                )
            )
        if target.is_dir():
            _move_in(child, target)
        else:
            child.replace(target)
    hidden.rmdir()
