"""Runs the tests of the kernels with other CUDA sources; prints what these are found out by, or nothing.

Usage: PYTHONPATH=tests python -m cuda_on_cpu.mutated FOLDER NAME ...; called by `mutate`. Those tests run that have a
NAME in theirs.
"""

from __future__ import annotations

import contextlib
import io
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from nstcore.backend import cuda

from .build import ROOT, BuildError
from .launcher import Findings, LaunchError

KINDS = {Findings: "checker", LaunchError: "launch", BuildError: "compiler"}
TESTS = ("test_edges.py", "test_parity.py::test_values_and_gradients", "test_precision.py", "test_winograd.py")


SECONDS = 240  # of a processor that a mutant may take: those of a clock depend on who else is there


class Fate:
    """A plugin that notes why the first test failed."""

    kind = ""

    def pytest_runtest_makereport(self, call: Any) -> None:
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception) and not self.kind:
            self.kind = KINDS.get(call.excinfo.type, "result")


def main(folder: str, *names: str) -> str:
    """What the sources in `folder` are found out by."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    cuda.sources = lambda: Path(folder)  # type: ignore[assignment]
    chosen, fate = f"({' or '.join(names)}) and not float64 and not L3", Fate()
    tests = [str(ROOT / "tests" / "kernels" / name) for name in TESTS]
    with contextlib.redirect_stdout(io.StringIO()):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen, *tests], [fate])
    return fate.kind if code == pytest.ExitCode.TESTS_FAILED else "" if code == pytest.ExitCode.OK else f"exit {code}"


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
