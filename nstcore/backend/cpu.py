"""The native CPU kernels: instruction set and number of threads.

``NSTCORE_ISA`` (``base``, ``avx2`` or ``avx512``) forces an instruction set, ``NSTCORE_NUM_THREADS`` the number of
threads; both are read once, at import, and a value that cannot be is reported at the first use of a kernel.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nstcore.backend.loading import module
from nstcore.errors import ArgumentError, BackendUnavailable, NstError

__all__ = ["get_isa", "get_num_threads", "isas", "native", "set_isa", "set_num_threads"]

MOST_THREADS = 1024

native: Any = module


def isas() -> list[str]:
    """Instruction sets that this machine can run, the widest last."""
    return list(native.isas())


def get_isa() -> str:
    """Instruction set that the native kernels use: ``"base"``, ``"avx2"`` or ``"avx512"``."""
    return str(native.isa())


def set_isa(name: str) -> None:
    """Make the native kernels use instruction set `name`; `BackendUnavailable` when the machine lacks it."""
    if name not in isas():
        raise BackendUnavailable(f"[isa] this machine can run {', '.join(isas())}, got {name!r}")
    native.set_isa(name)


def get_num_threads() -> int:
    """Number of threads that the native kernels use."""
    return int(native.num_threads())


def set_num_threads(n: int) -> None:
    """Use `n` threads (at least 1) in the native kernels; results do not depend on it."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MOST_THREADS:
        raise ArgumentError(f"[set_num_threads] expects a whole number from 1 to {MOST_THREADS}, got {n!r}")
    native.set_num_threads(int(n))


def _usable_cores() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _configure_from_environment() -> None:
    if isa := os.environ.get("NSTCORE_ISA"):
        if isa not in isas():
            raise BackendUnavailable(f"[NSTCORE_ISA] this machine can run {', '.join(isas())}, got {isa!r}")
        set_isa(isa)
    threads = os.environ.get("NSTCORE_NUM_THREADS") or str(min(_usable_cores(), MOST_THREADS))
    if not threads.isdecimal() or len(threads) > 4 or not 1 <= int(threads) <= MOST_THREADS:
        raise ArgumentError(f"[NSTCORE_NUM_THREADS] expects a whole number from 1 to {MOST_THREADS}, got {threads!r}")
    set_num_threads(int(threads))


class _Refused:
    """Stands for the kernels when the environment asks for what cannot be: every use says why."""

    def __init__(self, error: NstError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


try:
    _configure_from_environment()
except NstError as error:  # not while importing: a command could not turn it into one line
    native = _Refused(error)
