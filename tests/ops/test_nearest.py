"""The nearest rows by each metric: the order, ties, lists that chunks share, and what floating point can do to both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nstcore as nst
from nstcore.errors import ArgumentError, DTypeError, ShapeError
from nstcore.ops.pairwise import METRICS, nearest, pairwise_cosine, pairwise_inner, pairwise_sqdist

FULL = {"sqeuclidean": pairwise_sqdist, "inner": pairwise_inner, "cosine": pairwise_cosine}


def sorted_rows(values: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The stable sort of a whole matrix: what `nearest` must give, bit for bit."""
    order = np.argsort(values if metric == "sqeuclidean" else -values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(values, order, 1), order


def assert_sorted(q: np.ndarray, p: np.ndarray, k: int, metric: str) -> None:
    values, order = sorted_rows(FULL[metric](q, p), k, metric)
    got, indices = nearest(q, p, k, metric)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("queries", "points"), [(1, 3000), (4, 50), (5, 2000), (31, 511), (33, 1025), (70, 900), (300, 61), (40, 3)]
)
def test_is_the_sort_of_the_whole_matrix(isa, kind, metric, queries, points):
    rng = np.random.default_rng(7)
    p = rng.standard_normal((points, 19)).astype(kind)
    q = p[rng.integers(0, points, queries)] + kind(1e-3) * rng.standard_normal((queries, 19)).astype(kind)
    assert_sorted(q, p, min(points, 6), metric)


@pytest.mark.parametrize("offset", [10.0, 1000.0])
def test_close_points_far_from_the_origin(isa, offset):
    """Products have no digits of these distances; what they rule out must still be right."""
    rng = np.random.default_rng(1)
    q, p = (rng.standard_normal((n, 24)).astype(np.float32) + np.float32(offset) for n in (37, 3000))
    assert_sorted(q, p, 9, "sqeuclidean")


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-18, 1e-15, 1e15, 1e18, 3e19])
@pytest.mark.parametrize("metric", METRICS)
def test_tiny_and_huge_rows(isa, metric, scale):
    """Squares that vanish or overflow in part; some rows are zero."""
    rng = np.random.default_rng(2)
    q, p = ((scale * rng.standard_normal((n, 11))).astype(np.float32) for n in (20, 1500))
    p[::7] = 0
    q[3] = 0
    with np.errstate(all="ignore"):
        if metric == "inner" and scale > 1e18:
            return  # infinities of both signs: no order to speak of
        assert_sorted(q, p, 12, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("depth", [1, 2, 7, 33, 128])
def test_rows_of_all_lengths_among_each_other(isa, metric, depth):
    """Each row is rounded in a scale of its own: lengths from 1e-12 to 1e12, neighbours that rounding cannot part."""
    rng = np.random.default_rng(6)
    p = rng.standard_normal((2500, depth)).astype(np.float32)
    p[::3] = p[0] * (1 + 1e-5 * rng.standard_normal((834, depth)).astype(np.float32))
    p[1::5] *= (10.0 ** rng.uniform(-12, 12, (500, 1))).astype(np.float32)
    assert_sorted(np.concatenate([p[:40], p[1:200:5]]), p, 7, metric)


def test_points_in_a_far_corner_that_rounding_cannot_part(isa):
    """Every row passes, so the scan goes over to floats, then meets points that rounding rules out."""
    rng = np.random.default_rng(8)
    p = rng.standard_normal((6000, 16)).astype(np.float32) + np.float32(300)
    p[3000:] -= np.float32(280)
    for threads in (1, 3):
        nst.set_num_threads(threads)
        assert_sorted(p[::100] + np.float32(0.01), p, 5, "sqeuclidean")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 70), st.integers(1, 1300), st.integers(1, 3),
    st.sampled_from(METRICS), st.integers(1, 3), st.data(),
)  # fmt: skip
def test_ties_come_in_the_order_of_their_index(seed, queries, points, depth, metric, threads, data):
    """On a coarse grid nearly everything is tied, and every distance and product is exact."""
    k = data.draw(st.integers(1, min(points, 40)))
    rng = np.random.default_rng(seed)
    q, p = (rng.integers(-2, 3, (n, depth)).astype(np.float32) for n in (queries, points))
    nst.set_num_threads(threads)
    assert_sorted(q, p, k, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("order", ["near first", "near last", "all equal"])
def test_chunks_share_what_they_know(isa, metric, order):
    """Points in an order that lets the bound of one chunk rule out all or none of another; also ties across chunks."""
    rng = np.random.default_rng(3)
    q = rng.standard_normal((40, 8)).astype(np.float32)
    p = np.repeat(rng.standard_normal((3000, 8)), 3, axis=0).astype(np.float32)
    if order != "all equal":
        by_distance = np.argsort(((p - q.mean(0)) ** 2).sum(1), kind="stable")
        p = p[by_distance if order == "near first" else by_distance[::-1]]
    else:
        p[:] = p[0]
    values, indices = sorted_rows(FULL[metric](q, p), 7, metric)
    for threads in (1, 2, 3):
        nst.set_num_threads(threads)
        got, where = nearest(q, p, 7, metric)
        np.testing.assert_array_equal(where, indices)
        np.testing.assert_array_equal(got, values)


def test_a_tie_with_a_later_chunk_is_kept(isa):
    """A later chunk meets its ties first and makes them known; those that an earlier one meets afterwards win."""
    chunk = 9000 // (9000 // 512)
    p = np.full((9000, 4), 50, np.float32)
    p[chunk - 60 : chunk + 60] = 1  # the end of the first chunk and the start of the second
    p[chunk - 12 : chunk + 60, 0] = 0
    q = np.zeros((40, 4), np.float32)
    for threads in [2] * 15 + [3] * 15:
        nst.set_num_threads(threads)
        _, indices = nearest(q, p, 9)
        assert (indices == np.arange(chunk - 12, chunk - 3)).all()


@pytest.mark.parametrize("queries", [2, 40])
@pytest.mark.parametrize("metric", ["inner", "cosine"])
def test_nan_comes_last(isa, metric, queries):
    p = np.random.default_rng(4).standard_normal((30, 3)).astype(np.float32)
    p[[0, 7], 1] = np.nan
    q = np.ones((queries, 3), np.float32)
    values, indices = nearest(q, p, 30, metric)
    assert indices[-1, -2:].tolist() == [0, 7]
    assert np.isnan(values[-1, -2:]).all()
    assert (np.diff(values[-1, :-2]) <= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_query_of_zeros(metric):
    """Nothing is similar to it: by cosine and inner product all points are tied at 0."""
    p = np.random.default_rng(5).standard_normal((600, 5)).astype(np.float32)
    values, indices = nearest(np.zeros((6, 5), np.float32), p, 3, metric)
    if metric == "sqeuclidean":
        assert_sorted(np.zeros((6, 5), np.float32), p, 3, metric)
    else:
        assert (values == 0).all()
        assert (indices == [0, 1, 2]).all()


def test_cosine_finds_the_direction_whatever_the_length():
    """A long wrong point wins by inner product, the aligned one by cosine."""
    p = np.array([[100.0, 100.0], [1e-3, 0.0], [0.9, 0.1]])
    q = np.array([[5.0, 0.0]])
    assert nearest(q, p, 1, "inner")[1].tolist() == [[0]]
    values, indices = nearest(q, p, 2, "cosine")
    assert indices.tolist() == [[1, 2]]
    np.testing.assert_allclose(values, [[1.0, 0.9 / np.hypot(0.9, 0.1)]], rtol=1e-15)


@pytest.mark.parametrize("metric", ["euclidean", "l2", "", None, 1])
@pytest.mark.parametrize("backend", nst.backend.HOST_BACKENDS)
def test_refuses_metric(backend, metric):
    with (
        nst.use_backend(backend),
        pytest.raises(ArgumentError, match=r"\[nearest\] expects metric to be one of sqeuclidean, inner, cosine, got"),
    ):
        nearest(np.zeros((2, 3)), np.zeros((5, 3)), 1, metric)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [-150, -30, -20, 0, 18, 30, 150])
def test_cosine_does_not_depend_on_length(isa, kind, exponent):
    """Squares of these lengths vanish or overflow in the type of the rows."""
    if abs(exponent) > 30 and kind is np.float32:
        return
    rng = np.random.default_rng(6)
    a, b = (rng.standard_normal((n, 13)).astype(kind) for n in (9, 21))
    scaled = (a.astype(np.float64) * 10.0**exponent).astype(kind)
    np.testing.assert_allclose(pairwise_cosine(scaled, b), pairwise_cosine(a, b), atol=4 * np.finfo(kind).eps)


def test_cosine_of_zero_rows(isa):
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((7, 5)), rng.standard_normal((6, 5))
    a[2], b[4] = 0, 0
    x, y = nst.tensor(a, requires_grad=True), nst.tensor(b, requires_grad=True)
    s = pairwise_cosine(x, y)
    assert (s.data[2] == 0).all()
    assert (s.data[:, 4] == 0).all()
    s.backward(np.ones((7, 6)))
    assert (x.grad[2] == 0).all()
    assert (y.grad[4] == 0).all()
    assert np.isfinite(x.grad).all()
    assert (x.grad[[0, 1, 3, 4, 5, 6]] != 0).any(1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cosine_of_a_row_that_is_not_finite(isa, bad):
    a, b = np.ones((6, 5), np.float32), np.ones((7, 5), np.float32)
    a[1, 3] = bad
    s = pairwise_cosine(a, b)
    assert np.isnan(s[1]).all()
    np.testing.assert_allclose(np.delete(s, 1, 0), 1, rtol=1e-6)


def test_cosine_gradient_is_across_the_row():
    """Making a row longer changes no cosine."""
    rng = np.random.default_rng(8)
    x = nst.tensor(rng.standard_normal((9, 6)), requires_grad=True)
    pairwise_cosine(x, rng.standard_normal((11, 6))).backward(rng.standard_normal((9, 11)))
    assert np.abs(x.grad).max() > 0.1
    np.testing.assert_allclose(np.sum(x.grad * x.data, axis=1), 0, atol=1e-14)


@pytest.mark.parametrize("function", [pairwise_inner, pairwise_cosine])
def test_refuses_shapes_and_types(function):
    name = function.__name__
    with pytest.raises(ShapeError, match=rf"\[{name}\] axis d must agree in n d, m d, got \(2, 3\), \(4, 5\)"):
        function(np.zeros((2, 3)), np.zeros((4, 5)))
    with pytest.raises(DTypeError, match=rf"\[{name}\] .*got float32, float64"):
        function(np.zeros((2, 3), np.float32), np.zeros((4, 3)))
