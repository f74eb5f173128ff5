"""Each CUDA kernel in the emulator's checked build against the plain reference, computed in float64.

What the checker finds (a race, an access out of bounds, memory never written) fails the test that ran the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import cupy_stand_in as cupy
from cuda_on_cpu.launcher import machine

from nstcore import Tensor
from nstcore.backend import moved, use_backend
from nstcore.backend.arrays import on_device
from nstcore.ops import Case, Op

# Cases of more multiply-adds than this run on the fast build: every line and size around a tile is in smaller ones.
CHECKED_FLOPS = 1e8
# The gradient of a result with relative error e has about twice that error.
GRADIENT_SLACK = 4


def results(op: Op, inputs: Sequence[Any], case: Case, backend: str) -> tuple[Any, ...]:
    with use_backend(backend):
        found = op.public(*inputs, **case.params)
    return found if isinstance(found, tuple) else (found,)


def values_and_gradients(op: Op, inputs: Sequence[Any], case: Case, backend: str) -> tuple[list[Any], list[Any]]:
    """Results, and the gradients of a fixed weighted sum of the first with respect to all inputs that have one."""
    if not op.gradient:
        return list(results(op, inputs, case, backend)), []
    given = [x if i in case.integers else Tensor(moved(x, backend), requires_grad=True) for i, x in enumerate(inputs)]
    (result,) = results(op, given, case, backend)
    with use_backend(backend):
        result.backward(np.random.default_rng(1).standard_normal(result.shape))
    return [result.data], [x.grad for i, x in enumerate(given) if i not in case.integers]


def assert_agrees(got: Any, expected: np.ndarray, dtype: str, tolerance: float) -> None:
    """max |got − expected| ≤ tolerance · max |expected|; indices must be equal."""
    assert on_device(got), "the result left the device"
    assert got.shape == expected.shape
    got = got.get()
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    assert got.dtype == dtype
    size = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
    apart = got != expected  # of infinities there is no difference
    error = np.max(np.abs(got[apart].astype(np.float64) - expected[apart]), initial=0.0)
    assert error <= tolerance * size, f"error {error:.3g} of values up to {size:.3g}, allowed {tolerance:.1g}"


def is_large(op: Op, case: Case) -> bool:
    return op.flops is not None and op.flops(*case.shapes, **case.params) > CHECKED_FLOPS


def test_values_and_gradients(op: Op, case: Case, dtype: str) -> None:
    inputs = case.inputs(dtype)
    before = [x.copy() for x in inputs]
    with cupy.using(mode="fast" if is_large(op, case) else "checked"):
        values, gradients = values_and_gradients(op, inputs, case, "cuda-on-cpu")
    for x, kept in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, kept, "an input was changed")
    precise = [x if i in case.integers else x.astype(np.float64) for i, x in enumerate(inputs)]
    exact_values, exact_gradients = values_and_gradients(op, precise, case, "reference")
    for got, exact in zip(values, exact_values, strict=True):
        assert_agrees(got, exact, dtype, op.allowed(case, dtype))
    for got, exact in zip(gradients, exact_gradients, strict=True):
        assert_agrees(got, exact, dtype, GRADIENT_SLACK * op.allowed(case, dtype))


def test_order_of_threads_does_not_change_a_bit(op: Op, case: Case) -> None:
    if is_large(op, case):
        pytest.skip("the kernels are those of smaller cases")
    inputs, found = case.inputs("float32"), []
    with cupy.using(mode="fast"):
        for order in (0, 1, 7):
            machine().emulator_order(order)
            try:
                values, gradients = values_and_gradients(op, inputs, case, "cuda-on-cpu")
            finally:
                machine().emulator_order(0)
            found.append([a.get().tobytes() for a in (*values, *gradients)])
    assert found[0] == found[1] == found[2]


def spread(x: np.ndarray) -> Any:
    """The same values on the device, with gaps between them and the axes in Fortran order."""
    room = cupy.asarray(np.full(tuple(2 * size + 1 for size in reversed(x.shape)), 77, x.dtype))
    view = room[(..., *(slice(1, 2 * size + 1, 2) for size in reversed(x.shape)))].T
    view[...] = cupy.asarray(x)
    return view


def test_strided_inputs(op: Op, case: Case) -> None:
    """Arrays that are on the device are computed with there, whichever backend is chosen; their strides are heeded."""
    if is_large(op, case):
        pytest.skip("the kernels are those of smaller cases")
    inputs = case.inputs("float32")
    with cupy.using(mode="fast"):
        expected = results(op, inputs, case, "cuda-on-cpu")
        for got, want in zip(results(op, [spread(x) for x in inputs], case, "cpu"), expected, strict=True):
            np.testing.assert_array_equal(got.get(), want.get())
