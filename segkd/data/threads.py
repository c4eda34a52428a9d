"""Threads that no process waits for when it ends, as it does for those of a ThreadPoolExecutor.

One that hangs on a dead disk must not keep alive a run that has already said so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Threads(Generic[T]):
    """`count` threads that do calls in the order in which they are handed over."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._calls: SimpleQueue[tuple[Future[T], Callable[..., T], tuple[Any, ...]] | None] = SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """The future result of call(*args)."""
        future: Future[T] = Future()
        self._calls.put((future, call, args))
        return future

    def stop(self) -> None:
        """Every thread ends after the calls that were handed over before; nobody waits for it."""
        for _ in range(self._count):
            self._calls.put(None)

    def _work(self) -> None:
        while (job := self._calls.get()) is not None:
            future, call, args = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call(*args)
            except Exception as error:  # noqa: BLE001 -- raised where the result is asked for
                future.set_exception(error)
            else:
                future.set_result(result)
