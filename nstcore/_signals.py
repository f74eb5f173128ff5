"""Ctrl-C and a polite kill wait until the optimiser's state is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


class Signals:
    """Within a ``with`` block, the handlers of SIGINT and SIGTERM can be held back and let through.

    A step of an optimiser is interrupted while it evaluates the costs, which takes nearly all of its time, but not
    while it changes its state: so what is saved after an interrupt continues bit for bit. Handlers that others have set
    are called as they are; signals without one, and other threads than the main one, are left alone.
    """

    def __init__(self) -> None:
        self._before: dict[int, Handler] = {}
        self._waiting: list[tuple[int, FrameType | None]] = []
        self._held = False

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if callable(before):
                    self._before[number] = before
                    signal.signal(number, self._arrived)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if kind is None:
            self._deliver()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let them wait until the block ends, or `through` begins."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self._deliver()

    @contextmanager
    def through(self) -> Iterator[None]:
        """Let them through inside of `hold`."""
        before, self._held = self._held, False
        self._deliver()
        try:
            yield
        finally:
            self._held = before

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._waiting.append((number, frame))
        else:
            self._before[number](number, frame)

    def _deliver(self) -> None:
        while self._waiting:
            number, frame = self._waiting.pop(0)
            self._before[number](number, frame)
