"""Products on tensor cores: they are used where they may be, are as exact as they say, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.launcher import machine

from nstcore import ops, use_backend
from nstcore.backend.cuda import get_precision, use_precision
from nstcore.errors import ArgumentError
from nstcore.ops import Case, Op

from .test_parity import is_large, values_and_gradients

TF32 = ("conv2d", "gram", "style_loss")
# Two operands rounded by half of 2^-10 each are off by 2^-10 at most; what is summed cancels some of it.
LARGEST, LEAST = 2e-3, 1e-6


def selects(op: Op) -> bool:
    return op.name in TF32


def test_values_and_gradients(op: Op, case: Case) -> None:
    if is_large(op, case):
        pytest.skip("the kernels are those of smaller cases")
    inputs = case.inputs("float32")
    with use_precision("tf32"):
        values, gradients = values_and_gradients(op, inputs, case, "cuda-on-cpu")
    exact_values, exact_gradients = values_and_gradients(op, [x.astype(np.float64) for x in inputs], case, "reference")
    if case.params.get("activation"):  # where a value changes its sign, its gradient comes or goes
        gradients = exact_gradients = []
    errors = []
    for got, exact in zip((*values, *gradients), (*exact_values, *exact_gradients), strict=True):
        size = np.max(np.abs(exact), initial=0)
        errors.append(np.max(np.abs(got.get() - exact), initial=0) / max(size, 1e-300))
    assert max(errors) <= LARGEST
    if values[0].size > 100:
        assert max(errors) > LEAST, "no tensor core was used"


def test_exact_where_it_must_be() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((70, 33)).astype(np.float32), rng.standard_normal((65, 33)).astype(np.float32)
    with use_backend("cuda-on-cpu"):
        for function in (ops.pairwise_sqdist, ops.pairwise_inner, ops.pairwise_cosine):
            before = function(a, b).get()
            with use_precision("tf32"):
                np.testing.assert_array_equal(function(a, b).get(), before)
        x = rng.standard_normal((1, 5, 7, 9))
        before = ops.gram(x).get()
        with use_precision("tf32"):
            np.testing.assert_array_equal(ops.gram(x).get(), before)


def test_operands_that_fit_are_exact() -> None:
    """Whole numbers of few bits are multiplied and added without rounding: each element is in its place."""
    x = np.random.default_rng(0).integers(-60, 60, (1, 9, 10, 70)).astype(np.float32)
    with use_backend("cuda-on-cpu"), use_precision("tf32"):
        found = ops.gram(x).get()
    np.testing.assert_array_equal(found, np.einsum("nhwi,nhwj->nij", x, x))


@pytest.mark.parametrize("order", [1, 7])
def test_order_of_threads(order: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 9, 10, 70)).astype(np.float32)
    with use_backend("cuda-on-cpu"), use_precision("tf32"):
        before = ops.gram(x).get()
        machine().emulator_order(order)
        try:
            np.testing.assert_array_equal(ops.gram(x).get(), before)
        finally:
            machine().emulator_order(0)


def test_choosing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_precision() == "float32"
    with use_precision("tf32"):
        assert get_precision() == "tf32"
    assert get_precision() == "float32"
    monkeypatch.setenv("NSTCORE_PRECISION", "tf32")
    assert get_precision() == "tf32"
    with (
        pytest.raises(ArgumentError, match=r"^\[precision\] expects one of float32, tf32, got 'half'$"),
        use_precision("half"),
    ):
        pass
