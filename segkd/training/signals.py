"""Being asked to stop: Ctrl-C, SIGTERM and SIGUSR1 set a flag that the loop reads between two updates."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import ClassVar

log = logging.getLogger(__name__)


class StopRequest:
    """Context that turns the first SIGINT, SIGTERM or SIGUSR1 into a request; a second one ends the process as usual.

    SIGUSR1 is what schedulers are told to send ahead of a time limit (Slurm: --signal=USR1@120).
    """

    signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # handlers can be set nowhere else
            for one in self.signals:
                self._before[one] = signal.signal(one, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()
        log.warning("%s: saving and leaving after this update; once more leaves at once", signal.Signals(number).name)

    def _restore(self) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
        self._before = {}
