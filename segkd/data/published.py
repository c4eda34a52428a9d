"""Data sets that are published as archives: download, verify, extract; or take them from a copy that one has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segkd.data.archives import Archive
from segkd.data.fetch import Patience


def bring(
    name: str,
    archives: Sequence[Archive],
    raw: Path,
    *,
    source: Path | None = None,
    connections: int = 8,
    patience: Patience | None = None,
    keep: bool = False,
) -> tuple[str, dict[str, dict[str, Any]], dict[str, Any]]:
    """Fill `raw`; returns (how, files, more) for raw/manifest.json."""
    raise NotImplementedError
