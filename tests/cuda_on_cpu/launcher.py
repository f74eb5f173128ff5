"""Loads what `build` compiled and launches its kernels; what the checker finds is raised with its file and line."""

from __future__ import annotations

import ctypes
import re
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import build

GRID_LIMITS = (2**31 - 1, 65535, 65535)
BLOCK_LIMITS = (1024, 1024, 64)
MOST_THREADS = 1024
SHARED_LIMIT, SHARED_LIMIT_OPT_IN = 48 * 1024, 227 * 1024

# Of each launch of the counting build, the kernel and what its accesses took: lines of counting.cpp's emulator_counts.
COUNTED: list[tuple[Module, str, str]] = []
_lock = threading.Lock()  # the emulator runs one kernel at a time


class LaunchError(RuntimeError):
    """The launch itself is wrong, as a driver would say."""


class Findings(AssertionError):
    """What the checker found: a line each, ``file:line: kernel: kind: details``."""


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("parameters", ctypes.c_int),
        ("kinds", ctypes.POINTER(ctypes.c_int)),
        ("most_threads", ctypes.c_int),
    )


@cache
def machine() -> Any:
    """The emulator, loaded."""
    lib = ctypes.CDLL(str(build.machine()), mode=ctypes.RTLD_GLOBAL)
    lib.emulator_findings.restype = lib.emulator_counts.restype = ctypes.c_char_p
    lib.emulator_order.argtypes = [ctypes.c_uint64]
    lib.emulator_add_buffer.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    lib.emulator_remove_buffer.argtypes = lib.emulator_initialise.argtypes = [ctypes.c_void_p]
    pointers = ctypes.POINTER(ctypes.c_void_p)
    sizes = ctypes.POINTER(ctypes.c_uint)
    lib.emulator_launch.argtypes = [
        ctypes.POINTER(_Kernel), sizes, sizes, ctypes.c_size_t, pointers, pointers, ctypes.c_int,
    ]  # fmt: skip
    return lib


@dataclass(frozen=True)
class Pointer:
    """An argument that is an array on the device."""

    address: int


class Module:
    """The kernels of one .cu file."""

    def __init__(self, path: Path, defines: Sequence[str] = (), mode: str = "checked") -> None:
        self.checked, self.counting = mode == "checked", mode == "counting"
        self.path = build.library(path, defines, mode)
        self.machine = machine()
        self._library = ctypes.CDLL(str(self.path))
        self.kernels: dict[str, Any] = {}
        table = (_Kernel * (len(build.kernels(path)) + 1)).in_dll(self._library, "emulator_kernels")
        for kernel in table:
            if kernel.name:
                self.kernels[kernel.name.decode()] = kernel

    def launch(
        self, name: str, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared: int = 0
    ) -> None:
        """Run a grid. Arguments are `Pointer`s and NumPy scalars of exactly the types that the kernel takes."""
        kernel = self.kernels[name]
        _check_launch(kernel, grid, block, shared)
        values = _arguments(kernel, arguments)
        addresses = (ctypes.c_void_p * (len(values) or 1))(*(ctypes.addressof(value) for value in values))
        arrays = [a.address for a in arguments if isinstance(a, Pointer)]
        pointers = (ctypes.c_void_p * (len(arrays) or 1))(*arrays)
        triple = ctypes.c_uint * 3
        with _lock:
            self.machine.emulator_check(int(self.checked))
            self.machine.emulator_count(int(self.counting))
            found = self.machine.emulator_launch(
                kernel, triple(*grid), triple(*block), shared, addresses, pointers, len(arrays)
            )
            text = self.machine.emulator_findings().decode()
            if self.counting:
                COUNTED.append((self, name, self.machine.emulator_counts().decode()))
        if found:
            raise Findings(self._with_lines(text))

    def _with_lines(self, text: str) -> str:
        """`text` with the file and line of each instruction that it names."""
        for address, stack in self.places(re.findall(r"@0x([0-9a-f]+)", text)).items():
            lines = [line for line in stack if ".cu" in line]
            inlined = f" (inlined at {Path(lines[-1]).name})" if len(lines) > 1 and ".cuh:" in lines[0] else ""
            text = text.replace(f"@0x{address}", (lines[0] if lines else stack[0]) + inlined)
        return text

    def places(self, addresses: Sequence[str]) -> dict[str, list[str]]:
        """``file:line`` of instructions, by their hexadecimal addresses; first what they were inlined from."""
        if not addresses:
            return {}
        base, once = _base(self.path), sorted(set(addresses))
        # The address is where the call returns to; the access stands before it.
        wanted = [hex(int(address, 16) - base - 1) for address in once]
        command = ["addr2line", "-a", "-i", "-e", str(self.path), *wanted]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        stacks = re.split(r"^0x[0-9a-f]+\n", said, flags=re.MULTILINE)[1:]
        return {
            address: [line.split(" ")[0] for line in stack.splitlines()]
            for address, stack in zip(once, stacks, strict=True)
        }


def _check_launch(kernel: Any, grid: Sequence[int], block: Sequence[int], shared: int) -> None:
    name, threads = kernel.name.decode(), int(np.prod(block))
    if any(not 1 <= size <= limit for size, limit in zip(grid, GRID_LIMITS, strict=True)):
        raise LaunchError(f"{name}: invalid configuration argument: grid {tuple(grid)}")
    if any(not 1 <= size <= limit for size, limit in zip(block, BLOCK_LIMITS, strict=True)):
        raise LaunchError(f"{name}: invalid configuration argument: block {tuple(block)}")
    if threads > min(MOST_THREADS, kernel.most_threads):
        raise LaunchError(f"{name}: {threads} threads a block, at most {min(MOST_THREADS, kernel.most_threads)}")
    if not 0 <= shared <= SHARED_LIMIT_OPT_IN:
        raise LaunchError(f"{name}: {shared} bytes of dynamic shared memory, at most {SHARED_LIMIT_OPT_IN}")


def _arguments(kernel: Any, arguments: Sequence[Any]) -> list[Any]:
    """The arguments as C values; a driver would read the same bytes, right or wrong, so their types must be exact."""
    name = kernel.name.decode()
    if len(arguments) != kernel.parameters:
        raise LaunchError(f"{name}: takes {kernel.parameters} arguments, got {len(arguments)}")
    values: list[Any] = []
    for i, argument in enumerate(arguments):
        kind = kernel.kinds[i]
        if isinstance(argument, Pointer):
            if kind != -8:
                raise LaunchError(f"{name}: argument {i} is an array, the kernel takes a number")
            values.append(ctypes.c_void_p(argument.address))
            continue
        scalar = np.asarray(argument)
        given = scalar.itemsize + (100 if scalar.dtype.kind == "f" else 0)
        if scalar.ndim or given != kind:
            wanted = (
                "an array" if kind == -8 else f"{kind % 100} bytes of a {'float' if kind > 100 else 'whole number'}"
            )
            raise LaunchError(f"{name}: argument {i} is {scalar.dtype}, the kernel takes {wanted}")
        values.append((ctypes.c_char * scalar.itemsize).from_buffer_copy(scalar.tobytes()))
    return values


def _base(path: Path) -> int:
    """Address that a library was loaded at."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return next(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(str(path)))
