"""Triplet losses: the definitions, mining against brute force, and batches with nothing to learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nstcore as nst
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, DTypeError, ShapeError
from nstcore.ops.triplet import MININGS, REDUCTIONS, batch_triplet_loss, triplet_loss, triplet_stats

BACKENDS = nst.backend.HOST_BACKENDS
ALL = (*BACKENDS, "cuda-on-cpu")


def brute_force(d: np.ndarray, labels: np.ndarray, margin: float, mining: str) -> list[float]:
    """Losses of the triplets that the definitions of the docstring choose, from all (a, p, n)."""
    b = len(d)
    valid = [
        (a, p, n)
        for a in range(b)
        for p in range(b)
        for n in range(b)
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]
    ]
    chosen = []
    for a, p, n in valid:
        rivals = [m for x, y, m in valid if (x, y) == (a, p)]
        if mining == "semi_hard":
            band = [m for m in rivals if d[a, p] < d[a, m] < d[a, p] + margin]
            best = min(band, key=lambda m: d[a, m]) if band else max(rivals, key=lambda m: d[a, m])
            if n != best:
                continue
        elif mining == "batch_hard":
            partners = [y for x, y, m in valid if (x, m) == (a, n)]
            if p != max(partners, key=lambda y: d[a, y]) or n != min(rivals, key=lambda m: d[a, m]):
                continue
        chosen.append(max(float(d[a, p] - d[a, n] + margin), 0.0))
    return chosen


def reduce(losses: list[float], reduction: str) -> float:
    count = {"sum": 1, "mean": len(losses), "mean_active": sum(loss > 0 for loss in losses)}[reduction]
    return sum(losses) / max(count, 1)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=14), st.integers(1, 3), st.integers(0, 2**31),
    st.sampled_from(MININGS), st.sampled_from(REDUCTIONS), st.sampled_from([0.0, 0.5, 1.0, 4.0]),
)  # fmt: skip
def test_mining_is_what_it_says(labels, depth, seed, mining, reduction, margin):
    """On a grid of whole numbers distances are exact, ties are everywhere, and hinges are hit exactly."""
    z = np.random.default_rng(seed).integers(-2, 3, (len(labels), depth)).astype(np.float64)
    d = np.sum((z[:, None] - z) ** 2, axis=2)
    expected = reduce(brute_force(d, np.array(labels), margin, mining), reduction)
    for backend in BACKENDS:
        with nst.use_backend(backend):
            got = batch_triplet_loss(z, labels, margin, mining, reduction)
        assert got.shape == ()
        assert float(got) == pytest.approx(expected, rel=1e-14)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(1, 6),
    st.integers(0, 2**31),
    st.sampled_from(MININGS),
    st.sampled_from(REDUCTIONS),
)
def test_gradient_among_ties_is_that_of_the_reference(b, classes, seed, mining, reduction):
    rng = np.random.default_rng(seed)
    data, labels = rng.integers(-2, 3, (b, 2)).astype(np.float64), rng.integers(0, classes, b)
    gradients = []
    for backend in BACKENDS:
        z = nst.tensor(data, requires_grad=True)
        with nst.use_backend(backend):
            batch_triplet_loss(z, labels, 1.0, mining, reduction).backward()
        gradients.append(z.grad)
    np.testing.assert_allclose(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("isa", nst.backend.cpu.isas())
@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("per_class", [2, 25, 75])
def test_larger_batches_agree_with_the_reference(isa, mining, per_class):
    """Beyond a block of rows (112) and a row of vectors."""
    data = np.random.default_rng(8).standard_normal((150, 5))
    labels = np.random.default_rng(9).permutation(np.arange(150) // per_class)
    before, results = nst.get_isa(), []
    nst.set_isa(isa)
    for backend in BACKENDS:
        z = nst.tensor(data, requires_grad=True)
        with nst.use_backend(backend):
            loss = batch_triplet_loss(z, labels, 0.7, mining)
            loss.backward()
        results.append((loss.item(), z.grad))
    nst.set_isa(before)
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("labels", [[3, 3, 3, 3], [1, 2, 3, 4], []])
def test_no_valid_triplet_is_zero_with_zero_gradient(backend, mining, reduction, labels):
    z = nst.tensor(np.ones((len(labels), 3), np.float32), requires_grad=True)
    with nst.use_backend(backend):
        loss = batch_triplet_loss(z, np.array(labels, int), 0.2, mining, reduction)
        loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(to_host(z.grad), 0)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("mining", MININGS)
def test_identical_points_have_loss_margin_and_no_gradient(backend, mining):
    z = nst.tensor(np.full((6, 4), 0.3, np.float32), requires_grad=True)
    with nst.use_backend(backend):
        loss = batch_triplet_loss(z, [0, 0, 1, 1, 2, 2], 0.2, mining)
        loss.backward()
    assert loss.item() == pytest.approx(0.2)
    np.testing.assert_allclose(to_host(z.grad), 0, atol=1e-6)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("mining", MININGS)
def test_nothing_active_is_zero(backend, mining):
    z = nst.tensor(np.array([[0.0], [0.0], [9.0], [9.0]]), requires_grad=True)
    with nst.use_backend(backend):
        loss = batch_triplet_loss(z, [0, 0, 1, 1], 0.2, mining, "mean_active")
        loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(to_host(z.grad), 0)


@pytest.mark.parametrize("mining", MININGS)
def test_nan_is_not_hidden(mining):
    z = np.random.default_rng(0).standard_normal((20, 3))
    z[4, 1] = np.nan
    assert np.isnan(batch_triplet_loss(z, np.arange(20) // 2, 0.2, mining))


@pytest.mark.parametrize("mining", MININGS)
def test_nan_makes_the_gradient_nan(mining):
    data = np.random.default_rng(0).standard_normal((20, 3))
    data[4, 1] = np.nan
    z = nst.tensor(data, requires_grad=True)
    batch_triplet_loss(z, np.arange(20) // 2, 0.2, mining).backward()
    assert np.isnan(z.grad).all()


@pytest.mark.parametrize("isa", nst.backend.cpu.isas())
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("batch", [2, 15, 31, 32, 33, 63, 65, 97])
def test_batches_around_a_square(isa, kind, mining, batch):
    """Squares of 32 rows, vectors of 2 to 16: values, gradients, and the same bits for 1, 2 and 3 threads."""
    rng = np.random.default_rng(10)
    data, labels = rng.standard_normal((batch, 6)), rng.integers(0, 3, batch)
    exact = nst.tensor(data.astype(kind).astype(np.float64), requires_grad=True)
    with nst.use_backend("reference"):
        expected = batch_triplet_loss(exact, labels, 4.0, mining, "mean")
        expected.backward()
    before, found = nst.get_isa(), []
    nst.set_isa(isa)
    for threads in (1, 2, 3):
        nst.set_num_threads(threads)
        z = nst.tensor(data.astype(kind), requires_grad=True)
        loss = batch_triplet_loss(z, labels, 4.0, mining, "mean")
        loss.backward()
        found.append((loss.data.tobytes(), z.grad.tobytes()))
    nst.set_isa(before)
    assert found[0] == found[1] == found[2]
    tolerance = 1e-5 if kind is np.float32 else 1e-12
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    size = np.abs(exact.grad).max(initial=0)
    np.testing.assert_allclose(z.grad, exact.grad, atol=tolerance * max(size, 1e-30))


@pytest.mark.parametrize("mining", MININGS)
def test_order_of_the_batch_does_not_matter(mining):
    """The kernel sorts by class; labels in any order give the same loss, and each row its own gradient."""
    rng = np.random.default_rng(11)
    data, labels = rng.standard_normal((90, 7)), np.repeat([9, 2, 5, -4, 7], 18)
    shuffled = rng.permutation(90)
    plain, mixed = nst.tensor(data, requires_grad=True), nst.tensor(data[shuffled], requires_grad=True)
    losses = [batch_triplet_loss(plain, labels, 1.0, mining), batch_triplet_loss(mixed, labels[shuffled], 1.0, mining)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-13)
    np.testing.assert_allclose(mixed.grad, plain.grad[shuffled], rtol=1e-10, atol=1e-13)


def test_gradient_is_that_of_the_values_given():
    """It is computed with the loss: what happens to the batch afterwards, or a second pass, does not change it."""
    z = nst.tensor(np.random.default_rng(12).standard_normal((12, 4)), requires_grad=True)
    loss = batch_triplet_loss(z, np.arange(12) // 3, 3.0)
    loss.backward(retain_graph=True)
    first = z.grad.copy()
    assert np.abs(first).max() > 0
    z.data[...] = 0
    z.zero_grad()
    loss.backward(np.array(2.0))
    np.testing.assert_array_equal(z.grad, 2 * first)


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.int64])
def test_labels_of_any_integer_type(kind):
    z = np.random.default_rng(1).standard_normal((6, 3))
    labels = np.array([100, 5, 100, 7, 5, 5])
    expected = batch_triplet_loss(z, [2, 0, 2, 1, 0, 0])
    assert batch_triplet_loss(z, labels.astype(kind)) == expected
    assert batch_triplet_loss(z, nst.tensor(labels.astype(kind))) == expected


def test_large_batch():
    """b³ numbers would be 4 GB here."""
    rng = np.random.default_rng(2)
    z = nst.tensor(0.1 * rng.standard_normal((1024, 128)).astype(np.float32), requires_grad=True)
    labels = np.arange(1024) // 4
    loss = batch_triplet_loss(z, labels, 0.2)
    loss.backward()
    d = np.sum(z.data**2, 1)[:, None] + np.sum(z.data**2, 1) - 2 * z.data.astype(np.float64) @ z.data.T
    hinges = [d[a, p] + 0.2 - d[a][labels != labels[a]] for a in range(1024) for p in range(1024)
              if labels[a] == labels[p] and a != p]  # fmt: skip
    losses = np.maximum(np.concatenate(hinges), 0)
    assert loss.item() == pytest.approx(losses.sum() / np.count_nonzero(losses), rel=1e-5)
    stats = triplet_stats(z, labels, 0.2)
    assert stats.triplets == losses.size == 1024 * 3 * 1020
    assert stats.active == pytest.approx(np.count_nonzero(losses), rel=1e-5)
    assert np.isfinite(z.grad).all()
    np.testing.assert_allclose(z.grad.sum(0), 0, atol=1e-5)  # moving all points together changes nothing


@pytest.mark.parametrize("backend", ALL)
def test_given_triplets(backend):
    a, p = np.zeros((3, 1)), np.array([[1.0], [2.0], [1.0]])
    n = np.array([[2.0], [1.0], [1.5]])
    losses = [0.0, 4.0 - 1.0 + 1.25, 1.0 - 2.25 + 1.25]  # closed, open, exactly at the hinge
    assert losses[2] == 0
    with nst.use_backend(backend):
        for reduction, value in (("sum", 4.25), ("mean", 4.25 / 3), ("mean_active", 4.25)):
            tensors = [nst.tensor(x, requires_grad=True) for x in (a, p, n)]
            loss = triplet_loss(*tensors, margin=1.25, reduction=reduction)
            loss.backward()
            assert loss.item() == pytest.approx(value)
            share = value / 4.25
            for t, g in zip(tensors, ([0, -2, 0], [0, 4, 0], [0, -2, 0]), strict=True):
                np.testing.assert_allclose(to_host(t.grad).ravel(), np.array(g) * share)


def test_stats():
    z = np.array([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0], [4.0, 3.0]])
    stats = triplet_stats(z, [0, 0, 1, 2], margin=8.0)
    # anchors 0 and 1: positive at 9, negatives at 16 and 25; open where 9 + 8 > distance
    assert (stats.triplets, stats.active, stats.active_fraction) == (4, 2, 0.5)
    assert stats.mean_positive_distance == 9
    assert stats.mean_negative_distance == pytest.approx((4 * 16 + 4 * 25 + 2 * 9) / 10)
    assert stats.mean_norm == pytest.approx((0 + 3 + 4 + 5) / 4)
    assert not stats.collapsed
    assert str(stats) == (
        "2 of 4 triplets active (50.0 %), mean squared distance 9 to positives, 18.2 to negatives, mean norm 3"
    )


@pytest.mark.parametrize(("spread", "collapsed"), [(0.0, True), (0.001, True), (0.1, False), (1.0, False)])
def test_collapse(spread, collapsed):
    z = 0.5 + spread * np.random.default_rng(3).standard_normal((12, 8)).astype(np.float32)
    stats = triplet_stats(z, np.arange(12) // 3, margin=0.2)
    assert stats.collapsed is collapsed
    assert str(stats).endswith("COLLAPSED") is collapsed


def test_stats_without_triplets():
    stats = triplet_stats(np.ones((3, 2), np.float32), [1, 1, 1])
    assert (stats.triplets, stats.active, stats.active_fraction, stats.collapsed) == (0, 0, 0.0, False)
    assert np.isnan(stats.mean_negative_distance)
    empty = triplet_stats(np.ones((0, 2), np.float32), np.zeros(0, int))
    assert empty.triplets == 0
    assert np.isnan(empty.mean_norm)


@pytest.mark.parametrize("function", [batch_triplet_loss, triplet_stats])
def test_refuses_labels(function):
    z = np.zeros((3, 2), np.float32)
    with pytest.raises(DTypeError, match=rf"\[{function.__name__}\] expects whole numbers as labels, got float64"):
        function(z, [0.0, 1.0, 1.0])
    with pytest.raises(ShapeError, match=rf"\[{function.__name__}\] axis b must agree in b d, b, got \(3, 2\), \(2,\)"):
        function(z, [0, 1])
    with pytest.raises(ShapeError, match=rf"\[{function.__name__}\] axis b must agree in b d, b, got \(3, 2\), \(0,\)"):
        function(z, [])  # which says nothing about its type
    function(z[:0], [])
    with pytest.raises(DTypeError, match=rf"\[{function.__name__}\] .*got int64"):
        function(np.zeros((2, 2), np.int64), [0, 1])


def test_refuses_options():
    z, labels = np.zeros((3, 2), np.float32), [0, 1, 1]
    with pytest.raises(ArgumentError, match="mining to be one of batch_all, semi_hard, batch_hard, got 'hard'"):
        batch_triplet_loss(z, labels, mining="hard")
    with pytest.raises(ArgumentError, match="reduction to be one of sum, mean, mean_active, got None"):
        batch_triplet_loss(z, labels, reduction=None)
    with pytest.raises(ArgumentError, match=r"\[triplet_loss\] expects reduction"):
        triplet_loss(z, z, z, reduction="none")
    for margin in (-0.1, float("nan"), float("inf"), "0.2", True):
        with pytest.raises(ArgumentError, match="margin of at least 0, got"):
            triplet_loss(z, z, z, margin=margin)
    with pytest.raises(ShapeError, match="axis n must agree"):
        triplet_loss(z, z, z[:2])


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("points", [[1e30, -1e30, 2e30, 5e30], [0.0, 1e30, 2e30, 3e30]])
def test_a_positive_at_an_infinite_distance_is_no_success(backend, mining, points):
    """A run that diverged must not look as one that has nothing left to learn."""
    z = nst.tensor(np.array(points, np.float32)[:, None], requires_grad=True)
    with nst.use_backend(backend), np.errstate(all="ignore"):
        loss = batch_triplet_loss(z, [0, 0, 1, 1], 0.2, mining)
    assert np.isnan(loss.item())


def test_infinite_negatives_alone_are_far_away():
    z = nst.tensor(np.array([[0.0], [0.0], [1e30], [2e30]], np.float64), requires_grad=True)
    with np.errstate(all="ignore"):
        assert batch_triplet_loss(z, [0, 0, 1, 2], 0.2).item() == 0


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_no_number_has_not_collapsed(odd):
    with np.errstate(all="ignore"):
        assert not triplet_stats(np.array([[0, 0], [0, 0], [odd, 0]], np.float32), [0, 0, 1]).collapsed
