"""Winograd's F(2×2, 3×3) on the CUDA kernels: when it is used, each product in its place, derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nstcore import Tensor, ops, use_backend
from nstcore.backend import cuda, moved
from nstcore.backend.arrays import to_host
from nstcore.backend.cuda import use_precision
from nstcore.backend.cuda_conv import Shape
from nstcore.backend.cuda_winograd import uses_winograd
from nstcore.errors import ArgumentError

FORWARD = {"conv2d_forward_winograd_weights_cuda", "conv2d_forward_winograd_cuda"}
BACKWARD = {"conv2d_backward_winograd_weights_cuda", "conv2d_backward_winograd_cuda"}
IMPLICIT = {"conv2d_forward_cuda", "conv2d_backward_input_cuda"}


@pytest.fixture(params=["cuda-on-cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


def both(x: np.ndarray, w: np.ndarray, dy: np.ndarray, backend: str, **params: Any) -> tuple[np.ndarray, np.ndarray]:
    """The result of a convolution, and its gradient by x for a given one by y."""
    with use_backend(backend):
        t = Tensor(moved(x, backend), requires_grad=True)
        y = ops.conv2d(t, moved(w, backend), **params)
        y.backward(moved(dy, backend))
    return to_host(y.data), to_host(t.grad)


def shape(c: int = 32, k: int = 32, side: int = 32, size: int = 3, stride: int = 1) -> Shape:
    out = (side + 2 - size) // stride + 1
    return Shape(1, side, side, c, k, size, size, out, out, stride, stride, 1, 1)


class TestWhen:
    @pytest.mark.parametrize(
        ("given", "auto", "named"),
        [
            (shape(), True, True),
            (shape(c=31), False, True),
            (shape(k=31), False, True),
            (shape(side=31), False, True),
            (shape(c=1, k=1, side=1), False, True),
            (shape(size=1, side=40), False, False),
            (shape(stride=2, side=80), False, False),
            (shape(c=16384, k=16384), False, False),  # the transformed weights reach beyond 32 bits
            (shape(c=16384, k=8191), True, True),
            (Shape(1, 3, 2**22, 256, 32, 3, 3, 3, 2**22, 1, 1, 1, 1), False, False),  # and so do four rows of x
        ],
    )
    def test_sizes(self, given: Shape, auto: bool, named: bool) -> None:
        assert uses_winograd(given, "auto", np.float32) == auto
        assert not uses_winograd(given, "direct", np.float32)
        for name in ("winograd2", "winograd4", "winograd6"):
            assert uses_winograd(given, name, np.float32) == named

    def test_not_beside_tensor_cores(self) -> None:
        with use_precision("tf32"):
            assert not uses_winograd(shape(), "auto", np.float32)
            assert not uses_winograd(shape(), "winograd2", np.float32)
            assert uses_winograd(shape(), "auto", np.float64)

    @pytest.mark.parametrize(
        ("side", "algorithm", "launched"),
        [
            (4, "auto", IMPLICIT),
            (4, "winograd2", FORWARD | BACKWARD),
            (32, "auto", FORWARD | BACKWARD),
            (32, "direct", IMPLICIT),
        ],
    )
    def test_what_is_launched(
        self, side: int, algorithm: str, launched: set[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names: list[str] = []
        monkeypatch.setattr(cuda.Family, "run", lambda _, kernel, *__: names.append(kernel))
        x, w = np.zeros((1, side, side, 32), np.float32), np.zeros((32, 3, 3, 32), np.float32)
        both(x, w, x, "cuda-on-cpu", padding=1, algorithm=algorithm)
        assert set(names) == launched

    def test_where_it_cannot_be(self) -> None:
        x, w = np.zeros((1, 5, 5, 3)), np.zeros((2, 2, 3, 3))
        said = r"^\[conv2d\] winograd2 expects a 3x3 kernel, stride 1, got 2x3, stride \(1, 1\), 3 and 2$"
        with pytest.raises(ArgumentError, match=said):
            ops.conv2d(x, w, algorithm="winograd2")


@pytest.mark.parametrize(("pad", "size"), [(0, (9, 12)), (1, (7, 6)), ((2, 0), (5, 8)), (3, (4, 1))])
def test_each_product_is_in_its_place(pad: Any, size: tuple[int, int], backend: str) -> None:
    """Whole numbers, fours of them in the weights, go through all of it without rounding."""
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (3, *size, 7)).astype(np.float32)
    w = 4 * rng.integers(-9, 9, (35, 3, 3, 7)).astype(np.float32)
    with use_backend("reference"):
        dy = rng.integers(-9, 9, ops.conv2d(x, w, padding=pad).shape).astype(np.float32)
    found = both(x, w, dy, backend, padding=pad, algorithm="winograd2")
    for got, want in zip(found, both(x, w, dy, "reference", padding=pad), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("place", [(3, 0), (4, 5), (7, 7)])
def test_a_nan_reaches_what_depends_on_it(place: tuple[int, int], backend: str) -> None:
    """Unlike in larger tiles, also where a tile has other results."""
    x, w = np.ones((1, 8, 8, 2), np.float32), np.ones((3, 3, 3, 2), np.float32)
    x[0, place[0], place[1], 1] = np.nan
    found = to_host(ops.conv2d(x, w, padding=1, activation="relu", algorithm="winograd2"))
    with use_backend("reference"):
        np.testing.assert_array_equal(found, ops.conv2d(x, w, padding=1, activation="relu"))
    assert 12 <= np.isnan(found).sum() <= 27


def test_derivatives(backend: str) -> None:
    """By central differences in float64 along random directions, of a weighted sum that passes through a ReLU."""
    rng = np.random.default_rng(2)
    x, w, b = (rng.standard_normal(s) for s in ((2, 5, 7, 6), (33, 3, 3, 6), (33,)))
    params: dict[str, Any] = {"padding": 1, "activation": "relu", "algorithm": "winograd2"}
    weights = rng.standard_normal((2, 5, 7, 33))
    tensors = [Tensor(moved(a, backend), requires_grad=True) for a in (x, w, b)]
    ops.conv2d(*tensors, **params).backward(moved(weights, backend))
    for i, tensor in enumerate(tensors):
        direction = rng.standard_normal(tensor.shape)
        ends = []
        for step in (-1e-6, 1e-6):
            given = [a + step * direction if j == i else a for j, a in enumerate((x, w, b))]
            ends.append(float(np.sum(weights * to_host(ops.conv2d(*given, **params)))))
        slope = float(np.sum(to_host(tensor.grad) * direction))
        assert (ends[1] - ends[0]) / 2e-6 == pytest.approx(slope, rel=1e-5)
