"""The CUDA kernels: how they are found, compiled and launched through CuPy, which is imported when it is first needed.

A family of kernels is one file, ``csrc/<family>/<family>_cuda.cu``, and one table of `Launch` records, a `Family`: how
many threads a block has, how many blocks there are for given sizes, and how much shared memory they take. Nothing
here waits for the device.

``cuda-on-cpu`` runs the same launches on the emulator that the tests of nstcore's repository bring, the package
`cuda_on_cpu`, without a GPU.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nstcore.backend.arrays import on_device
from nstcore.errors import ArgumentError, BackendUnavailable

NAMES = ("cuda", "cuda-on-cpu")
MODULES = {"cuda": "cupy", "cuda-on-cpu": "cuda_on_cpu.cupy_stand_in"}
# What the kernels are compiled as: element types, and float32 with products on tensor cores.
BUILDS = {
    "float32": ("-DNST_REAL=float",),
    "float64": ("-DNST_REAL=double",),
    "tf32": ("-DNST_REAL=float", "-DNST_TENSOR_CORES=1"),
    "bf16": ("-DNST_REAL=float", "-DNST_TENSOR_CORES=2"),
    "tf32x3": ("-DNST_REAL=float", "-DNST_TENSOR_CORES=3"),
}
PRECISIONS = ("float32", "tf32x3", "tf32", "bf16")
NULL = np.uintp(0)  # the address of no array


_precision: ContextVar[str | None] = ContextVar("nstcore_precision", default=None)


def get_precision() -> str:
    """How products of float32 are computed: what `use_precision` chose, else ``NSTCORE_PRECISION``, else "float32"."""
    return _precision.get() or _known(os.environ.get("NSTCORE_PRECISION") or "float32")


@contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Compute convolutions and Gram matrices of float32 with this precision inside a ``with`` block.

    "float32" (default) uses no tensor cores. The others do, on a GPU of compute capability 8.0 or more: operands are
    rounded, to 11 bits ("tf32") or 8 bits ("bf16"), or are each the sum of two of 11 bits ("tf32x3", of whose three
    products one is as exact as float32); sums are float32. docs/kernels/cuda.md has the errors. Gradients are computed
    with what is chosen when they are. Distances, nearest rows and triplets stay exact, and so does float64; other
    backends do not heed it. Raises `ArgumentError` for an unknown name.

    >>> with use_precision("tf32"):
    ...     get_precision()
    'tf32'
    """
    token = _precision.set(_known(name))
    try:
        yield
    finally:
        _precision.reset(token)


def _known(name: str) -> str:
    if name not in PRECISIONS:
        raise ArgumentError(f"[precision] expects one of {', '.join(PRECISIONS)}, got {name!r}")
    return name


@cache
def sources() -> Path:
    """Folder of the CUDA sources: in the package, or beside it where nstcore runs from its repository."""
    package = Path(__file__).parents[1]
    return next((p for p in (package / "csrc", package.parent / "csrc") if p.is_dir()), package / "csrc")


def why_not(name: str) -> str:
    """Why backend `name` cannot be used here, in one line; empty if it can."""
    try:
        cupy = import_module(MODULES[name])
    except ImportError as error:
        if name == "cuda":
            return "CuPy is not installed (pip install nstcore[cuda])"
        return f"the emulator is not on the path (PYTHONPATH=tests in nstcore's repository): {error}"
    except Exception as error:  # a broken installation can raise anything
        return f"CuPy cannot be imported: {' '.join(str(error).split())}"
    if not cupy.cuda.is_available():
        return "no g++ to build the emulator with" if name == "cuda-on-cpu" else "CuPy finds no CUDA device or driver"
    return ""


@cache
def array_module(name: str) -> Any:
    """CuPy, or its stand-in for ``cuda-on-cpu``; `BackendUnavailable` with the reason where there is none."""
    if reason := why_not(name):
        raise BackendUnavailable(f"[backend] {name} is not available: {reason}")
    return import_module(MODULES[name])


def module_of(x: Any) -> Any:
    """The module whose array `x` is."""
    for name in NAMES:
        module = sys.modules.get(MODULES[name])
        if module is not None and isinstance(x, module.ndarray):
            return array_module(name)
    raise BackendUnavailable(f"[backend] expects an array of CuPy, got {type(x).__name__}")


def backend_of(x: Any) -> str:
    """Name of the backend that `x`, an array on a device, belongs to."""
    return next(name for name in NAMES if sys.modules.get(MODULES[name]) is module_of(x))


def to_device(name: str, x: Any) -> Any:
    """`x` on the device of backend `name`; itself if it is there."""
    return x if on_device(x) else array_module(name).asarray(x)


def contiguous(x: Any) -> Any:
    """`x`, or a copy of it that is contiguous in row-major order."""
    return module_of(x).ascontiguousarray(x)


def empty_like(x: Any, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Any:
    """Memory of the device for an array, from CuPy's pool; as `x` in what is not given."""
    return module_of(x).empty(x.shape if shape is None else shape, x.dtype if dtype is None else dtype)


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Launch:
    """How a kernel is launched: threads of a block, and from the sizes of the task the grid and dynamic shared bytes.

    `grid` gives up to three numbers of blocks; a task of no blocks is not launched. `shared` gets the bytes of an
    element before the sizes.
    """

    threads: int
    grid: Callable[..., Sizes]
    shared: Callable[..., int] | None = None


@dataclass(frozen=True)
class Family:
    """The kernels of one .cu file."""

    name: str
    launches: Mapping[str, Launch]
    folder: str = ""  # where it is not named as the file is
    tensor_cores: bool = False  # whether some of its products may be computed by them

    @property
    def path(self) -> Path:
        """Its source."""
        return sources() / (self.folder or self.name) / f"{self.name}_cuda.cu"

    def run(self, kernel: str, like: Any, sizes: Sizes, *arguments: Any) -> None:
        """Launch `kernel` for a task of these sizes on the current stream.

        like: an array on the device; its module launches, its element type is the kernel's `real`. Of the arguments,
        an int is passed as a 32-bit number, a float as a `real`, None as a null pointer.
        """
        launch = self.launches[kernel]
        grid = launch.grid(*sizes)
        if 0 in grid:
            return
        real = np.dtype(like.dtype).type
        shared = launch.shared(real(0).itemsize, *sizes) if launch.shared else 0
        build = get_precision() if self.tensor_cores and like.dtype == np.float32 else like.dtype.name
        function = _function(self.path, module_of(like).__name__, build, kernel)
        if shared > function.max_dynamic_shared_size_bytes:
            function.max_dynamic_shared_size_bytes = shared
        function(grid, (launch.threads,), tuple(_argument(a, real) for a in arguments), shared_mem=shared)


def _argument(value: Any, real: Any) -> Any:
    if value is None:
        return NULL
    if isinstance(value, (bool, int)):
        return np.int32(value)  # OverflowError rather than a wrong size
    return real(value) if isinstance(value, float) else value


@cache
def _headers() -> str:
    """A digest of the headers, as a C number."""
    texts = [path.read_bytes() for path in sorted(sources().rglob("*.cuh"))]
    return f"0x{hashlib.sha256(b'|'.join(texts)).hexdigest()[:8]}"


@cache
def _module(path: Path, module: str, build: str) -> Any:
    """A file of kernels for one of `BUILDS`, compiled by NVRTC at its first use; CuPy keeps it on disk."""
    # The line names the file in what a compiler says, and the emulator finds it so.
    code = f'#line 1 "{path}"\n{path.read_text(encoding="utf-8")}'
    # CuPy takes a program from its cache by the text and the options alone: the headers must change one of them.
    options = ("--std=c++17", f"-I{path.parent}", *BUILDS[build], f"-DNST_HEADERS={_headers()}")
    return sys.modules[module].RawModule(code=code, options=options)


@cache
def _function(path: Path, module: str, build: str, kernel: str) -> Any:
    return _module(path, module, build).get_function(kernel)
