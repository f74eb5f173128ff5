"""Distances: exact zeros, close and huge rows, and the order of the nearest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nstcore as nst
from nstcore.errors import ArgumentError, DTypeError, ShapeError
from nstcore.ops.pairwise import nearest, pairwise_sqdist


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_equal_rows_are_exactly_zero_apart(isa, kind, scale):
    rng = np.random.default_rng(0)
    a = (scale * rng.standard_normal((70, 37))).astype(kind)
    a[50] = a[3]
    d, crossed = pairwise_sqdist(a, a), pairwise_sqdist(a, a.copy())
    np.testing.assert_array_equal(d, crossed)  # one is computed by halves, the other whole
    np.testing.assert_array_equal(d, d.T)
    assert (np.diag(d) == 0).all()
    assert d[3, 50] == d[50, 3] == 0
    assert np.count_nonzero(d == 0) == 72


@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
def test_close_rows_keep_their_digits(isa, offset):
    """Far from the origin |a|² + |b|² − 2ab has no digits left; sums of (a − b)² have."""
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((40, 24)).astype(np.float32) + np.float32(offset) for _ in range(2))
    exact = np.sum((a[:, None].astype(np.float64) - b) ** 2, axis=2)
    np.testing.assert_allclose(pairwise_sqdist(a, b), exact, rtol=1e-5)


def test_nearly_equal_rows(isa):
    a = np.random.default_rng(2).standard_normal((20, 128)).astype(np.float32)
    b = a + np.float32(1e-4)
    exact = np.sum((a[:, None].astype(np.float64) - b) ** 2, axis=2)
    np.testing.assert_allclose(pairwise_sqdist(a, b), exact, rtol=2e-5)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 20),
    st.sampled_from([1e-20, 1, 1e15]),
)
def test_never_negative(seed, n, m, depth, scale):
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal(depth)
    a, b = ((scale * (centre + 1e-4 * rng.standard_normal((k, depth)))).astype(np.float32) for k in (n, m))
    d = pairwise_sqdist(a, b)
    assert (d >= 0).all()
    exact = np.sum((a[:, None].astype(np.float64) - b) ** 2, axis=2)
    np.testing.assert_allclose(d, exact, rtol=1e-4, atol=1e-38)


def test_huge_rows_whose_distance_is_finite(isa):
    """|a|² is out of range for both; their distance is not."""
    a = np.full((6, 3), 3e19, np.float32)
    a[1:] += np.float32(1e14) * np.arange(1, 6, dtype=np.float32)[:, None]
    exact = np.sum((a[:, None].astype(np.float64) - a) ** 2, axis=2)
    np.testing.assert_allclose(pairwise_sqdist(a, a), exact, rtol=1e-5)
    far = pairwise_sqdist(a, -a)
    assert np.isposinf(far).all()


def test_nan_stays_in_its_row(isa):
    a = np.random.default_rng(3).standard_normal((20, 9)).astype(np.float32)
    b = a[:17].copy()
    a[5, 2] = np.nan
    b[8, 0] = np.inf
    d = pairwise_sqdist(a, b)
    assert np.isnan(d[5]).all()
    assert np.isposinf(np.delete(d, 5, 0)[:, 8]).all()
    assert np.isfinite(np.delete(np.delete(d, 5, 0), 8, 1)).all()


def test_one_tensor_twice():
    x = nst.tensor(np.random.default_rng(4).standard_normal((13, 6)), requires_grad=True)
    weights = np.random.default_rng(5).standard_normal((13, 13))
    pairwise_sqdist(x, x).backward(weights)
    both = weights + weights.T
    expected = 2 * (both.sum(1, keepdims=True) * x.data - both @ x.data)
    np.testing.assert_allclose(x.grad, expected, rtol=1e-12, atol=1e-12)
    assert nst.gradcheck(lambda t: pairwise_sqdist(t, t), x.data).max_error < 1e-6


def test_gradient_of_one_side_only():
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((7, 5)), rng.standard_normal((600, 5))
    g = rng.standard_normal((7, 600))
    x = nst.tensor(a, requires_grad=True)
    pairwise_sqdist(x, b).backward(g)
    np.testing.assert_allclose(x.grad, 2 * (g.sum(1, keepdims=True) * a - g @ b), rtol=1e-12)
    y = nst.tensor(b, requires_grad=True)
    pairwise_sqdist(a, y).backward(g)
    np.testing.assert_allclose(y.grad, 2 * (g.sum(0)[:, None] * b - g.T @ a), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("queries", [2, 40])
def test_nan_comes_last(isa, queries):
    p = np.arange(30, dtype=np.float32)[:, None].copy()
    p[[0, 7]], p[3] = np.nan, np.inf
    distances, indices = nearest(np.zeros((queries, 1), np.float32), p, 30)
    assert indices[-1].tolist() == [i for i in range(30) if i not in (0, 3, 7)] + [3, 0, 7]
    assert np.isposinf(distances[-1, 27])
    assert np.isnan(distances[-1, 28:]).all()


def test_nearest_has_no_gradient():
    x = nst.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    distances, indices = nearest(x, x, 1)
    assert isinstance(distances, np.ndarray)
    assert indices.tolist() == [[0], [0]]


@pytest.mark.parametrize("k", [0, -1, 6, 2.0, True, None])
@pytest.mark.parametrize("backend", nst.backend.HOST_BACKENDS)
def test_refuses_k(backend, k):
    with (
        nst.use_backend(backend),
        pytest.raises(ArgumentError, match=r"\[nearest\] expects k from 1 to .*, 5, got"),
    ):
        nearest(np.zeros((2, 3)), np.zeros((5, 3)), k)


def test_refuses_shapes_and_types():
    with pytest.raises(ShapeError, match=r"\[pairwise_sqdist\] axis d must agree in n d, m d, got \(2, 3\), \(4, 5\)"):
        pairwise_sqdist(np.zeros((2, 3)), np.zeros((4, 5)))
    with pytest.raises(ShapeError, match=r"\[nearest\] expects \(q, d\), got \(3,\)"):
        nearest(np.zeros(3), np.zeros((4, 3)), 1)
    with pytest.raises(ArgumentError, match="number of points, 0, got 1"):
        nearest(np.zeros((2, 3)), np.zeros((0, 3)), 1)
    with pytest.raises(DTypeError, match="got float32, float64"):
        pairwise_sqdist(np.zeros((2, 3), np.float32), np.zeros((4, 3)))


@pytest.mark.parametrize("size", [1e-30, 2.6e-23, 1e-21, 1e-19, 1e-17])
def test_equal_rows_are_exactly_equal_where_products_underflow(isa, size):
    """Their norms are summed in double; the products of floats below 1e-19 are denormal or zero."""
    rng = np.random.default_rng(0)
    for a in (np.full((5, 128), size, np.float32), (size * rng.standard_normal((40, 128))).astype(np.float32)):
        b = np.repeat(a, 2, axis=0)
        d = pairwise_sqdist(a, b)
        exact = ((a[:, None].astype(float) - b) ** 2).sum(2)
        assert (d >= 0).all()
        assert (d[np.arange(len(a)), 2 * np.arange(len(a))] == 0).all()
        np.testing.assert_allclose(d, exact, rtol=2e-5, atol=128 * 2.0**-149)
        keys, places = nearest(a, b, 2)
        assert (keys == np.sort(d, axis=1)[:, :2]).all()
        assert (places == np.argsort(d, axis=1, kind="stable")[:, :2]).all()
