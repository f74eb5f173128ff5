"""Parametrisation from the records in `nstcore.ops.OPS`: a test asks for any of `op`, `case`, `dtype` and `run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from nstcore import Tensor
from nstcore.backend import cpu, use_backend
from nstcore.ops import OPS, Case, Op


@dataclass(frozen=True)
class Run:
    """A backend and, for the native one, an instruction set."""

    backend: str
    isa: str = ""

    def __str__(self) -> str:
        return f"{self.backend}-{self.isa}" if self.isa else self.backend

    def __call__(self, op: Op, inputs: Sequence[Any], case: Case) -> tuple[Any, ...]:
        """The results of the public function, always as a tuple."""
        if self.isa:
            cpu.set_isa(self.isa)
        with use_backend(self.backend):
            result = op.public(*inputs, **case.params)
        return result if isinstance(result, tuple) else (result,)

    def gradients(self, op: Op, inputs: Sequence[Any], case: Case, wanted: Sequence[int]) -> list[np.ndarray]:
        """Gradients of a fixed weighted sum of the first result with respect to the `wanted` inputs."""
        given = [Tensor(x, requires_grad=i in wanted) if i in wanted else x for i, x in enumerate(inputs)]
        result = self(op, given, case)[0]
        with use_backend(self.backend):
            result.backward(np.random.default_rng(1).standard_normal(result.shape))
        return [given[i].grad for i in wanted]


@pytest.fixture(params=cpu.isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set of this machine in turn, chosen."""
    cpu.set_isa(request.param)
    return str(request.param)


def runs(op: Op) -> list[Run]:
    """Every way to compute `op` on this machine; one without native kernels has the reference alone."""
    return [Run("reference")] + ([Run("cpu", isa) for isa in cpu.isas()] if op.cpu else [])


def float_inputs(case: Case) -> list[int]:
    """Positions of the inputs that have gradients."""
    return [i for i in range(len(case.shapes)) if i not in case.integers]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each combination that the arguments of the test, and `selects` in its module, ask for."""
    selects = getattr(metafunc.module, "selects", lambda op: True)
    wanted = [name for name in ("op", "case", "dtype", "run") if name in metafunc.fixturenames]
    rows = {}
    for op in filter(selects, OPS.values()):
        for case in op.cases if "case" in wanted else (None,):
            for dtype in op.dtypes if "dtype" in wanted else (None,):
                for run in runs(op) if "run" in wanted else (None,):
                    values = {"op": op, "case": case, "dtype": dtype, "run": run}
                    shown = [op.name, case and case.label, dtype, run and str(run)]
                    rows["-".join(part for part in shown if part)] = [values[name] for name in wanted]
    if wanted:
        metafunc.parametrize(wanted, list(rows.values()), ids=list(rows))


def pytest_configure() -> None:
    labels = [(op.name, case.label) for op in OPS.values() for case in op.cases]
    repeated = {label for label in labels if labels.count(label) > 1}
    assert not repeated, f"case labels must be unique within an op: {repeated}"
