"""Intervals, needed numbers, the logistic curve and calibration, against definitions, tables and simulation."""

from __future__ import annotations

import itertools
import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from nstcore import faces
from nstcore.errors import ArgumentError, ShapeError
from nstcore.faces import calibrate
from nstcore.faces._statistics import (
    Rate,
    Sample,
    allowed_events,
    clopper_pearson,
    fit_logistic,
    needed_trials,
)
from nstcore.faces.calibrate import over_people
from nstcore.faces.pairs import Pairs, all_pairs, between, pair_rows
from nstcore.faces.several import several_photographs

Array = NDArray[Any]
SAME, DIFFERENT = 300, 5000


@pytest.fixture(scope="module")
def distances() -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0.45, 0.08, SAME), rng.normal(0.8, 0.08, DIFFERENT)])
    return values, np.arange(SAME + DIFFERENT) < SAME


@pytest.mark.parametrize(("events", "trials"), [(0, 7), (7, 7), (1, 10), (37, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_inverts_the_binomial_test(events: int, trials: int, confidence: float) -> None:
    """Clopper and Pearson's definition: at either end, what was seen has a tail probability of half of α."""
    low, high = clopper_pearson(events, trials, confidence)
    half = (1 - confidence) / 2
    assert (low == 0) if events == 0 else stats.binom.sf(events - 1, trials, low) == pytest.approx(half, rel=1e-9)
    assert (high == 1) if events == trials else stats.binom.cdf(events, trials, high) == pytest.approx(half, rel=1e-9)
    interval = stats.binomtest(events, trials).proportion_ci(confidence, "exact")
    assert (low, high) == pytest.approx((interval.low, interval.high), rel=1e-9)


@pytest.mark.parametrize(("rate", "needed"), [(0.001, 2995), (0.01, 299), (0.1, 29), (0.5, 5)])
def test_the_needed_number_is_the_smallest_that_shows_the_rate(rate: float, needed: int) -> None:
    assert needed_trials(rate, 0.95) == needed
    assert (1 - rate) ** needed <= 0.05 < (1 - rate) ** (needed - 1)
    assert (allowed_events(rate, needed, 0.95), allowed_events(rate, needed - 1, 0.95)) == (0, -1)


@pytest.mark.parametrize("trials", [29, 46, 100, 999])
def test_the_allowed_events_are_the_most_that_keep_the_limit(trials: int) -> None:
    allowed = allowed_events(0.1, trials, 0.95)
    assert stats.binom.cdf(allowed, trials, 0.1) <= 0.05 < stats.binom.cdf(allowed + 1, trials, 0.1)


def test_the_logistic_curve_is_the_maximum_of_the_weighted_likelihood(distances: tuple[Array, Array]) -> None:
    slope, offset = fit_logistic(Sample(*distances))
    values, same = distances
    target = np.where(same, (SAME + 1) / (SAME + 2), 1 / (DIFFERENT + 2))
    weight = np.where(same, 1 / SAME, 1 / DIFFERENT)

    def likelihood(a: float, b: float) -> float:
        p = 1 / (1 + np.exp(a * values + b))
        return float(np.sum(weight * (target * np.log(p) + (1 - target) * np.log(1 - p))))

    best = likelihood(slope, offset)
    for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
        assert likelihood(slope + 0.3 * np.cos(angle), offset + 0.2 * np.sin(angle)) < best


def test_pairs_that_separate_give_a_finite_slope_that_grows_with_their_number() -> None:
    slopes = []
    for count in (5, 50, 500):
        values = np.concatenate([np.linspace(0.3, 0.5, count), np.linspace(0.7, 0.9, count)])
        slope, offset = fit_logistic(Sample(values, values < 0.6))
        assert -offset / slope == pytest.approx(0.6, abs=1e-6)
        slopes.append(slope)
    assert 0 < slopes[0] < slopes[1] < slopes[2] < 200


def test_every_sample_weighs_the_same(distances: tuple[Array, Array]) -> None:
    """The curve over a sample and its copy, shifted, lies halfway."""
    values, same = distances
    shifted = Sample(values + 0.1, same)
    one, other, both = (
        fit_logistic(Sample(*distances)),
        fit_logistic(shifted),
        fit_logistic(Sample(*distances), shifted),
    )
    middle = [-b / a for a, b in (one, both, other)]
    assert middle[0] < middle[1] < middle[2]
    assert middle[1] == pytest.approx((middle[0] + middle[2]) / 2, abs=0.005)


def test_a_curve_that_runs_the_wrong_way_is_refused(distances: tuple[Array, Array]) -> None:
    with pytest.raises(ArgumentError, match="the opposite"):
        fit_logistic(Sample(-distances[0], distances[1]))


def test_calibration_keeps_the_rate_in_new_data() -> None:
    """At 90 %, about nine of ten thresholds keep the rate among the distances that they were not chosen on."""
    rng = np.random.default_rng(0)
    same = np.arange(700) < 100
    kept = []
    for _ in range(200):
        values = np.concatenate([rng.normal(0.4, 0.1, 100), rng.normal(0.8, 0.1, 600)])
        threshold = calibrate(values, same, false_accept_rate=0.02, confidence=0.9).calibration.threshold
        kept.append(stats.norm.cdf(threshold, 0.8, 0.1) <= 0.02)
    assert 0.85 <= np.mean(kept) <= 0.98


def test_the_report_of_a_calibration(distances: tuple[Array, Array]) -> None:
    report = calibrate(*distances, source="made up")
    found, (values, same) = report.calibration, distances
    assert (found.calibrated, found.same, found.different, found.source) == (True, SAME, DIFFERENT, "made up")
    assert found.false_accept_rate == 0.001
    accepted = values <= found.threshold
    assert report.false_accept == Rate.of(int((accepted & ~same).sum()), DIFFERENT, 0.95)
    assert report.false_reject == Rate.of(int((~accepted & same).sum()), SAME, 0.95)
    assert report.false_accept.events == allowed_events(0.001, DIFFERENT, 0.95)
    assert report.people is None
    # one more pair of two people would pass at the next distance
    assert np.sum(values[~same] <= np.min(values[~same & ~accepted])) == report.false_accept.events + 1
    json.dumps(report.to_json(), allow_nan=False)


def test_a_rate_that_the_number_of_pairs_cannot_show_is_refused(distances: tuple[Array, Array]) -> None:
    values, same = distances
    with pytest.raises(ArgumentError, match=r"at least 2995 pairs .* got 2994; 2994 can show 0\.001 at best"):
        calibrate(values[: SAME + 2994], same[: SAME + 2994])
    calibrate(values[: SAME + 2995], same[: SAME + 2995])
    with pytest.raises(ArgumentError, match="pairs of one person too, got none"):
        calibrate(values[SAME:], same[SAME:])
    with pytest.raises(ArgumentError, match="got 0; there are none"):
        calibrate(values[:SAME], same[:SAME])


@pytest.mark.parametrize(
    ("values", "labels", "options", "error", "words"),
    [
        (np.zeros((2, 2, 2)), [0, 1], {}, ShapeError, "expects distances"),
        (np.zeros(3), [0, 1, 1], {}, ShapeError, "bool labels"),
        (np.zeros((3, 4), np.float32), ["a", "b"], {}, ShapeError, "as many labels"),
        (np.full((2, 4), np.nan), ["a", "b"], {}, ArgumentError, "finite encodings"),
        (np.full(3, -1.0), np.array([True, False, False]), {}, ArgumentError, "at least 0"),
        (np.zeros(4000), np.arange(4000) < 9, {}, ArgumentError, "under two names"),
        (np.zeros(3), np.array([True, False, False]), {"false_accept_rate": 0}, ArgumentError, "between 0 and 1"),
        (np.zeros(3), np.array([True, False, False]), {"confidence": 1}, ArgumentError, "between 0 and 1"),
    ],
)
def test_what_means_nothing_is_refused(
    values: Array, labels: Any, options: dict[str, float], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        calibrate(values, labels, **options)


def few_people(people: int, photographs: int, seed: int) -> tuple[Array, list[str]]:
    """Encodings of people of whom two look alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 0.12, (people, 32))
    centres[1] = centres[0] + 0.02
    points = np.repeat(centres, photographs, axis=0) + rng.normal(0, 0.04, (people * photographs, 32))
    return points.astype(np.float32), [f"p{i}" for i in range(people) for _ in range(photographs)]


def test_drawing_people_anew_is_wider_than_drawing_pairs() -> None:
    """Two people who look alike make all false accepts: pairs alone would call the rate well known."""
    encodings, labels = few_people(20, 10, seed=1)
    report = calibrate(encodings, labels, false_accept_rate=0.01)
    assert report.people == 20
    assert report.false_accept_people is not None
    low, high = report.false_accept_people
    assert low < report.false_accept.low / 4
    assert high > 2 * report.false_accept.high
    assert report.false_accept.events > 0


def test_without_an_error_there_is_nothing_to_draw_anew() -> None:
    rng = np.random.default_rng(5)
    points = np.repeat(rng.normal(0, 1, (10, 32)), 4, axis=0) + rng.normal(0, 0.01, (40, 32))
    report = calibrate(points, [i // 4 for i in range(40)], false_accept_rate=0.005)
    assert (report.false_accept.events, report.false_accept_people, report.false_reject_people) == (0, None, None)


def test_pairs_of_people_are_counted_as_often_as_both_are_drawn() -> None:
    """The share of a draw against counting pair by pair, for one draw."""
    rng = np.random.default_rng(2)
    points = rng.normal(0, 1, (12, 3))
    pairs = all_pairs(points, [i // 3 for i in range(12)])
    chosen = pairs.where(~pairs.same)
    event = chosen.distances < np.median(chosen.distances)
    times = np.random.default_rng(0).multinomial(4, np.full(4, 0.25), 1000)
    rates = []
    for draw in times:
        weight = draw[chosen.left] * draw[chosen.right]
        if weight.sum():
            rates.append(weight[event].sum() / weight.sum())
    assert over_people(chosen, event, 0.9) == pytest.approx(np.quantile(rates, [0.05, 0.95]))


# ---- pairs ----


def test_all_pairs_are_every_combination_once() -> None:
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(9, 5)).astype(np.float32), np.array(list("aabbbcdda"))
    pairs = all_pairs(points, labels)
    wanted = [
        (math.dist(points[i].astype(float), points[j].astype(float)), labels[i] == labels[j])
        for i in range(9)
        for j in range(i + 1, 9)
    ]
    np.testing.assert_allclose(pairs.distances, [d for d, _ in wanted], rtol=1e-12)
    assert pairs.same.tolist() == [bool(same) for _, same in wanted]
    assert pairs.people == 4


def test_too_many_pairs_of_two_people_are_drawn_from() -> None:
    points, labels = np.arange(60.0).reshape(60, 1), np.arange(60) // 3
    full, drawn = all_pairs(points, labels), all_pairs(points, labels, most=500)
    assert (full.same.sum(), (~full.same).sum()) == (60, 1710)
    assert (drawn.same.sum(), (~drawn.same).sum()) == (60, 500)
    assert np.all((drawn.left == drawn.right) == drawn.same)
    again = all_pairs(points, labels, most=500)
    np.testing.assert_array_equal(drawn.distances, again.distances)
    assert len({*zip(drawn.left.tolist(), drawn.right.tolist(), drawn.distances.tolist(), strict=True)}) > 450


@pytest.mark.parametrize("most", [3, 100, 500, 1000])
def test_drawn_pairs_are_different_ones_with_equal_chances(most: int) -> None:
    """Of both kinds, whether few or most of them are drawn; every pair of two photographs can be met."""
    order = np.random.default_rng(1).permutation(48)
    members = np.array([20, 1, 9, 18])
    left, right = pair_rows(order, members, most)
    person = np.empty(48, int)
    person[order] = np.repeat(np.arange(4), members)
    same = person[left] == person[right]
    all_same = sum(m * (m - 1) // 2 for m in members.tolist())
    assert (same.sum(), (~same).sum()) == (min(most, all_same), min(most, 48 * 47 // 2 - all_same))
    assert (left < right).all()
    assert len(set(zip(left.tolist(), right.tolist(), strict=True))) == len(left)


def test_many_photographs_of_few_people_take_little_memory() -> None:
    """Five billion pairs, of which a thousand of either kind are taken."""
    order, members = np.arange(100_000), np.full(50, 2000)
    tracemalloc.start()
    left, right = pair_rows(order, members, 1000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    same = left // 2000 == right // 2000
    assert (same.sum(), (~same).sum()) == (1000, 1000)
    assert most < 50e6
    assert 20 < np.median(right - left) < 60_000


@pytest.mark.parametrize("labels", [["a", None, "b"], [1, None, 2], [1, "a", ("b", 2)]])
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[Any]) -> None:
    with pytest.raises(ArgumentError, match=r"expects (a label for each|labels of one kind)"):
        all_pairs(np.eye(3), labels)


def test_the_rate_against_several_photographs_is_that_of_all_choices() -> None:
    """Counted choice by choice."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(5), [1, 3, 4, 4, 5])
    points = rng.normal(0, 1, (5, 2))[labels] + rng.normal(0, 0.8, (len(labels), 2))
    for n, rate in several_photographs(points, labels, 1.0):
        cases = [
            min(math.dist(points[i], points[j]) for j in choice) <= 1.0
            for i in range(len(labels))
            for p in set(range(5)) - {labels[i]}
            for choice in itertools.combinations(np.flatnonzero(labels == p), n)
        ]
        weights = [
            1 / math.comb(int(np.sum(labels == p)), n)
            for i in range(len(labels))
            for p in set(range(5)) - {labels[i]}
            for _ in itertools.combinations(np.flatnonzero(labels == p), n)
        ]
        assert rate == pytest.approx(np.average(cases, weights=weights))
    assert [n for n, _ in several_photographs(points, labels, 1.0)] == [1, 2, 3, 5]
    report = calibrate(points, labels, false_accept_rate=0.2)
    assert report.several == several_photographs(points, labels, report.calibration.threshold)


def test_distances_are_computed_in_blocks_of_any_size() -> None:
    points, index = np.random.default_rng(0).normal(size=(2, 4)), np.zeros(70_000, np.intp)
    pairs = between(points, np.arange(2), index, index + 1)
    assert isinstance(pairs, Pairs)
    assert len(np.unique(pairs.distances)) == 1


def test_the_calibration_that_comes_with_the_encoder() -> None:
    """Its facts agree with each other: the curve passes one half at the threshold, and says where it comes from."""
    shipped = faces.load_encoder().calibration
    assert not shipped.calibrated
    assert shipped.probability(shipped.threshold) == pytest.approx(0.5, abs=0.06)
    assert shipped.probability(shipped.threshold - 0.01) > 0.5 > shipped.probability(shipped.threshold + 0.01)
    assert (shipped.same, shipped.different) == (14 + 1800, 91 + 78_000)
    for words in ("15 photographs of 6 people", "400 photographs of 40 people", "tools/fit_calibration.py"):
        assert words in shipped.source
