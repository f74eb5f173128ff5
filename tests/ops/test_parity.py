"""Each implementation of each op against the plain reference, computed in float64."""

from __future__ import annotations

import numpy as np

from nstcore import set_num_threads
from nstcore.ops import Case, Op
from nstcore.ops._op import check_shapes, parse_signature

from .conftest import Run, float_inputs

EXACT = Run("reference")


def assert_agrees(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """max |got − expected| ≤ tolerance · max |expected|; integers, such as indices, must be equal."""
    assert got.shape == expected.shape
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    size = np.max(np.abs(expected[finite]), initial=0.0)
    error = np.max(np.abs(got[finite].astype(np.float64) - expected[finite]), initial=0.0)
    assert error <= tolerance * size, f"error {error:.3g} of values up to {size:.3g}, allowed {tolerance:.1g}"


def test_values(op: Op, case: Case, dtype: str, run: Run) -> None:
    inputs = case.inputs(dtype)
    before = [x.copy() for x in inputs]
    results = run(op, inputs, case)
    for x, kept in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, kept, "an input was changed")
    precise = [x if i in case.integers else x.astype(np.float64) for i, x in enumerate(inputs)]
    expected = EXACT(op, precise, case)
    assert len(results) == len(expected)
    for got, exact in zip(results, expected, strict=True):
        assert isinstance(got, np.ndarray)
        assert got.dtype == (dtype if exact.dtype.kind == "f" else exact.dtype)
        assert_agrees(got, exact, op.allowed(case, dtype))


def test_result_has_the_shape_of_the_signature(op: Op, case: Case, run: Run) -> None:
    inputs = case.inputs("float32")
    names = parse_signature(op.signature)
    sizes = check_shapes(op, [*inputs, *[None] * (len(names[0]) - len(inputs))])
    if "..." in names[1]:
        return
    shape = run(op, inputs, case)[0].shape
    assert len(shape) == len(names[1])
    assert all(sizes.get(name, size) == size for name, size in zip(names[1], shape, strict=True))


def test_composite_agrees_with_its_own_reference(op: Op, case: Case, dtype: str) -> None:
    """An op made of other ops has a reference without a gradient, which no backend runs."""
    if op.reference.backward is not None or op.cpu is not None or not op.gradient:
        return
    inputs = case.inputs(dtype)
    expected = np.asarray(op.reference.forward(None, *inputs, **case.params))
    assert_agrees(EXACT(op, inputs, case)[0], expected, op.allowed(case, dtype))


def spread(x: np.ndarray) -> np.ndarray:
    """The same values with gaps between them and the axes in Fortran order."""
    room = np.full(tuple(2 * size + 1 for size in reversed(x.shape)), 77, x.dtype)
    view = room[(..., *(slice(1, 2 * size + 1, 2) for size in reversed(x.shape)))].T
    view[...] = x
    return view


def test_strided_inputs(op: Op, case: Case, run: Run) -> None:
    """No kernel reads the elements between those of a strided array."""
    for dtype in op.dtypes:
        inputs = case.inputs(dtype)
        views = [spread(x) for x in inputs]
        for got, expected in zip(run(op, views, case), run(op, inputs, case), strict=True):
            assert_agrees(got, expected, 0 if run.isa else op.allowed(case, dtype))
        if op.gradient:
            wanted = float_inputs(case)
            for got, expected in zip(
                run.gradients(op, views, case, wanted), run.gradients(op, inputs, case, wanted), strict=True
            ):
                assert_agrees(got, expected, 0 if run.isa else 8 * op.allowed(case, dtype))


def test_threads_do_not_change_a_bit(op: Op, case: Case, run: Run) -> None:
    if not run.isa:
        return
    for dtype in op.dtypes:
        inputs = case.inputs(dtype)
        found = []
        for threads in (1, 2, 3):
            set_num_threads(threads)
            gradients = run.gradients(op, inputs, case, float_inputs(case)) if op.gradient else []
            found.append([a.tobytes() for a in (*run(op, inputs, case), *gradients)])
        assert found[0] == found[1] == found[2]
