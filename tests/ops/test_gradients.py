"""Each gradient against finite differences in float64, and float32 gradients against those."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore import gradcheck
from nstcore.backend import use_backend
from nstcore.ops import Case, Op

from .conftest import Run, float_inputs

# The gradient of a result with relative error e has about twice that error.
GRADIENT_SLACK = 4


def selects(op: Op) -> bool:
    """Ops whose record declares a gradient."""
    return op.gradient


def test_gradcheck(op: Op, case: Case, run: Run) -> None:
    inputs, positions = case.inputs("float64"), float_inputs(case)

    def of_floats(*floats: Any) -> Any:
        given = list(inputs)
        for position, x in zip(positions, floats, strict=True):
            given[position] = x
        return run(op, given, case)[0]

    with use_backend(run.backend):
        report = gradcheck(of_floats, *[inputs[i] for i in positions], tolerance=1e-6)
    assert report.kinks == 0, "the case draws its inputs at a kink"


def test_float32_gradients(op: Op, case: Case, run: Run) -> None:
    inputs, positions = case.inputs("float32"), float_inputs(case)
    precise = [x.astype(np.float64) if i in positions else x for i, x in enumerate(inputs)]
    single = run.gradients(op, inputs, case, positions)
    double = Run("reference").gradients(op, precise, case, positions)
    for position, got, expected in zip(positions, single, double, strict=True):
        assert got.dtype == np.float32
        assert got.shape == inputs[position].shape
        size = np.max(np.abs(expected), initial=0.0)
        error = np.max(np.abs(got - expected), initial=0.0)
        allowed = GRADIENT_SLACK * op.allowed(case, "float32")
        assert error <= allowed * size, f"input {position}: {error:.3g} of {size:.3g}, allowed {allowed:.1g}"


def test_each_gradient_alone(op: Op, case: Case, run: Run) -> None:
    """A gradient is the same whether or not those of the other inputs are computed too."""
    inputs, positions = case.inputs("float64"), float_inputs(case)
    for position, expected in zip(positions, run.gradients(op, inputs, case, positions), strict=True):
        (alone,) = run.gradients(op, inputs, case, [position])
        np.testing.assert_array_equal(alone, expected)
