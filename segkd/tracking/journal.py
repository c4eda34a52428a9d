"""The journal of a run: metrics.jsonl, one JSON object a line. It is the truth; MLflow holds a copy.

    {"kind": "train", "iteration": 40, "time": 1763762000.25, "values": {"loss": 1.25, "lr": 0.003}}
    {"kind": "val",   "iteration": 50, "time": 1763762003.5,  "values": {"miou": 0.41}}
    {"kind": "event", "iteration": 0,  "time": 1763761990.0,  "event": "start", "detail": ""}

`iteration` counts finished updates, `time` is in seconds since 1970. JSON has no NaN: a value that is not finite
becomes null, and the line gains a note that says what it was: `"note": {"loss": "nan"}`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from segkd.errors import DataError, StorageError, explain
from segkd.files import atomic_write

WRITE_EVERY = 5.0  # seconds: a reader that follows the file (MLflow, `tail -f`) lags by this much at most
_encode = json.JSONEncoder(separators=(", ", ": "), allow_nan=False, default=float).encode


class Journal:
    """Appends to a run's metrics.jsonl. A call costs microseconds: lines wait in memory until `flush`.

    The first writing into a journal that a killed process left behind removes a torn last line; opening it changes
    nothing, since another process may hold it. One process writes at a time (training's lock sees to that).
    """

    def __init__(self, path: Path):
        self.path = path
        self._lines: list[str] = []
        self._written = time.monotonic()
        self._mine = False

    def train(self, iteration: int, values: Mapping[str, float]) -> None:
        """Note what one training iteration measured: loss, its terms, learning rate."""
        self._values("train", iteration, values)

    def val(self, iteration: int, values: Mapping[str, float]) -> None:
        """Note what a look at the validation split gave; fractions 0..1."""
        self._values("val", iteration, values)

    def event(self, iteration: int, event: str, detail: str = "") -> None:
        """Note that the run started, resumed, stopped or finished."""
        line = {"kind": "event", "iteration": iteration, "time": time.time(), "event": event, "detail": detail}
        self._append(_encode(line))

    def rewind(self, iteration: int, *, validated: bool = True) -> None:
        """Forget every line of a later iteration, in one step: the run goes on from a checkpoint at `iteration`.

        validated: whether the checkpoint was written after the look at the validation split that is due then.
        """
        self._take()
        self.flush()
        if not self.path.exists():
            return
        lines = read(self.path)
        last = {"val": iteration if validated else iteration - 1}
        kept = [line for line in lines if line["iteration"] <= last.get(line["kind"], iteration)]
        if len(kept) < len(lines):
            try:
                atomic_write(self.path, "".join(_encode(line) + "\n" for line in kept))
            except OSError as error:
                raise _cannot_write(self.path, error) from error

    def flush(self) -> None:
        """Write what waits and make it durable (fsync). StorageError leaves the file as it was after the last flush."""
        self._write(sync=True)

    def close(self) -> None:
        """Flush; the journal may be used again afterwards."""
        self.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _values(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        line = {"kind": kind, "iteration": iteration, "time": time.time(), "values": dict(values)}
        try:
            self._append(_encode(line))
        except ValueError:
            self._append(_encode(_without_nan(line)))

    def _append(self, line: str) -> None:
        self._lines.append(line + "\n")
        if time.monotonic() - self._written > WRITE_EVERY:
            self._write(sync=False)

    def _take(self) -> None:
        """Before the first writing: drop what a killed process wrote half."""
        if self._mine:
            return
        try:
            _repair(self.path)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self._mine = True

    def _write(self, *, sync: bool) -> None:
        self._written = time.monotonic()
        if not self._lines and not (sync and self._mine and self.path.exists()):
            return
        self._take()
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write("".join(self._lines).encode())
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, size)  # a full disk may have taken half a line
            raise _cannot_write(self.path, error) from error
        self._lines.clear()


def read(path: Path) -> list[dict[str, Any]]:
    """Every line of a journal, oldest first; a torn last line (its writer was killed) is dropped.

    DataError where the file is missing or a line before the last is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            explain(
                "A journal is missing.",
                expected=path.name,
                found="no such file",
                where=path.parent,
                fix="train the run",
            )
        ) from None
    return parse(content, path)


def parse(content: bytes, path: Path) -> list[dict[str, Any]]:
    """The lines in a piece of a journal that starts at a line's beginning; `path` is for messages."""
    pieces = content[: content.rfind(b"\n") + 1].splitlines()
    lines = [_decode(piece) for piece in pieces]
    if lines and lines[-1] is None:
        lines.pop()
    good = [line for line in lines if line is not None]
    if len(good) < len(lines):
        broken = [number for number, line in enumerate(lines, 1) if line is None]
        raise DataError(
            explain(
                "A journal is damaged.",
                expected="one JSON object with kind, iteration and time in every line",
                found=f"something else in line(s) {', '.join(map(str, broken[:10]))}",
                where=path,
                fix="remove these lines, or train the run again",
            )
        )
    return good


def _decode(piece: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(piece)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"kind", "iteration", "time"} <= line.keys() else None


def _repair(path: Path) -> None:
    """Cut off a last line that was not written whole; a power cut can also leave zero bytes with a line end."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
    if end and _decode(content[start:end]) is None:
        end = start
    if end < len(content):
        os.truncate(path, end)


def _without_nan(line: dict[str, Any]) -> dict[str, Any]:
    values = {name: float(value) for name, value in line["values"].items()}
    bad = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
    return {**line, "values": {name: None if name in bad else value for name, value in values.items()}, "note": bad}


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(
        explain(
            "The journal cannot be written.",
            expected="room and permission to append",
            found=error.strerror or error,
            where=path,
            fix="free space or mend the permission, then give the same command again: it resumes",
        )
    )
