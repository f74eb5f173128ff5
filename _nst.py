"""Where the command ``nst`` starts; outside of the package, since importing that loads NumPy.

Until the command runs, Ctrl-C ends the process here: an exception would come up inside of some import.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

INTERRUPTED = 130


def main() -> int:
    """Load and run ``nst``; returns its exit code."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where a shell has it ignored
    if heeded:
        signal.signal(signal.SIGINT, _quit)
    from nstcore.cli import app  # noqa: F401 - the slowest of the imports
    from nstcore.cli import main as run

    try:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:
        _quit()
        raise


def _quit(*_: Any) -> None:
    """Leave at once: nothing has been written yet."""
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
