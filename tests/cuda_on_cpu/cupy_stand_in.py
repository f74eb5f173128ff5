"""The part of CuPy that nstcore uses, over the emulator: the same launch code runs with either.

As with CuPy, an array never becomes a NumPy array by itself, operators and NumPy's functions work on arrays and Python
scalars but not on NumPy arrays beside them, and memory that `empty` gives is not initialised. Functions and methods,
and their parameters, are those of CuPy's that nstcore uses; anything else is refused. Unlike with CuPy, a kernel that
is wrong says where. ``NSTCORE_CUDA_ON_CPU`` chooses the build, ``fast`` (default) or ``checked``.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from nstcore.backend.fatbin import BUILDS

from . import device
from .device import CUDADriverError, CUDARuntimeError, cuda
from .launcher import SHARED_LIMIT, Module, Pointer, machine

__all__ = [
    "CUDARuntimeError", "RawKernel", "RawModule", "asarray", "ascontiguousarray", "asnumpy", "cuda", "empty",
    "get_default_memory_pool", "ndarray", "using", "zeros",
]  # fmt: skip

GUARD = 16 * 1024  # bytes on both sides of an array, so that what a faulty kernel writes hits nothing else
ALIGNMENT = 512  # of CuPy's pool
MODE = {"mode": os.environ.get("NSTCORE_CUDA_ON_CPU", "fast")}
# A fat binary begins so; the stand-in reads from its name which source and build it was made of.
FATBIN = b"\x50\xed\x55\xba"
FATBIN_NAME = re.compile(r"(\w+)-(\w+)-[0-9a-f]+\.fatbin")
FATBIN_CAPABILITIES = (80, 90, 100, 120)

_SUM = ("axis", "dtype", "out", "keepdims")
_LARGEST = ("axis", "out", "keepdims")
_LIKE = ("dtype", "order", "subok", "shape")
# What CuPy's functions of these names take after their first argument: less than NumPy's.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "argmax": _SUM,
    "argpartition": ("kth", "axis"),
    "argsort": ("axis", "kind"),
    "broadcast_to": ("shape",),
    "concatenate": ("axis", "out", "dtype", "casting"),
    "expand_dims": ("axis",),
    "fft.irfft2": ("s", "axes", "norm"),
    "fft.rfft2": ("s", "axes", "norm"),
    "max": _LARGEST,
    "min": _LARGEST,
    "ones_like": _LIKE,
    "pad": ("pad_width", "mode", "constant_values"),
    "reshape": ("newshape", "order"),
    "shape": (),
    "split": ("indices_or_sections", "axis"),
    "stack": ("axis", "out", "dtype", "casting"),
    "sum": _SUM,
    "take_along_axis": ("indices", "axis"),
    "swapaxes": ("axis1", "axis2"),
    "transpose": ("axes",),
    "where": ("x", "y"),
    "zeros_like": _LIKE,
}
METHODS: dict[str, tuple[str, ...]] = {
    "all": _LARGEST,
    "astype": ("dtype", "order", "casting", "subok", "copy"),
    "copy": ("order",),
    "item": (),
    "max": _LARGEST,
    "mean": _SUM,
    "ravel": ("order",),
    "reshape": ("order",),
    "sum": _SUM,
    "transpose": (),
    "var": ("axis", "dtype", "out", "ddof", "keepdims"),
}
ANY_NUMBER = ("item", "reshape", "transpose")  # methods that take sizes, axes or indices one by one
ATTRIBUTES = ("T", "dtype", "flags", "imag", "nbytes", "ndim", "real", "shape", "size", "strides")
UFUNC_OPTIONS = ("out", "dtype")
NOT_OF_CUPY = ("matvec", "spacing", "vecdot", "vecmat")  # of NumPy's elementwise functions and products
NO_IDENTITY = ("argmax", "max", "min")  # of no elements there is none, along whichever axis


class _Memory:
    """Memory of the device, with guards around it."""

    def __init__(self, bytes_: int, cell_bytes: int, initialised: bool) -> None:
        device.take(bytes_)
        self.taken = bytes_
        self.room = np.empty(bytes_ + 2 * GUARD + ALIGNMENT, np.uint8)
        start = GUARD + -(self.room.ctypes.data + GUARD) % ALIGNMENT
        self.bytes = self.room[start : start + bytes_]
        self.bytes.fill(0xFF)  # NaN
        self.address = int(self.room.ctypes.data) + start
        self.watched = MODE["mode"] == "checked"
        if self.watched:
            machine().emulator_add_buffer(self.address, bytes_, cell_bytes, int(initialised))

    def initialise(self) -> None:
        if self.watched:
            machine().emulator_initialise(self.address)

    def __del__(self, at_the_end: Callable[[], bool] = sys.is_finalizing) -> None:
        if at_the_end():  # when modules have been emptied
            return
        device.give(getattr(self, "taken", 0))
        if getattr(self, "watched", False):
            machine().emulator_remove_buffer(self.address)


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on the device."""

    __slots__ = ("_host", "_memory")
    __cuda_array_interface__ = property(lambda self: {"data": (self.data.ptr, False), "version": 3})

    def __init__(self, host: np.ndarray, memory: _Memory) -> None:
        self._host, self._memory = host, memory

    def get(self) -> np.ndarray:
        """A copy in the host's memory."""
        return self._host.copy()

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=int(self._host.ctypes.data))

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct one.")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **more: Any) -> Any:
        if method != "__call__" or ufunc.__name__ in NOT_OF_CUPY:
            return NotImplemented  # CuPy knows no other
        if listed := next((x for x in inputs if isinstance(x, (list, tuple))), None):
            raise TypeError(f"Unsupported type {type(listed)}")
        _check_options(ufunc.__name__, (), more, UFUNC_OPTIONS)
        return _on_host(ufunc, inputs, more)

    def __array_function__(self, function: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
        name = ".".join([*function.__module__.split(".")[1:], function.__name__])
        if name not in FUNCTIONS:
            return NotImplemented
        _check_options(name, args[1:], kwargs, FUNCTIONS[name])
        if name in NO_IDENTITY and args[0].size == 0:
            raise ValueError(f"zero-size array to reduction operation cupy_{name} which has no identity")
        return _on_host(function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """Attributes and methods of NumPy's array, whose results are on the device."""
        if name in ATTRIBUTES:
            return _wrap(getattr(self._host, name), [self])
        if name not in METHODS:
            raise AttributeError(f"'ndarray' object has no attribute '{name}'")

        def method(*args: Any, **kwargs: Any) -> Any:
            _check_options(name, () if name in ANY_NUMBER else args, kwargs, METHODS[name])
            if name in NO_IDENTITY and self.size == 0:
                raise ValueError(f"zero-size array to reduction operation cupy_{name} which has no identity")
            return _on_host(getattr(self._host, name), args, kwargs, self)

        return method

    def __getitem__(self, index: Any) -> ndarray:
        return _on_host(self._host.__getitem__, (index,), {}, self)

    def __setitem__(self, index: Any, value: Any) -> None:
        _on_host(self._host.__setitem__, (index, value), {}, self)
        self._memory.initialise()

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __repr__(self) -> str:
        return repr(self._host)


def _check_options(name: str, args: Sequence[Any], kwargs: dict[str, Any], known: Sequence[str]) -> None:
    """Refuse what CuPy's function or method does not take."""
    unknown = sorted(set(kwargs) - set(known))
    if unknown or len(args) > len(known):
        raise TypeError(f"{name}() got an unexpected argument: {', '.join(unknown) or f'number {len(known) + 1}'}")


def _on_host(function: Callable[..., Any], args: Any, kwargs: Any, *more: ndarray) -> Any:
    """Call a function of NumPy with the arrays' contents; the result is on the device."""
    owners = [*more]
    result = function(*_unwrap(args, owners), **_unwrap(kwargs, owners))
    out = kwargs.get("out")
    for written in out if isinstance(out, tuple) else (out,):
        if isinstance(written, ndarray):
            written._memory.initialise()
            return written
    return _wrap(result, owners)


def _unwrap(value: Any, owners: list[ndarray]) -> Any:
    if isinstance(value, ndarray):
        owners.append(value)
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrap(v, owners) for v in value)
    if isinstance(value, dict):
        return {key: _unwrap(v, owners) for key, v in value.items()}
    return value


def _wrap(value: Any, owners: Sequence[ndarray]) -> Any:
    if isinstance(value, (tuple, list)) and any(isinstance(v, np.ndarray) for v in value):
        return type(value)(_wrap(v, owners) for v in value)
    if isinstance(value, np.generic) and not isinstance(value, np.dtype):
        value = np.asarray(value)  # reductions give arrays without axes
    if not isinstance(value, np.ndarray):
        return value
    for owner in owners:
        if np.may_share_memory(value, owner._memory.bytes):
            return ndarray(value, owner._memory)
    return asarray(value)


def empty(shape: int | Sequence[int], dtype: Any = float) -> ndarray:
    return _new(shape, dtype, False)


def zeros(shape: int | Sequence[int], dtype: Any = float) -> ndarray:
    made = _new(shape, dtype, True)
    made._host[...] = 0
    return made


def _new(shape: int | Sequence[int], dtype: Any, initialised: bool) -> ndarray:
    device.require()
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    kind = np.dtype(dtype)
    memory = _Memory(math.prod(shape) * kind.itemsize, min(4, kind.itemsize), initialised)
    return ndarray(memory.bytes.view(kind).reshape(shape), memory)


def asarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    host = np.asarray(a, dtype)
    axes = sorted(range(host.ndim), key=lambda axis: -host.strides[axis]) if min(host.strides, default=1) > 0 else None
    if axes is None or host.flags.c_contiguous:
        axes = list(range(host.ndim))
    # As CuPy's, copies and results of functions keep the order of the axes in memory, so that kernels can misread them.
    made = _new([host.shape[axis] for axis in axes], host.dtype, True)
    made._host[...] = host.transpose(axes)
    return ndarray(made._host.transpose(np.argsort(axes)), made._memory)


def ascontiguousarray(a: ndarray) -> ndarray:
    return a if a.flags.c_contiguous else a.copy("C")


def asnumpy(a: Any) -> np.ndarray:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


class RawModule:
    """A .cu file, from its text, which begins with a #line that names it, or from the fat binary beside it."""

    def __init__(self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = ()) -> None:
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        self.file_path, self.defines, self._modules = path, tuple(o[2:] for o in options if o.startswith("-D")), {}
        if code is not None:
            named = re.match(r'#line 1 "([^"]+)"', code)
            if named is None:
                raise ValueError("the emulator compiles files, and this text does not name one")
            self.path = Path(named[1])

    def get_function(self, name: str) -> RawKernel:
        device.require()
        if self.file_path is not None:
            self._load(Path(self.file_path))
        return RawKernel(self, name)

    def _load(self, path: Path) -> None:
        """Take the source of a fat binary, as the driver would take the device's code."""
        named = FATBIN_NAME.fullmatch(path.name)
        if named is None or not path.read_bytes().startswith(FATBIN):
            raise CUDADriverError("CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid")
        if device.STATE["capability"] < min(FATBIN_CAPABILITIES):
            raise CUDADriverError("CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available")
        self.path = path.with_name(f"{named[1]}.cu")
        self.defines = tuple(option[2:] for option in BUILDS[named[2]])

    def module(self) -> Module:
        """As the mode of the moment compiles it."""
        mode = MODE["mode"]
        if mode not in self._modules:
            self._modules[mode] = Module(self.path, self.defines, mode)
        return self._modules[mode]


class RawKernel:
    def __init__(self, module: RawModule, name: str) -> None:
        if name not in module.module().kernels:
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        self._module, self.name = module, name
        self.max_dynamic_shared_size_bytes = SHARED_LIMIT

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], *, shared_mem: int = 0
    ) -> None:
        device.require()
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDADriverError(f"{self.name}: CUDA_ERROR_INVALID_VALUE: {shared_mem} bytes of shared memory")
        given = [self._argument(a) for a in args]
        full = [(*sizes, 1, 1)[:3] for sizes in (grid, block)]
        if device.STATE["launch"]:
            raise CUDADriverError(device.STATE["launch"])
        self._module.module().launch(self.name, full[0], full[1], given, shared_mem)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, ndarray):
            # CuPy would pass the address of a strided array and let the kernel misread it.
            if not argument.flags.c_contiguous:
                raise AssertionError(f"{self.name}: an argument of shape {argument.shape} is not contiguous")
            return Pointer(argument.data.ptr)
        if isinstance(argument, np.uintp) and argument == 0:
            return Pointer(0)
        if isinstance(argument, np.ndarray):
            raise TypeError(f"Unsupported type {type(argument)}")
        return argument


def get_default_memory_pool() -> SimpleNamespace:
    """What the pool tells of itself: it keeps nothing here."""
    used = device.STATE["used"]
    return SimpleNamespace(used_bytes=lambda: used, total_bytes=lambda: used, free_all_blocks=lambda: None)


@contextmanager
def using(mode: str | None = None, **state: Any) -> Iterator[None]:
    """Change for a while the mode of the build, or what `device.STATE` has: the number of devices, their memory."""
    before = dict(MODE)
    MODE["mode"] = mode or MODE["mode"]
    try:
        with device.using(**state):
            yield
    finally:
        MODE.update(before)
