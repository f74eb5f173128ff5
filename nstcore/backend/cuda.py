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
from typing import Any, NoReturn

import numpy as np

from nstcore.backend.arrays import on_device
from nstcore.backend.fatbin import BUILDS, STANDARD, find, headers
from nstcore.errors import ArgumentError, BackendUnavailable, DeviceMemoryError

NAMES = ("cuda", "cuda-on-cpu")
MODULES = {"cuda": "cupy", "cuda-on-cpu": "cuda_on_cpu.cupy_stand_in"}
PRECISIONS = ("float32", "tf32x3", "tf32", "bf16")
MOST_BLOCKS = (2**31 - 1, 65535, 65535)  # of a grid along its axes
LEAST_TENSOR_CORES = 80  # compute capability, ten times
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
        return f"CuPy cannot be imported: {_line(error)}"
    try:
        devices, said = cupy.cuda.runtime.getDeviceCount(), "no CUDA device"
    except Exception as error:  # what the runtime says has a type of its own
        devices, said = 0, _line(error)
    if devices:
        return ""
    if name == "cuda-on-cpu":
        return "no g++ to build the emulator with"
    if "InsufficientDriver" in said:
        return f"there is no NVIDIA driver, or it is older than CuPy needs ({said})"
    return f"CuPy finds no GPU ({said})"


def _line(error: Exception) -> str:
    """What an error says, in one line: of a compiler's many the first that names an error."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()] or [type(error).__name__]
    return next((line for line in lines if "error" in line), " ".join(lines)) if len(lines) > 3 else " ".join(lines)


def is_of_device(error: BaseException) -> bool:
    """Whether CuPy, its compiler or the driver raised `error`."""
    for cupy in (sys.modules.get(module) for module in MODULES.values()):
        if cupy is not None:
            kinds = cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError
            if isinstance(error, (*kinds, cupy.cuda.compiler.CompileException, cupy.cuda.memory.OutOfMemoryError)):
                return True
    return False


def refuse(error: Exception, what: str) -> NoReturn:
    """Raise what a user is told of an error of the device; any other error as it is."""
    if not is_of_device(error):
        raise error
    if isinstance(error, MemoryError):
        raise DeviceMemoryError(f"[backend] the memory of the GPU does not suffice: {_line(error)}") from error
    raise BackendUnavailable(f"[backend] {what}: {_line(error)}") from error


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
    if on_device(x):
        return x
    try:
        return array_module(name).asarray(x)
    except Exception as error:
        refuse(error, "an array cannot be copied to the GPU")


def fetched(x: Any) -> Any:
    """A copy of `x` in the host's memory, when all that was launched is done; where a kernel failed, that is told."""
    try:
        return x.get()
    except Exception as error:
        refuse(error, "the GPU failed")


def contiguous(x: Any) -> Any:
    """`x`, or a copy of it that is contiguous in row-major order."""
    return module_of(x).ascontiguousarray(x)


def empty_like(x: Any, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Any:
    """Memory of the device for an array, from CuPy's pool; as `x` in what is not given."""
    try:
        return module_of(x).empty(x.shape if shape is None else shape, x.dtype if dtype is None else dtype)
    except Exception as error:
        refuse(error, "an array cannot be made on the GPU")


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def stretches(most: int, *arrays: Any) -> Iterator[tuple[Any, ...]]:
    """Arrays of one length along their first axes, whole or as views of at most `most` of it at a time."""
    count = len(arrays[0])
    if count <= most:
        yield arrays
        return
    for first in range(0, count, most):
        yield tuple(x[first : first + most] for x in arrays)


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
        an int is passed as a 32-bit number, a float as a `real`, None as a null pointer. Raises `ArgumentError` for
        sizes whose grid is larger than CUDA allows.
        """
        launch = self.launches[kernel]
        grid = launch.grid(*sizes)
        if 0 in grid:
            return
        if any(blocks > most for blocks, most in zip(grid, MOST_BLOCKS, strict=False)):
            shown = " × ".join(map(str, MOST_BLOCKS))
            raise ArgumentError(f"[{kernel}] expects sizes for a grid of at most {shown} blocks, got {grid}")
        real = np.dtype(like.dtype).type
        shared = launch.shared(real(0).itemsize, *sizes) if launch.shared else 0
        build = get_precision() if self.tensor_cores and like.dtype == np.float32 else like.dtype.name
        module = module_of(like)
        try:
            function = _function(self.path, module.__name__, build, kernel, module.cuda.runtime.getDevice())
            if shared > function.max_dynamic_shared_size_bytes:
                function.max_dynamic_shared_size_bytes = shared
            function(grid, (launch.threads,), tuple(_argument(a, real) for a in arguments), shared_mem=shared)
        except Exception as error:
            refuse(error, f"{kernel} cannot be launched")


def _argument(value: Any, real: Any) -> Any:
    if value is None:
        return NULL
    if isinstance(value, (bool, int)):
        return np.int32(value)  # OverflowError rather than a wrong size
    return real(value) if isinstance(value, float) else value


@cache
def _headers() -> str:
    """A digest of the headers, as a C number."""
    return f"0x{hashlib.sha256(headers(sources())).hexdigest()[:8]}"


@cache
def _function(path: Path, module: str, build: str, kernel: str, device: int) -> Any:
    """A kernel for one of `BUILDS` on a device: of the compiled file that a wheel may carry, else of the source.

    A file that was made for other devices, or that the driver is too old for, is passed over.
    """
    cupy = sys.modules[module]
    if compiled := _compiled(path, module, build):
        try:
            return compiled.get_function(kernel)
        except cupy.cuda.driver.CUDADriverError:
            pass
    capability = int(cupy.cuda.Device(device).compute_capability)
    shown = f"{capability // 10}.{capability % 10}"
    if build in PRECISIONS[1:] and capability < LEAST_TENSOR_CORES:
        raise BackendUnavailable(f"[precision] {build} needs a GPU of compute capability 8.0 or more, this has {shown}")
    try:
        return _module(path, module, build).get_function(kernel)
    except Exception as error:
        refuse(error, f"{path.name} cannot be compiled for a GPU of compute capability {shown}")


@cache
def _compiled(path: Path, module: str, build: str) -> Any:
    """What nvcc made of this file and build with the package; None if it did not."""
    found = find(path, build)
    return sys.modules[module].RawModule(path=str(found)) if found else None


@cache
def _module(path: Path, module: str, build: str) -> Any:
    """A file of kernels for one of `BUILDS`, compiled by NVRTC at its first use; CuPy keeps it on disk."""
    # The line names the file in what a compiler says, and the emulator finds it so.
    code = f'#line 1 "{path}"\n{path.read_text(encoding="utf-8")}'
    # CuPy takes a program from its cache by the text and the options alone: the headers must change one of them.
    options = (STANDARD, f"-I{path.parent}", *BUILDS[build], f"-DNST_HEADERS={_headers()}")
    return sys.modules[module].RawModule(code=code, options=options)
