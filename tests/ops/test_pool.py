"""Pooling: ceil mode, ties, NaN, padding, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nstcore as nst
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, DTypeError, ShapeError
from nstcore.ops.pool import avg_pool2d, max_pool2d


def column(*values: float) -> np.ndarray:
    """A picture one pixel wide."""
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


# By hand: windows start at 0, s, 2s, ... minus padding; in ceil mode a last one may hang over, if it starts
# before the right padding.  height, size, stride, padding -> windows, windows in ceil mode
HEIGHTS = [
    (4, 2, 2, 0, 2, 2),
    (5, 2, 2, 0, 2, 3),  # starts at 4, the last pixel
    (5, 3, 3, 0, 1, 2),
    (6, 3, 2, 0, 2, 3),
    (7, 3, 2, 0, 3, 3),
    (4, 1, 3, 0, 2, 2),
    (5, 1, 3, 0, 2, 2),  # a third would start at 6, outside
    (5, 2, 3, 0, 2, 2),
    (3, 2, 2, 1, 2, 2),  # a third would start at 3, in the right padding
    (4, 2, 2, 1, 3, 3),
    (5, 4, 3, 2, 2, 3),
    (6, 4, 3, 2, 3, 3),  # a fourth would start at 7
]


@pytest.mark.parametrize(("height", "size", "stride", "padding", "floor", "ceil"), HEIGHTS)
@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
def test_number_of_windows(pool, height, size, stride, padding, floor, ceil):
    x = np.ones((1, height, height, 3), np.float32)
    for mode, count in ((False, floor), (True, ceil)):
        y = pool(x, size, stride, padding, ceil_mode=mode)
        assert y.shape == (1, count, count, 3)
        np.testing.assert_array_equal(y, 1)


def test_ceil_mode_values():
    x = column(1, 2, 3, 4, 10)
    assert max_pool2d(x, (2, 1), ceil_mode=True).ravel().tolist() == [2, 4, 10]
    assert avg_pool2d(x, (2, 1), ceil_mode=True).ravel().tolist() == [1.5, 3.5, 10]


def test_average_counts_padding_but_not_what_hangs_over():
    x = column(4, 4, 4, 4, 4, 4)
    args = {"size": (4, 1), "stride": (3, 1), "padding": (1, 0), "ceil_mode": True}
    assert avg_pool2d(x, **args).ravel().tolist() == [4, 4, 4]
    # windows -1..2, 2..5, 5..8: one padded pixel; none; one real and one padded, the rest hangs over
    assert avg_pool2d(x, **args, count_include_pad=True).ravel().tolist() == [3, 4, 2]


@pytest.mark.parametrize("channels", [1, 3, 16, 37])
@pytest.mark.parametrize("backend", [*nst.backend.HOST_BACKENDS, "cuda-on-cpu"])
def test_first_of_equal_values_takes_the_gradient(backend, channels):
    x = nst.tensor(np.zeros((1, 4, 4, channels), np.float32), requires_grad=True)
    with nst.use_backend(backend):
        max_pool2d(x, 3, 1).backward(np.ones((1, 2, 2, channels), np.float32))
    expected = np.zeros((4, 4))
    expected[:2, :2] = 1
    np.testing.assert_array_equal(to_host(x.grad)[0], np.repeat(expected[:, :, None], channels, 2))


@pytest.mark.parametrize("channels", [2, 21])
@pytest.mark.parametrize("backend", [*nst.backend.HOST_BACKENDS, "cuda-on-cpu"])
def test_nan_makes_its_windows_nan_and_takes_their_gradient(backend, channels):
    data = np.arange(16.0).reshape(1, 4, 4, 1).repeat(channels, 3)
    data[0, 2, 1, 0] = data[0, 2, 3, 0] = data[0, 3, 2, 0] = np.nan
    x = nst.tensor(data, requires_grad=True)
    with nst.use_backend(backend):
        y = max_pool2d(x, 2)
        y.backward(np.ones(y.shape))
    pooled = to_host(y.data)
    assert np.isnan(pooled[0, 1, :, 0]).all()
    assert np.isfinite(pooled[0, 0]).all()
    assert np.isfinite(pooled[..., 1:]).all()
    assert to_host(x.grad)[0, :, :, 0].tolist() == [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]]


def test_padding_of_a_maximum_is_minus_infinity():
    x = column(-5, -7)
    assert max_pool2d(x, (2, 1), (1, 1), (1, 0)).ravel().tolist() == [-5, -5, -7]
    assert max_pool2d(column(-np.inf, -np.inf), (2, 1)).ravel().tolist() == [-np.inf]


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20)),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
)
def test_same_as_the_reference(shape, size, stride, padding, ceil_mode, include):
    h, w, c = shape
    padding = min(padding, size // 2)
    if size > min(h, w) + 2 * padding:
        return
    rng = np.random.default_rng(h * 100 + w * 10 + c)
    data = rng.integers(-3, 4, (2, h, w, c)).astype(np.float64)
    for pool, extra in ((max_pool2d, {}), (avg_pool2d, {"count_include_pad": include})):
        results = []
        for backend in nst.backend.HOST_BACKENDS:
            x = nst.tensor(data, requires_grad=True)
            with nst.use_backend(backend):
                y = pool(x, size, stride, padding, ceil_mode, **extra)
                y.backward(np.arange(y.size, dtype=float).reshape(y.shape))
            results.append((y.data, x.grad))
        for fast, slow in zip(*results, strict=True):
            np.testing.assert_allclose(fast, slow, rtol=1e-13, atol=1e-13)


def test_max_pool_keeps_no_reference_to_its_input():
    x = nst.tensor(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1), requires_grad=True)
    y = max_pool2d(x, 2)
    x.data[...] = 0  # the gradient needs which tap won, nothing else
    y.backward(np.ones((1, 2, 2, 1), np.float32))
    assert np.flatnonzero(x.grad).tolist() == [5, 7, 13, 15]


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
@pytest.mark.parametrize(
    ("error", "message", "shape", "args"),
    [
        (ShapeError, r"expects \(n, h, w, c\), got \(4, 4\)", (4, 4), {"size": 2}),
        (
            ShapeError,
            r"no larger than the padded picture, got size 5 for h = 4 with padding 0",
            (1, 4, 8, 1),
            {"size": 5},
        ),
        (ShapeError, r"got size 3 for w = 0 with padding 1", (1, 4, 0, 1), {"size": 3, "padding": 1}),
        (ShapeError, r"got size 2 for h = 0 with padding 1", (1, 0, 4, 1), {"size": 2, "padding": 1}),
        (ArgumentError, r"size of one or two whole numbers, at least 1, got 0", (1, 4, 4, 1), {"size": 0}),
        (ArgumentError, r"stride of .*at most 1048576, got 11805", (1, 4, 4, 1), {"size": 2, "stride": 2**70}),
        (ArgumentError, r"size of .*, got \(True, 2\)", (1, 4, 4, 1), {"size": (True, 2)}),
        (ArgumentError, r"size of .*, got 2.5", (1, 4, 4, 1), {"size": 2.5}),
        (ArgumentError, r"size of .*, got True", (1, 4, 4, 1), {"size": True}),
        (ArgumentError, r"size of .*, got \(1, 2, 3\)", (1, 4, 4, 1), {"size": (1, 2, 3)}),
        (ArgumentError, r"stride of .*, got \(1, 0\)", (1, 4, 4, 1), {"size": 2, "stride": (1, 0)}),
        (ArgumentError, r"padding of .*at least 0, got -1", (1, 4, 4, 1), {"size": 2, "padding": -1}),
        (
            ArgumentError,
            r"at most half of size, got padding 2 for size 3",
            (1, 4, 4, 1),
            {"size": 3, "padding": 2},
        ),
    ],
)
def test_refuses(pool, error, message, shape, args):
    with pytest.raises(error, match=rf"\[{pool.__name__}\] .*{message}"):
        pool(np.zeros(shape, np.float32), **args)


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
def test_refuses_integers(pool):
    with pytest.raises(DTypeError, match=r"float32 or float64, got int64"):
        pool(np.zeros((1, 4, 4, 1), np.int64), 2)
