"""Where a benchmark runs, a processor or a GPU: how a call is timed there, and what there is at best."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import nstcore as nst
from nstcore.backend import moved
from nstcore.backend.cuda import MODULES

PAUSE = 1e-2  # lets the last competitor's threads stop spinning: they wait some milliseconds for more work
LEAST_SAMPLE = 5e-3  # a sample repeats a short call until it takes this long
TRIES = 6  # of which the best is the peak


def seconds(run: Callable[[], Any]) -> float:
    """Time of one call by the clock."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Processor:
    """This computer's processor; times by its clock."""

    backend = "cpu"
    torch_device = "cpu"
    plain = "numpy"
    by = "NumPy"
    note = ""

    def __init__(self, threads: int, tiny: bool) -> None:
        self.threads, self.tiny = threads, tiny
        self.product, self.copied = (128, 1 << 16) if tiny else (2048, 1 << 26)

    def place(self, x: Any) -> Any:
        """`x` where the work is done."""
        return x

    def repeats(self, run: Callable[[], Any]) -> int:
        """Calls of a sample."""
        return max(1, int(np.ceil(LEAST_SAMPLE / max(seconds(run), 1e-7))))

    def sample(self, run: Callable[[], Any], repeats: int, on_host: bool = False) -> float:
        """Milliseconds a call."""
        time.sleep(0 if self.tiny else PAUSE)
        run()  # wakes its threads, and memory that a virtual machine took back while it lay idle
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - start) / repeats * 1e3

    def peak(self) -> tuple[float, float]:
        """GFLOP/s of a large matrix product and GB/s of a large copy: what there is, whatever we do."""
        a = np.ones((self.product, self.product), np.float32)
        out = np.empty_like(a)
        source, target = np.ones(self.copied, np.float32), np.zeros(self.copied, np.float32)
        parts = list(zip(np.array_split(target, self.threads), np.array_split(source, self.threads), strict=True))
        with ThreadPoolExecutor(self.threads) as pool:
            product = min(seconds(lambda: np.matmul(a, a, out=out)) for _ in range(TRIES))
            copy = min(seconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts))) for _ in range(TRIES))
        return 2 * self.product**3 / product / 1e9, 2 * source.nbytes / copy / 1e9

    def describe(self) -> dict[str, Any]:
        """What it is."""
        return {"cpu": _cpu_name(), "isa": nst.get_isa(), "threads": self.threads}


class Device(Processor):
    """A GPU through CuPy; times by events on its stream, the L2 cache flushed before each.

    The flush also hides what a launch takes on the host: the work of a sample is queued while the GPU still flushes.
    On the emulator, ``cuda-on-cpu``, the same calls are made, and the times are those of the host.
    """

    plain = "cupy"
    by = "cuBLAS"

    def __init__(self, backend: str, precision: str, tiny: bool) -> None:
        """Raises `BackendUnavailable` where there is no such device."""
        super().__init__(1, tiny)
        with nst.use_backend(backend):
            self.backend, self.precision = backend, precision
        self.cupy = import_module(MODULES[backend])
        self.emulated = backend != "cuda"
        self.torch_device = "cpu" if self.emulated else "cuda"
        self.note = "emulated: times mean nothing" if self.emulated else ""
        self.product, self.copied = (128, 1 << 16) if tiny else (8192, 1 << 28)
        cache = self.cupy.cuda.Device().attributes["L2CacheSize"]
        self.flushed = self.cupy.zeros(2 * cache if tiny else max(1 << 28, 4 * cache), "uint8")

    def place(self, x: Any) -> Any:
        """`x` in the GPU's memory."""
        return moved(x, self.backend)

    def repeats(self, run: Callable[[], Any]) -> int:
        """One: a second call would find the cache warm."""
        return 1

    def sample(self, run: Callable[[], Any], repeats: int, on_host: bool = False) -> float:
        """Milliseconds of one call, after one that warms up."""
        run()
        if on_host:
            return seconds(run) * 1e3
        self.flushed[...] = 0
        return self.elapsed(run)

    def elapsed(self, run: Callable[[], Any]) -> float:
        """Milliseconds between an event before and one after what `run` queues."""
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(self.cupy.cuda.get_elapsed_time(start, end))

    def peak(self) -> tuple[float, float]:
        """GFLOP/s of a large float32 matrix product by cuBLAS without tensor cores and GB/s of a large copy."""
        a = self.place(np.ones((self.product, self.product), np.float32))
        source = self.cupy.zeros(self.copied, "float32")
        out, target = self.cupy.zeros(a.shape, "float32"), self.cupy.zeros(self.copied, "float32")

        def copy() -> None:
            target[...] = source

        product, copied = (
            min(self.sample(run, 1) for _ in range(TRIES)) / 1e3 for run in (lambda: np.matmul(a, a, out=out), copy)
        )
        return 2 * self.product**3 / product / 1e9, 2 * source.nbytes / copied / 1e9

    def describe(self) -> dict[str, Any]:
        """What it is, and what drives it."""
        device = self.cupy.cuda.Device()
        name = self.cupy.cuda.runtime.getDeviceProperties(device.id)["name"]
        return {
            "gpu": name.decode() if isinstance(name, bytes) else name,
            "capability": f"{device.compute_capability[:-1]}.{device.compute_capability[-1]}",
            "driver": self.cupy.cuda.runtime.driverGetVersion(),
            "cuda": self.cupy.cuda.runtime.runtimeGetVersion(),
            "precision": self.precision,
            **({"note": self.note} if self.note else {}),
        }

    def memory(self) -> int:
        """Bytes that CuPy's pool holds."""
        return int(self.cupy.get_default_memory_pool().total_bytes())


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
