"""Which kernels compute: ``cpu`` (native), ``cuda`` (on a GPU), ``reference`` (plain NumPy, slow and obvious).

``cuda-on-cpu`` runs the CUDA kernels on the emulator of nstcore's tests. Arrays that are on a device are computed with
there, whichever backend is chosen; with ``cuda`` arrays of NumPy are copied to the device first, and results are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from nstcore.errors import ArgumentError

HOST_BACKENDS = ("cpu", "reference")  # always there
BACKENDS = (*HOST_BACKENDS, "cuda", "cuda-on-cpu")

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


def moved(x: Any, backend: str) -> Any:
    """The array `x` where `backend` computes: on its device, or in the host's memory; itself if it is there."""
    from nstcore.backend.arrays import to_host

    if not _check(backend).startswith("cuda"):
        return to_host(x)
    from nstcore.backend.cuda import to_device

    return to_device(backend, x)


def why_no_cuda() -> str:
    """Why ``use_backend("cuda")`` is refused, in one line; empty where it is not."""
    from nstcore.backend.cuda import why_not

    return why_not("cuda")


def _check(name: str) -> str:
    if name.startswith("cuda") and name in BACKENDS:
        from nstcore.backend.cuda import array_module

        array_module(name)
    if name not in BACKENDS:
        raise ArgumentError(f"[backend] expects one of {', '.join(BACKENDS)}, got {name!r}")
    return name
