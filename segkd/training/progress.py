"""What a person sees while a run trains: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger(__name__)


class Display:
    """Progress of one run: iteration, loss terms, iterations per second, time left."""

    def __init__(self, title: str, iterations: int, *, seconds: float = 10.0, shown: bool = True):
        """seconds: least time between two lines of a log; shown: false in processes beside the first."""
        self.title, self.iterations, self.seconds, self.shown = title, iterations, seconds, shown
        self._bar: Progress | None = None
        self._first: tuple[int, float] | None = None
        self._last_line = -seconds

    def __enter__(self) -> Display:
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.iterations, values="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, values: dict[str, float]) -> None:
        """Show where the run stands; on a log at most one line every few seconds, and the last one always."""
        now = time.monotonic()
        first_done, first_time = self._first = self._first or (done, now)
        rate = (done - first_done) / (now - first_time) if now > first_time else 0.0
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=done, values=f"{text}  {rate:.1f} it/s")
        elif self.shown and (now - self._last_line >= self.seconds or done == self.iterations):
            left = f"{(self.iterations - done) / rate:.0f} s left" if rate else "time left unknown"
            log.info("%s  %d/%d  %s  %.1f it/s  %s", self.title, done, self.iterations, text, rate, left)
            self._last_line = now
