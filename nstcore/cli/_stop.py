"""How a command is stopped: a polite kill (SIGTERM), such as a time limit's, keeps what is done, as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED, TERMINATED = 130, 143  # 128 and the signal's number, as shells count
CODES = (INTERRUPTED, TERMINATED)
_last: dict[str, int] = {}  # the exit code of what stopped the command that runs now


@contextmanager
def politely() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, unless somebody else handles it or it is to be ignored."""
    _last.clear()
    mine = threading.current_thread() is threading.main_thread()  # the only one that may set handlers
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def code() -> int:
    """The exit code of a command that was stopped: 143 after SIGTERM, 130 after Ctrl-C."""
    return _last.get("code", INTERRUPTED)


def _terminate(*_: Any) -> None:
    _last["code"] = TERMINATED
    raise KeyboardInterrupt
