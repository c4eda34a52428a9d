"""Archives as they are published, and taking files out of them without trusting them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 1 << 30


@dataclass(frozen=True)
class Archive:
    """A published zip, tar, tar.gz or tgz, or with `wanted=()` a loose file that is taken as it is.

    url, name: where it is and its file name. bytes: its size. sha256, sha1, md5: what its publisher or others state;
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


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: members; total and largest file in bytes; ratio of unpacked to packed bytes."""

    members: int = 300_000
    total: int = 120 * GIB
    file: int = GIB
    ratio: int = 100


def extract(
    path: Path, into: Path, wanted: tuple[str, ...], *, limits: Limits | None = None
) -> dict[str, dict[str, Any]]:
    """Extract the wanted members of `path` into `into`: name below `into` -> {"bytes", "sha256"}, sorted by name."""
    raise NotImplementedError
