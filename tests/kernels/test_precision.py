"""Products on tensor cores: they are used where they may be, are as exact as they say, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import cupy_stand_in as cupy
from cuda_on_cpu.launcher import machine

from nstcore import Tensor, ops, use_backend
from nstcore.backend.arrays import to_host
from nstcore.backend.cuda import PRECISIONS, get_precision, use_precision
from nstcore.errors import ArgumentError
from nstcore.ops import Case, Op

from .test_parity import is_large, values_and_gradients

# What two rounded operands put a product off by, at most: twice the half of a last place. Of tf32x3, what the small
# parts lose, and the product of two of them.
ROUNDING = {"tf32": 2.0**-10, "bf16": 2.0**-7, "tf32x3": 3 * 2.0**-22}
SUMMING = 2.0**-18  # of float32 sums of 16 terms, of which up to 40 are added
each_precision = pytest.mark.parametrize("precision", list(ROUNDING))


@pytest.fixture(params=["cuda-on-cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def selects(op: Op) -> bool:
    return op.name in ("conv2d", "gram", "style_loss")


@dataclass(frozen=True)
class Work:
    """An op that is one product of matrices in every direction, at sizes that are multiples of no tile."""

    function: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]

    def inputs(self, draw: Callable[[np.random.Generator, Any], np.ndarray]) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        with use_backend("reference"):
            result = self.function(*(np.zeros(shape) for shape in self.shapes)).shape
        return [draw(rng, shape).astype(np.float32) for shape in (*self.shapes, result)]

    def run(self, inputs: list[np.ndarray], backend: str) -> list[np.ndarray]:
        """The result, and the gradients of its sum weighted by the last of the inputs."""
        given = [Tensor(x, requires_grad=True) for x in inputs[:-1]]
        with use_backend(backend):
            result = self.function(*given)
            result.backward(inputs[-1])
        return [to_host(result.data), *(to_host(x.grad) for x in given)]


WORKS = {
    "conv2d": Work(lambda x, w, b: ops.conv2d(x, w, b, padding=1), ((2, 9, 8, 21), (70, 3, 3, 21), (70,))),
    "conv2d-strided": Work(
        lambda x, w: ops.conv2d(x, w, stride=(2, 3), padding=(0, 1)), ((1, 15, 26, 5), (9, 5, 2, 5))
    ),
    "gram": Work(ops.gram, ((2, 9, 10, 70),)),
}
each_work = pytest.mark.parametrize("work", [pytest.param(work, id=name) for name, work in WORKS.items()])


@each_precision
@each_work
def test_every_element_is_as_exact_as_it_says(work: Work, precision: str, backend: str) -> None:
    """Against float64, by the bound that holds for any numbers: so much of the sum of the products' magnitudes."""
    inputs = work.inputs(lambda rng, shape: rng.standard_normal(shape))
    with use_precision(precision):
        found = work.run(inputs, backend)
    plain = work.run(inputs, backend)
    exact = work.run([x.astype(np.float64) for x in inputs], "reference")
    sizes = work.run([np.abs(x.astype(np.float64)) for x in inputs], "reference")
    for got, before, want, size in list(zip(found, plain, exact, sizes, strict=True))[:3]:  # but the gradient of a bias
        assert (np.abs(got - want) <= (ROUNDING[precision] + SUMMING) * size).all()
        assert (np.abs(before - want) <= SUMMING * size).all()
        assert (got != before).any(), "no tensor core was used"
        if precision != "tf32x3":
            assert (np.abs(got - want) > ROUNDING[precision] / 64 * size).any()


@each_precision
@each_work
def test_each_product_is_in_its_place(work: Work, precision: str, backend: str) -> None:
    """Whole numbers of few bits are multiplied and added without rounding."""
    inputs = work.inputs(lambda rng, shape: rng.integers(-60, 60, shape))
    with use_precision(precision):
        found = work.run(inputs, backend)
    for got, want in zip(found, work.run([x.astype(np.float64) for x in inputs], "reference"), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("order", [1, 7])
@each_precision
def test_order_of_threads(precision: str, order: int) -> None:
    work = WORKS["conv2d"]
    inputs = work.inputs(lambda rng, shape: rng.standard_normal(shape))
    with cupy.using(mode="fast"), use_precision(precision):
        before = work.run(inputs, "cuda-on-cpu")
        machine().emulator_order(order)
        try:
            after = work.run(inputs, "cuda-on-cpu")
        finally:
            machine().emulator_order(0)
    assert [a.tobytes() for a in after] == [b.tobytes() for b in before]


def test_the_cases_of_the_records(op: Op, case: Case) -> None:
    """Edges: no rows, one channel, strides, padding. Errors relative to the largest result; one is checked."""
    if is_large(op, case):
        pytest.skip("the kernels are those of smaller cases")
    inputs = case.inputs("float32")
    precise = [x if i in case.integers else x.astype(np.float64) for i, x in enumerate(inputs)]
    exact_values, exact_gradients = values_and_gradients(op, precise, case, "reference")
    for precision, allowed in (("tf32", 2e-3), ("bf16", 1.6e-2), ("tf32x3", 4e-6)):
        with use_precision(precision), cupy.using(mode="checked" if precision == "tf32" else "fast"):
            values, gradients = values_and_gradients(op, inputs, case, "cuda-on-cpu")
        if case.params.get("activation"):  # where a value changes its sign, its gradient comes or goes
            gradients = exact_gradients = []
        for got, exact in zip((*values, *gradients), (*exact_values, *exact_gradients), strict=True):
            error = np.max(np.abs(got.get() - exact), initial=0)
            assert error <= allowed * np.max(np.abs(exact), initial=0), precision


@each_precision
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_seen(precision: str, value: float, backend: str) -> None:
    """A NaN stays one; an infinity stays one, or becomes a NaN where a number is split in two."""
    x = np.ones((1, 3, 3, 4), np.float32)
    x[0, 2, 2, 3] = value
    with use_backend(backend), use_precision(precision):
        y = to_host(ops.conv2d(x, np.ones((2, 2, 2, 4), np.float32)))
    assert (y[0, :1] == 16).all()
    wanted = np.nan if precision == "tf32x3" else value
    np.testing.assert_array_equal(y[0, 1, 1], [wanted, wanted])


@each_precision
def test_exact_where_it_must_be(precision: str, backend: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((70, 33)).astype(np.float32), rng.standard_normal((65, 33)).astype(np.float32)
    x = rng.standard_normal((1, 5, 7, 9))  # float64
    functions = [
        lambda: ops.pairwise_sqdist(a, b),
        lambda: ops.pairwise_inner(a, b),
        lambda: ops.nearest(a, b, 3)[0],
        lambda: ops.gram(x),
    ]
    with use_backend(backend):
        for function in functions:
            before = to_host(function())
            with use_precision(precision):
                np.testing.assert_array_equal(to_host(function()), before)


class TestChoosing:
    def test_a_block_and_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NSTCORE_PRECISION", raising=False)
        assert get_precision() == "float32"
        monkeypatch.setenv("NSTCORE_PRECISION", "bf16")
        assert get_precision() == "bf16"
        with use_precision("tf32"):
            assert get_precision() == "tf32"
            with use_precision("float32"):
                assert get_precision() == "float32"
            assert get_precision() == "tf32"
        assert get_precision() == "bf16"

    def test_an_unknown_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said = rf"^\[precision\] expects one of {', '.join(PRECISIONS)}, got 'half'$"
        with pytest.raises(ArgumentError, match=said), use_precision("half"):
            pass
        monkeypatch.setenv("NSTCORE_PRECISION", "half")
        with pytest.raises(ArgumentError, match=said):
            get_precision()
