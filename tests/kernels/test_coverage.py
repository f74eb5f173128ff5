"""The cases of the records run every line of every CUDA file, as gcov counts them in the emulated build."""

from __future__ import annotations

import ctypes
import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from cuda_on_cpu import build
from cuda_on_cpu import cupy_stand_in as cupy

from nstcore.backend.cuda import _headers, sources, use_precision
from nstcore.ops import OPS

from .conftest import cases
from .test_parity import values_and_gradients

FILES = sorted(sources().glob("*/*_cuda.cu"))
MOST_FLOPS = 1e7  # of a case: the build is not optimised, and smaller ones reach every line


def lines_run(library: Path, folder: Path) -> Iterator[tuple[str, int, int]]:
    """File, line and how often it ran, of what a library was compiled from."""
    ctypes.CDLL(str(library)).emulator_dump_coverage()
    (counts,) = library.parent.glob(f"{library.stem}.o.*.gcda")
    subprocess.run(["gcov", "--json-format", str(counts)], cwd=folder, capture_output=True, check=True)
    (report,) = folder.glob(f"{library.stem}*.gcov.json.gz")
    for file in json.loads(gzip.decompress(report.read_bytes()))["files"]:
        for line in file["lines"]:
            yield file["file"], line["line_number"], line["count"]


@pytest.mark.skipif(shutil.which("gcov") is None, reason="gcov is not installed")
def test_every_line_runs(tmp_path: Path) -> None:
    headers = f"NST_HEADERS={_headers()}"
    libraries = [build.library(path, ["NST_REAL=float", headers], "coverage") for path in FILES]
    tensor_cores = [path for path in FILES if path.stem in ("conv_cuda", "gram_cuda")]
    libraries += [
        build.library(path, ["NST_REAL=float", f"NST_TENSOR_CORES={kind}", headers], "coverage")
        for path in tensor_cores
        for kind in (1, 2, 3)
    ]
    for library in libraries:  # counts of other runs would be added to
        for old in library.parent.glob(f"{library.stem}.o.*.gcda"):
            old.unlink()
    with cupy.using(mode="coverage"):
        for op in (op for op in OPS.values() if op.cuda):
            for case in cases(op):
                if op.flops is None or op.flops(*case.shapes, **case.params) <= MOST_FLOPS:
                    values_and_gradients(op, case.inputs("float32"), case, "cuda-on-cpu")
        for precision, name in product(("tf32", "bf16", "tf32x3"), ("conv2d", "style_loss", "gram")):
            case = OPS[name].cases[0]
            with use_precision(precision):
                values_and_gradients(OPS[name], case.inputs("float32"), case, "cuda-on-cpu")
    counts: dict[tuple[str, int], int] = {}
    for library in libraries:
        for file, line, count in lines_run(library, tmp_path):
            counts[file, line] = max(count, counts.get((file, line), 0))
    ours = {place: count for place, count in counts.items() if Path(place[0]).suffix in (".cu", ".cuh")}
    assert {Path(file) for file, _ in ours} >= set(FILES)
    missed = sorted(f"{file}:{line}" for (file, line), count in ours.items() if count == 0)
    assert not missed, "\n".join(missed)
