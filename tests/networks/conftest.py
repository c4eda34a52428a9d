"""Fixtures of the tests that fetch published weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_files import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that does not exist yet."""
    monkeypatch.setenv("SEGKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGKD_WEIGHTS", raising=False)
    return tmp_path / "cache"
