"""Compiles the emulator and, with it, a .cu file; what was compiled is kept in ``build/cuda_on_cpu`` of the repository.

A file's name holds the digest of everything it was made from, so that a change of a kernel, a header, a flag or the
compiler makes a new one. Two processes that need the same one wait for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "cuda_on_cpu"

RULES = "thread,bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow"
# `checked` is watched at each access; `coverage` counts the lines that run; `counting` is what `lint` looks at, each
# access as the text has it.
MODES = {
    "fast": ("-O2",),
    "checked": ("-O1", "-gdwarf-4", f"-fsanitize={RULES}", "--param", "tsan-instrument-func-entry-exit=0"),
    "coverage": ("-O0", "--coverage", "-fprofile-update=single"),
    "counting": (
        *("-O0", "-gdwarf-4", "-fsanitize=thread", "-fsanitize-coverage=trace-pc"),
        *("--param", "tsan-instrument-func-entry-exit=0"),
    ),
}
COMMON = ("-std=c++17", "-fPIC", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas")
MACHINE = ("scheduler.cpp", "memory.cpp", "counting.cpp")
HEADERS = ("emulator.h", "machine.h", "cuda_shim.h")
DUMP = """extern "C" void __gcov_dump();
extern "C" __attribute__((visibility("default"))) void emulator_dump_coverage() { __gcov_dump(); }
"""
KERNEL = re.compile(r"__global__\s+void\s+__launch_bounds__\((\w+)[^)]*\)\s+(\w+)\s*\(")
INCLUDE = re.compile(r'^\s*#include "([^"]+)"', re.MULTILINE)


class BuildError(Exception):
    """The compiler refused; the message is what it said."""


@cache
def compiler() -> str | None:
    """Path of g++, or None."""
    return shutil.which("g++")


def supported() -> bool:
    """Whether this is a machine that the emulator is written for."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


@cache
def _version() -> str:
    return subprocess.run([compiler() or "g++", "--version"], capture_output=True, text=True, check=True).stdout


def sources(path: Path) -> list[Path]:
    """`path` and every file of ours that it includes, each once."""
    found: list[Path] = []
    waiting = [path.resolve()]
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.append(here)
            waiting.extend((here.parent / name).resolve() for name in INCLUDE.findall(here.read_text("utf-8")))
    return found


def kernels(path: Path) -> list[tuple[str, str]]:
    """Name and launch bound of each kernel in a file."""
    return [(name, bound) for bound, name in KERNEL.findall(path.read_text("utf-8"))]


def machine() -> Path:
    """The emulator itself."""
    files = [HERE / name for name in (*MACHINE, *HEADERS)]
    flags = ("-std=c++17", "-O2", "-g", "-fPIC", "-shared", "-Wall", "-Wextra")
    target = BUILD / f"machine-{_digest(files, flags)}.so"
    with _making(target) as made:
        if not made:
            _compile([*flags, *(str(HERE / name) for name in MACHINE)], target)
    return target


def library(path: Path, defines: Sequence[str] = (), mode: str = "checked") -> Path:
    """`path` compiled for the emulator, as a library that lists its kernels."""
    own = [HERE / name for name in HEADERS]
    flags = (*COMMON, *MODES[mode], *(f"-D{define}" for define in defines), "-fvisibility=hidden", "-fno-gnu-unique")
    flags = (*flags, "-fno-extern-tls-init", f"-I{HERE}", "-include", "cuda_shim.h")
    target = BUILD / f"{path.stem}-{mode}-{_digest([*sources(path), *own], (*flags, machine().name))}.so"
    with _making(target) as made:
        if not made:
            listing = target.with_suffix(".cpp")
            entries = "".join(f"    NST_KERNEL({name}, {bound}),\n" for name, bound in kernels(path))
            listing.write_text(
                f'#include "{path.resolve()}"\n'
                'extern "C" __attribute__((visibility("default"))) const emulator::Kernel emulator_kernels[];\n'
                f"const emulator::Kernel emulator_kernels[] = {{\n{entries}    {{}}}};\n"
                + (DUMP if mode == "coverage" else ""),
                encoding="utf-8",
            )
            object_file = str(target.with_suffix(".o"))
            _compile([*flags, "-c", str(listing)], Path(object_file))
            coverage = ["--coverage"] if mode == "coverage" else []
            _compile(["-shared", *coverage, object_file, str(machine()), "-Wl,-rpath,$ORIGIN"], target)
    return target


def _digest(files: Sequence[Path], flags: Sequence[str]) -> str:
    parts = [_version(), *flags, *(f"{file}\0{file.read_text('utf-8')}" for file in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@contextmanager
def _making(target: Path) -> Iterator[bool]:
    """Whether `target` is there already; nobody else makes it meanwhile."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield target.exists()


def _compile(arguments: Sequence[str], target: Path) -> None:
    """Run g++; `target` appears whole or not at all."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    command = [compiler() or "g++", *arguments, "-o", str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        part.unlink(missing_ok=True)
        raise BuildError(done.stderr[-4000:])
    part.replace(target)
