"""Why a run is not there: what the machine cannot have (data/receipts/missing.json), or how the run's own log ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from segkd.errors import DataError
from segkd.files import read_json

MISSING = Path("data/receipts/missing.json")
NOT_MADE = "not made yet"
_TAIL, _LONGEST = 8192, 240  # bytes of a log that are looked at, characters of a message that are shown
_ERROR = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b(?::|$)")


class Need(BaseModel):
    """Something that cannot be had on this machine, and how to get it."""

    what: str
    why: str = ""
    to_do: str = ""
    studies: tuple[str, ...] = ()


class _File(BaseModel):
    format: Literal[1]
    runs: dict[str, str] = {}
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True)
class Missing:
    """Reason per name of a run, the needs behind them, and what is wrong with the file itself, if anything."""

    runs: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    fault: str = ""


def read_missing(root: Path) -> Missing:
    """What the availability check wrote under `root`; nothing where it found nothing or has not been made."""
    path = root / MISSING
    if not path.exists():
        return Missing()
    try:
        found = _File.model_validate(read_json(path))
    except (DataError, ValidationError):
        return Missing(fault=f"{MISSING} cannot be read: delete it and plan again")
    return Missing(found.runs, found.needs)


def log_end(path: Path) -> str:
    """How a step that left no result ended: its error message, in one line, or its last words; empty without a log."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    start = max((place for place, line in enumerate(lines) if _ERROR.match(line)), default=None)
    if start is not None:
        return f"failed: {_short(' '.join(lines[start:]))}"
    return f"not finished; its log ends with “{_short(lines[-1])}”" if lines else "not finished"


def _short(words: str) -> str:
    flat = " ".join(words.split())
    return flat if len(flat) <= _LONGEST else f"{flat[: _LONGEST - 1]}…"
