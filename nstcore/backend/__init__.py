"""Which kernels compute: ``cpu`` (native), ``reference`` (plain NumPy, slow and obvious), later ``cuda``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from nstcore.errors import ArgumentError, BackendUnavailable

BACKENDS = ("cpu", "reference")

_active: ContextVar[str | None] = ContextVar("nstcore_backend", default=None)


def current_backend() -> str:
    """Name of the backend that the next operation uses (``NSTCORE_BACKEND`` or ``"cpu"`` unless one is chosen)."""
    return _active.get() or _check(os.environ.get("NSTCORE_BACKEND") or "cpu")


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use backend `name` for the operations inside a ``with`` block.

    Raises `BackendUnavailable` for a backend that this machine cannot run, `ArgumentError` for an unknown name.
    """
    token = _active.set(_check(name))
    try:
        yield
    finally:
        _active.reset(token)


def why_no_cuda() -> str:
    """Why ``use_backend("cuda")`` is refused, in one line."""
    return "this version of nstcore has no CUDA kernels yet"


def _check(name: str) -> str:
    if name == "cuda":
        raise BackendUnavailable(f"[backend] cuda is not available: {why_no_cuda()}")
    if name not in BACKENDS:
        raise ArgumentError(f"[backend] expects one of {', '.join(BACKENDS)}, got {name!r}")
    return name
