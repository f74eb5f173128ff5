"""What random numbers do not meet: ties, NaN, infinities, and batches without triplets, on the CUDA kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nstcore import Tensor, ops, use_backend
from nstcore.backend.arrays import to_host

NAN, INF = np.nan, np.inf


@pytest.fixture(autouse=True, params=["cuda-on-cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def _backend(request: pytest.FixtureRequest) -> Iterator[None]:
    with use_backend(request.param):
        yield


def host(result: Any) -> Any:
    return tuple(map(to_host, result)) if isinstance(result, tuple) else to_host(result)


def gradient(function: Any, x: Any, weights: Any = None) -> np.ndarray:
    """Of the sum of a function's result, weighted."""
    x = Tensor(np.asarray(x, np.float32), requires_grad=True)
    y = function(x)
    y.backward(np.ones(y.shape) if weights is None else weights)
    return to_host(x.grad)


class TestPool:
    def test_the_first_of_equal_ones_wins(self) -> None:
        x = np.array([[1, 2, 2], [2, 1, 2], [0, 0, 0]]).reshape(1, 3, 3, 1)
        dx = gradient(lambda t: ops.max_pool2d(t, 2, 1), x, np.arange(1, 5).reshape(1, 2, 2, 1))
        np.testing.assert_array_equal(dx[0, :, :, 0], [[0, 3, 0], [3, 0, 4], [0, 0, 0]])

    def test_the_first_nan_wins(self) -> None:
        x = np.array([[5, NAN], [NAN, 9]]).reshape(1, 2, 2, 1)
        assert np.isnan(host(ops.max_pool2d(x, 2))).all()
        np.testing.assert_array_equal(gradient(lambda t: ops.max_pool2d(t, 2), x).ravel(), [0, 1, 0, 0])

    def test_minus_infinity_can_win(self) -> None:
        x = np.full((1, 2, 2, 1), -INF)
        assert (host(ops.max_pool2d(x, 3, 2, padding=1)) == -INF).all()
        np.testing.assert_array_equal(gradient(lambda t: ops.max_pool2d(t, 2), x).ravel(), [1, 0, 0, 0])


class TestRelu:
    @pytest.mark.parametrize(
        ("value", "result", "slope"), [(0, 0, 0), (-0.0, 0, 0), (1, 1, 1), (-1, 0, 0), (NAN, NAN, 0)]
    )
    def test_kink_and_nan(self, value: float, result: float, slope: float) -> None:
        w = np.ones((1, 1, 1, 1), np.float32)
        x = np.full((1, 1, 1, 1), value, np.float32)
        np.testing.assert_array_equal(host(ops.conv2d(x, w, activation="relu")).ravel(), [result])
        np.testing.assert_array_equal(gradient(lambda t: ops.conv2d(t, w, activation="relu"), x).ravel(), [slope])

    def test_a_bias_alone_can_let_through(self) -> None:
        x, w = np.zeros((1, 2, 3, 2), np.float32), np.zeros((3, 1, 1, 2), np.float32)
        b = Tensor(np.float32([1, 0, -1]), requires_grad=True)
        y = ops.conv2d(x, w, b, activation="relu")
        y.backward(np.ones(y.shape))
        np.testing.assert_array_equal(to_host(b.grad), [6, 0, 0])


class TestDistances:
    def test_equal_rows_are_at_zero(self) -> None:
        a = np.random.default_rng(0).standard_normal((70, 33)).astype(np.float32) * 1e3
        d = host(ops.pairwise_sqdist(a, a))
        assert (np.diag(d) == 0).all()
        assert (d >= 0).all()
        np.testing.assert_array_equal(d, d.T)

    def test_nan_and_infinity_stay_in_their_rows(self) -> None:
        a = np.zeros((3, 2))
        a[1, 0], a[2, 1] = NAN, INF
        d = host(ops.pairwise_sqdist(a, np.zeros((2, 2))))
        np.testing.assert_array_equal(d, [[0, 0], [NAN, NAN], [INF, INF]])

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_cosines_of_short_and_long_rows(self, scale: float) -> None:
        a = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
        np.testing.assert_allclose(
            host(ops.pairwise_cosine(a * np.float32(scale), a)), host(ops.pairwise_cosine(a, a)), atol=1e-6
        )

    def test_cosine_of_unit_vectors(self) -> None:
        a = np.eye(3, 40, dtype=np.float32)
        np.testing.assert_array_equal(host(ops.pairwise_cosine(a, a)), np.eye(3))

    def test_cosine_of_zeros_and_nan(self) -> None:
        a = np.zeros((3, 40))
        a[1, 3], a[2, 39] = NAN, -2
        cosine = host(ops.pairwise_cosine(a, np.ones((1, 40))))
        np.testing.assert_allclose(cosine[:, 0], [0, NAN, -1 / np.sqrt(40)], rtol=1e-14)
        np.testing.assert_array_equal(gradient(lambda t: ops.pairwise_cosine(t, np.ones((1, 40), np.float32)), a)[0], 0)


class TestNearest:
    def test_equal_ones_come_by_their_index(self) -> None:
        points = np.arange(2100, dtype=np.float32)[:, None] % 7
        values, indices = host(ops.nearest(np.zeros((3, 1), np.float32), points, 5))
        np.testing.assert_array_equal(values, 0)
        np.testing.assert_array_equal(indices, np.tile(7 * np.arange(5), (3, 1)))

    def test_nan_comes_last_and_by_its_index(self) -> None:
        points = np.array([NAN, 3, NAN, INF, 1, NAN], np.float32)[:, None]
        values, indices = host(ops.nearest(np.zeros((1, 1), np.float32), points, 6))
        np.testing.assert_array_equal(values, [[1, 9, INF, NAN, NAN, NAN]])
        np.testing.assert_array_equal(indices, [[4, 1, 3, 0, 2, 5]])

    @pytest.mark.parametrize("falling", [False, True], ids=["rising", "falling"])
    def test_in_order_and_against_it(self, falling: bool) -> None:
        """Every point is better than all before it, or none is."""
        points = np.arange(150, dtype=np.float32)[:: -1 if falling else 1, None].copy()
        values, indices = host(ops.nearest(np.zeros((2, 1), np.float32), points, 80))
        np.testing.assert_array_equal(values[1], np.arange(80.0) ** 2)
        np.testing.assert_array_equal(indices[1], 149 - np.arange(80) if falling else np.arange(80))

    def test_a_last_split_of_fewer_points_than_are_wanted(self) -> None:
        """The points are two splits, of 576 and 454; all of the second one are among the nearest 460."""
        points = np.arange(1030, 0, -1, dtype=np.float32)[:, None]
        values, indices = host(ops.nearest(np.zeros((1, 1), np.float32), points, 460))
        np.testing.assert_array_equal(values[0], np.arange(1, 461.0) ** 2)
        np.testing.assert_array_equal(indices[0], 1029 - np.arange(460))

    def test_products_largest_first(self) -> None:
        points = np.array([[2.0], [5.0], [-1.0], [5.0], [NAN]])
        values, indices = host(ops.nearest(np.ones((1, 1)), points, 5, metric="inner"))
        np.testing.assert_array_equal(values, [[5, 5, 2, -1, NAN]])
        np.testing.assert_array_equal(indices, [[1, 3, 0, 2, 4]])


class TestTriplets:
    Z = np.array([[0.0], [3.0], [3.0], [1.0], [1.0], [-1.0]], np.float32)
    LABELS = np.array([0, 0, 0, 1, 1, 1])

    def test_hard_takes_the_lowest_of_equal_ones(self) -> None:
        """Anchor 0: positives 1 and 2 at distance 9; negatives 3, 4 and 5 at distance 1."""
        labels = np.array([0, 0, 0, 1, 2, 3])  # the other anchors have a positive at 0 and a far negative
        dz = gradient(lambda t: ops.batch_triplet_loss(t, labels, 0.5, "batch_hard", "sum"), self.Z)
        with use_backend("reference"):
            expected = gradient(lambda t: ops.batch_triplet_loss(t, labels, 0.5, "batch_hard", "sum"), self.Z)
        np.testing.assert_allclose(dz, expected)
        assert dz[2] != dz[1]

    @pytest.mark.parametrize("mining", ["batch_all", "semi_hard", "batch_hard"])
    @pytest.mark.parametrize("margin", [0.0, 3.0, 100.0])
    def test_ties(self, mining: str, margin: float) -> None:
        def loss(t: Any) -> Any:
            return ops.batch_triplet_loss(t, self.LABELS, margin, mining, "mean_active")

        value, dz = host(loss(self.Z)), gradient(loss, self.Z)
        with use_backend("reference"):
            np.testing.assert_allclose(value, loss(self.Z), rtol=1e-6)
            np.testing.assert_allclose(dz, gradient(loss, self.Z), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("mining", ["batch_all", "semi_hard", "batch_hard"])
    def test_a_nan_makes_both_nan(self, mining: str) -> None:
        z = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
        z[33, 1] = NAN
        labels = np.arange(40) // 2
        assert np.isnan(host(ops.batch_triplet_loss(z, labels, 0.2, mining)))
        assert np.isnan(gradient(lambda t: ops.batch_triplet_loss(t, labels, 0.2, mining), z)).all()

    def test_a_nan_without_triplets_is_nothing(self) -> None:
        z = np.full((4, 2), NAN, np.float32)
        assert host(ops.batch_triplet_loss(z, np.zeros(4, int), 0.2)) == 0
        assert host(ops.batch_triplet_loss(z, np.arange(4), 0.2)) == 0

    @pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.uint64])
    def test_labels_of_any_whole_type(self, kind: Any) -> None:
        labels = np.array([0, 0, 120, 120], kind)
        z = np.array([[0.0], [1.0], [1.5], [2.0]])
        assert host(ops.batch_triplet_loss(z, labels, 0.5, "batch_all", "sum")) > 0

    def test_given_triplets_at_the_hinge_have_no_gradient(self) -> None:
        one = np.ones((1, 1), np.float32)
        dz = gradient(lambda t: ops.triplet_loss(t, one, -one, 0.0), 0 * one)
        np.testing.assert_array_equal(dz, 0)
        assert np.isnan(host(ops.triplet_loss(one * NAN, one, one)))


def test_style_loss_of_large_activations_is_finite() -> None:
    x = np.full((1, 8, 8, 2), 1e9, np.float32)
    assert np.isfinite(host(ops.style_loss(x, np.zeros((1, 2, 2), np.float32))))


@pytest.mark.parametrize("same", [True, False])
def test_the_gradient_of_one_input_is_the_same_alone(same: bool) -> None:
    """Kernels that add to a gradient that is there, and those that write a new one."""
    rng = np.random.default_rng(0)
    a, target = (rng.standard_normal((1, 9, 8, 5)).astype(np.float32) for _ in range(2))
    gram = host(ops.gram(target))

    def both(t: Tensor) -> Tensor:
        y = t * 1.0 if same else t
        return ops.content_loss(y, target) + ops.style_loss(y, gram) + ops.gram(y).sum() + ops.gram(y).sum()

    def parts() -> np.ndarray:
        content = gradient(lambda t: ops.content_loss(t, target), a)
        return content + gradient(lambda t: ops.style_loss(t, gram), a) + 2 * gradient(lambda t: ops.gram(t).sum(), a)

    np.testing.assert_allclose(gradient(both, a), parts(), rtol=2e-5, atol=2e-4)
