"""A style as correlations: the numbers against their definition, the pairs against a search, and pictures."""

from __future__ import annotations

import numpy as np
import pytest

import nstcore as nst
from nstcore import models, nn
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError
from nstcore.images import load
from nstcore.visualize import Correlations, correlations, style_difference
from nstcore.visualize.network import activations
from nstcore.visualize.pages import matrix_picture


@pytest.fixture(scope="module")
def two() -> list[Correlations]:
    net = models.vgg16()
    return [correlations(net, "conv2_1", load(picture_path(name), size=64)) for name in ("chelsea", "coffee")]


def test_numbers(two: list[Correlations]) -> None:
    with nst.no_grad():
        photo = nst.Tensor(load(picture_path("chelsea"), size=64)[None])
        a = activations(models.vgg16(), photo, "conv2_1").data[0].astype(np.float64)
    flat = a.reshape(-1, a.shape[2])
    gram = flat.T @ flat / len(flat)
    np.testing.assert_allclose(two[0].gram, gram, rtol=1e-5, atol=1e-6 * gram.max())
    lengths = np.sqrt(np.maximum(np.diagonal(gram), 1e-300))
    expected = gram / np.outer(lengths, lengths)
    alive = lengths > 1e-3 * lengths.max()
    np.testing.assert_allclose(two[0].correlations[np.ix_(alive, alive)], expected[np.ix_(alive, alive)], atol=1e-4)
    assert two[0].correlations.min() >= 0
    assert two[0].correlations.max() <= 1


def test_together_is_where_the_entry_comes_from(two: list[Correlations]) -> None:
    for first, second in ((3, 90), (17, 17), (127, 0)):
        product = two[0].together(first, second)
        assert product.shape == two[0].activations.shape[:2]
        assert product.mean(dtype=np.float64) == pytest.approx(two[0].gram[first, second], rel=1e-4, abs=1e-3)


def test_pairs_are_the_most_correlated(two: list[Correlations]) -> None:
    found, c = two[0].pairs(12), two[0].correlations
    energy = np.diagonal(two[0].gram)
    loud = energy > 0.02 * energy.mean()
    everything = sorted(
        ((-c[i, j], i, j) for i in range(128) for j in range(i + 1, 128) if loud[i] and loud[j]), key=lambda p: p[0]
    )
    uses, expected = dict.fromkeys(range(128), 0), []
    for score, i, j in everything:
        if max(uses[i], uses[j]) < 2 and len(expected) < 12:
            uses[i] += 1
            uses[j] += 1
            expected.append((i, j, -score))
    assert [(p.first, p.second, p.correlation) for p in found] == expected


def test_channels_that_never_fire() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1, activation="relu"))
    net.parts[0].weight.data[:2] = np.array([1.0, 2.0]).reshape(2, 1, 1, 1)
    found = correlations(net, "parts.0", np.random.default_rng(0).random((6, 6, 3)))
    assert np.isfinite(found.correlations).all()
    assert [(p.first, p.second) for p in found.pairs()] == [(0, 1)]
    assert found.pairs()[0].correlation == pytest.approx(1)
    assert (found.correlations[2:] == 0).all()


def test_the_order_puts_together_what_fires_together() -> None:
    """Channels of two kinds, mixed: in the order each kind is in one run."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1, activation="relu"))
    kinds = np.array([0, 1, 0, 1, 1, 0, 1, 0])
    rng = np.random.default_rng(0)
    for channel, kind in enumerate(kinds):
        net.parts[0].weight.data[channel, 0, 0, 2 * kind] = 1 + rng.random()
    picture = np.zeros((8, 8, 3))
    picture[:, :4, 0], picture[:, 4:, 2] = rng.random((8, 4)), rng.random((8, 4))
    order = correlations(net, "parts.0", picture).order
    assert sorted(order.tolist()) == list(range(8))
    assert np.count_nonzero(np.diff(kinds[order])) == 1


def test_what_makes_two_styles_differ(two: list[Correlations]) -> None:
    one, other = two
    squares = (one.gram - other.gram) ** 2
    found = style_difference(one, other, 5)
    first = found[0]
    shares = (2 * np.triu(squares, 1) + np.diag(np.diagonal(squares))) / squares.sum()
    assert shares.sum() == pytest.approx(1)
    assert (first.first, first.second) == np.unravel_index(np.argmax(shares), shares.shape)
    for pair in found:
        assert pair.score == pytest.approx(shares[pair.first, pair.second])
        assert pair.correlation == one.correlations[pair.first, pair.second]
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    assert style_difference(one, one) == []
    # The share is that of the style cost, too, which is symmetric in the two pictures.
    assert {(p.first, p.second) for p in style_difference(other, one, 5)} == {(p.first, p.second) for p in found}


def test_a_channels_energy_is_part_of_a_style() -> None:
    """Two channels that are never on together: what differs is how much each of them fires, alone."""
    net = nn.Sequential(nn.Conv2d(3, 2, 1, activation="relu"))
    net.parts[0].weight.data[:] = np.array([[1, 0, 0], [0, 1, 0]]).reshape(2, 1, 1, 3)
    pictures = np.zeros((2, 4, 4, 3))
    pictures[0, :2, :, 0], pictures[1, :2, :, 0], pictures[:, 2:, :, 1] = 1.0, 0.5, 1.0
    one, other = (correlations(net, "parts.0", picture) for picture in pictures)
    (pair,) = style_difference(one, other)
    assert (pair.first, pair.second) == (0, 0)
    assert (pair.correlation, pair.score) == pytest.approx((1, 1))


def test_of_one_layer_only(two: list[Correlations]) -> None:
    other = correlations(models.vgg16(), "conv2_2", load(picture_path("coffee"), size=32))
    with pytest.raises(ArgumentError, match="correlations of one layer, got conv2_1, conv2_2"):
        style_difference(two[0], other)


def test_colours_of_a_matrix() -> None:
    picture = matrix_picture(np.array([[1.0, 0.0], [-1.0, 0.5]]))
    np.testing.assert_array_equal(picture[0, 0], [178, 24, 43])
    np.testing.assert_array_equal(picture[0, 1], [255, 255, 255])
    np.testing.assert_array_equal(picture[1, 0], [33, 102, 172])
    assert picture[1, 1, 0] > picture[1, 1, 1] > 24
