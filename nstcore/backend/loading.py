"""The native module itself, loaded once."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

SPIN_COUNT = "5000"  # about a tenth of a millisecond


def _load() -> Any:
    """The native module, whose waiting threads spin for a tenth of a millisecond and then sleep.

    GNU's OpenMP lets them spin for much longer, which on a busy machine takes the core from the thread that they wait
    for. It reads its environment when it is loaded; the user's own choice stands.
    """
    choices = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    if any(name in os.environ for name in choices):
        return import_module("nstcore._native")
    os.environ[choices[0]] = SPIN_COUNT
    try:
        return import_module("nstcore._native")
    finally:
        del os.environ[choices[0]]


module: Any = _load()  # has no types of its own
