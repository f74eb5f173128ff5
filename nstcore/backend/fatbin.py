"""CUDA kernels compiled when a wheel is built: one file beside a source for each of its builds, found by a digest.

Where nvcc is installed, a wheel carries the kernels of every source as machine code of `ARCHITECTURES` and as PTX of
the newest, from which a driver makes the code of later devices. A file's name has a digest of all that it was made
from, so that none is taken for a source, a header or a flag that has changed since. Imports nothing of the package:
setup.py loads this file by its path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ARCHITECTURES = (80, 90, 100, 120)  # each serves the later ones of its generation, too
# What the kernels are compiled as: element types, and float32 with products on tensor cores.
BUILDS = {
    "float32": ("-DNST_REAL=float",),
    "float64": ("-DNST_REAL=double",),
    "tf32": ("-DNST_REAL=float", "-DNST_TENSOR_CORES=1"),
    "bf16": ("-DNST_REAL=float", "-DNST_TENSOR_CORES=2"),
    "tf32x3": ("-DNST_REAL=float", "-DNST_TENSOR_CORES=3"),
}
TENSOR_CORES = b"MatrixProduct"  # in the text of a source some of whose products tensor cores may compute
STANDARD = "--std=c++17"
SMALL = "--compress-mode=size"  # a fifth of the bytes; as old as nvcc's knowledge of the newest architecture
SWITCH = "NSTCORE_FATBINS"


def options(build: str) -> list[str]:
    """nvcc's options."""
    newest = ARCHITECTURES[-1]
    exact = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    later = f"-gencode=arch=compute_{newest},code=compute_{newest}"
    return [STANDARD, *BUILDS[build], *exact, later, SMALL, "-fatbin"]


def builds(source: Path) -> list[str]:
    """What a source is compiled as: for tensor cores only where it uses them."""
    tensor_cores = TENSOR_CORES in source.read_bytes()
    return [name for name in BUILDS if tensor_cores or name in ("float32", "float64")]


def headers(csrc: Path) -> bytes:
    """The texts of all headers, of which any source may include any."""
    return b"|".join(path.read_bytes() for path in sorted(csrc.rglob("*.cuh")))


def name(source: Path, build: str) -> str:
    """Name of the file that a source, two folders deep in csrc, is compiled into; its digest is of text and options."""
    digest = hashlib.sha256(headers(source.parents[1]))
    for part in (source.read_bytes(), *(option.encode() for option in options(build))):
        digest.update(b"\0" + part)
    return f"{source.stem}-{build}-{digest.hexdigest()[:16]}.fatbin"


def find(source: Path, build: str) -> Path | None:
    """The file made from this very source, if there is one."""
    path = source.with_name(name(source, build))
    return path if path.is_file() else None


def compile_kernels(csrc: Path, target: Path, families: Sequence[str] | None = None) -> list[Path]:
    """Compile the sources in `csrc` into a folder laid out as it is; returns what is there then.

    families: names of the folders to compile; None for all. Nothing is made without nvcc, or with
    ``NSTCORE_FATBINS=0``. What nvcc fails to compile is left out with a warning: it is compiled at its first use. Files
    of other sources than these are removed from `target`.
    """
    nvcc = shutil.which("nvcc")
    wanted: dict[Path, tuple[Path, str]] = {}
    if nvcc and os.environ.get(SWITCH) != "0":
        for source in sorted(csrc.glob("*/*_cuda.cu")):
            if families is None or source.parent.name in families:
                for build in builds(source):
                    wanted[target / source.parent.name / name(source, build)] = source, build
    for old in target.glob("*/*.fatbin"):
        if old not in wanted:
            old.unlink()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = [(nvcc or "", *task, path) for path, task in wanted.items() if not path.is_file()]
        said = pool.map(_compile, tasks)
        refused = [f"{task[1].stem} {task[2]}: {why}" for task, why in zip(tasks, said, strict=True) if why]
    if refused:
        print(
            f"warning: nvcc could not compile {len(refused)} of {len(wanted)} files of kernels, which will be compiled "
            f"at their first use ({refused[0]})",
            file=sys.stderr,
        )
    return [path for path in wanted if path.is_file()]


def _compile(task: tuple[str, Path, str, Path]) -> str:
    """Run nvcc; the file appears whole or not at all. Returns what nvcc said last if it failed."""
    nvcc, source, build, path = task
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [nvcc, *options(build), str(source), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return str(error)
        if done.returncode or not made.is_file():
            lines = [*_lines(done.stderr), *_lines(done.stdout), "it made no file"]
            return next((line for line in lines if "error" in line), lines[0])
        made.replace(path)
    return ""


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip())
