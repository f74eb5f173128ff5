"""What CuPy tells of a device and its errors, as the stand-in has them: a device that is not there, or that fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from . import build
from .launcher import LaunchError

L2_BYTES = 1 << 20
# How the device is; `using` changes it for a while. capability: compute capability, ten times. memory: bytes that all
# arrays may take together. launch: what the driver says of a launch.
STATE: dict[str, Any] = {
    "devices": 1 if build.compiler() else 0,
    "capability": 90,
    "driver": True,
    "memory": 1 << 40,
    "used": 0,
    "launch": "",
}

CUDADriverError = LaunchError
CompileException = build.BuildError


class CUDARuntimeError(RuntimeError):
    """What the runtime says."""


class OutOfMemoryError(MemoryError):
    """The device's memory does not suffice."""


def require() -> None:
    """Raise what the runtime says where there is no driver, or no device."""
    if not STATE["driver"]:
        raise CUDARuntimeError(
            "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
        )
    if not STATE["devices"]:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


def _count() -> int:
    require()
    return int(STATE["devices"])


def _current() -> int:
    require()
    return 0


def is_available() -> bool:
    try:
        return _count() > 0
    except CUDARuntimeError:
        return False


def take(bytes_: int) -> None:
    """Count memory that an array takes; `give` counts it back."""
    if STATE["used"] + bytes_ > STATE["memory"]:
        raise OutOfMemoryError(
            f"Out of memory allocating {bytes_:,} bytes (allocated so far: {STATE['used']:,} bytes)."
        )
    STATE["used"] += bytes_


def give(bytes_: int) -> None:
    STATE["used"] -= bytes_


class Device:
    """The device: as CuPy's, with what nstcore asks it for."""

    def __init__(self, device: int = 0) -> None:
        self.id = device

    @property
    def compute_capability(self) -> str:
        require()
        return str(STATE["capability"])

    @property
    def attributes(self) -> dict[str, int]:
        require()
        return {"L2CacheSize": L2_BYTES, "MultiProcessorCount": 1}

    def synchronize(self) -> None:
        require()


class Event:
    """A moment; kernels have ended when a launch returns, so it is when it was recorded."""

    def __init__(self) -> None:
        require()
        self._at: float | None = None

    def record(self) -> None:
        self._at = time.perf_counter()

    def synchronize(self) -> None:
        require()


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds."""
    if start_event._at is None or end_event._at is None:
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
    return 1e3 * (end_event._at - start_event._at)


def _properties(device: int) -> dict[str, Any]:
    require()
    return {"name": b"the emulator", "l2CacheSize": L2_BYTES, "totalGlobalMem": STATE["memory"]}


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    driverGetVersion=lambda: 0,
    getDevice=_current,
    getDeviceCount=_count,
    getDeviceProperties=_properties,
    runtimeGetVersion=lambda: 0,
)
cuda = SimpleNamespace(
    Device=Device,
    Event=Event,
    compiler=SimpleNamespace(CompileException=CompileException),
    driver=SimpleNamespace(CUDADriverError=CUDADriverError),
    get_elapsed_time=get_elapsed_time,
    is_available=is_available,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    runtime=runtime,
)


@contextmanager
def using(**state: Any) -> Iterator[None]:
    """Change `STATE` for a while."""
    before = {name: STATE[name] for name in state}
    STATE.update(state)
    try:
        yield
    finally:
        STATE.update(before)
