"""Parametrisation from the records of ops: a test asks for any of `op`, `case` and `dtype`.

Ops that have CUDA kernels, or those that `selects` in the module of the test takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cuda_on_cpu import build
from cuda_on_cpu import cupy_stand_in as cupy

from nstcore.backend import why_no_cuda
from nstcore.backend.cuda import array_module
from nstcore.ops import OPS, Case, Op


def cases(op: Op) -> list[Case]:
    """The cases of an op; of those that differ only in the tiles of the CPU's algorithms, the first."""
    different = {}
    for case in (*op.cases, *op.cuda_cases):
        params = dict(case.params)
        params["algorithm"] = str(params.get("algorithm")).startswith("winograd")  # a GPU has one besides the direct
        different.setdefault((case.shapes, repr(params), case.draw), case)
    return list(different.values())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    wanted = [name for name in ("op", "case", "dtype") if name in metafunc.fixturenames]
    selects = getattr(metafunc.module, "selects", lambda op: op.cuda is not None)
    rows = {}
    for op in filter(selects, OPS.values()):
        for case in cases(op) if "case" in wanted else (None,):
            for dtype in op.dtypes if "dtype" in wanted else (None,):
                values = {"op": op, "case": case, "dtype": dtype}
                shown = [op.name, case and case.label, dtype]
                rows["-".join(part for part in shown if part)] = [values[name] for name in wanted]
    if wanted:
        metafunc.parametrize(wanted, list(rows.values()), ids=list(rows))


@pytest.fixture(scope="session", autouse=True)
def _no_pool() -> None:
    """Under `make gpu-check`, arrays of the driver's own instead of parts of CuPy's pool, so that bounds are seen."""
    if os.environ.get("NSTCORE_TEST_NO_POOL") and not why_no_cuda():
        array_module("cuda").cuda.set_allocator(None)


@pytest.fixture(autouse=True)
def _emulator(request: pytest.FixtureRequest) -> Iterator[None]:
    """The checked build; tests that need the emulator are skipped where it cannot be."""
    if request.node.get_closest_marker("no_emulator") is None:
        if build.compiler() is None:
            pytest.skip("g++ is not installed")
        if not build.supported():
            pytest.skip("the emulator runs on Linux on x86-64")
    with cupy.using(mode="checked"):
        yield
