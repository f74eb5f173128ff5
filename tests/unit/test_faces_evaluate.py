"""Evaluation against worked examples and the definitions, taken word by word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nstcore import _chart
from nstcore.errors import ArgumentError, OutputError
from nstcore.faces import Calibration, evaluate, report
from nstcore.faces.evaluate import cross_validated, evaluate_pairs, roc
from nstcore.faces.folders import read_pairs
from nstcore.faces.identification import open_set
from nstcore.faces.pairs import Pairs, all_pairs, in_order

Array = NDArray[Any]
CALIBRATION = Calibration(0.5, 20.0, -10.0, False, 1, 1, "made up")

grid = st.integers(0, 8).map(lambda n: n / 8)  # few values, so that distances are often equal
samples = st.tuples(st.lists(grid, min_size=1, max_size=12), st.lists(grid, min_size=1, max_size=12))


def arrays(sample: tuple[list[float], list[float]]) -> tuple[Array, Array]:
    same, different = sample
    return np.array(same + different), np.arange(len(same) + len(different)) < len(same)


def people(count: int, photographs: int, seed: int = 0, spread: float = 0.1) -> tuple[Array, Array]:
    """Encodings of people around centres of their own."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), photographs)
    return rng.normal(0, 0.2, (count, 16))[labels] + rng.normal(0, spread, (len(labels), 16)), labels


# ---- the curve ----


@settings(max_examples=100, deadline=None)
@given(samples)
def test_the_curve_counts_what_is_accepted(sample: tuple[list[float], list[float]]) -> None:
    distances, same = arrays(sample)
    curve = roc(distances, same)
    assert curve.thresholds[1:].tolist() == sorted(set(distances.tolist()))
    for threshold, far, tar in zip(curve.thresholds, curve.false_accept, curve.true_accept, strict=True):
        assert far == pytest.approx(np.mean(distances[~same] <= threshold))
        assert tar == pytest.approx(np.mean(distances[same] <= threshold))


@settings(max_examples=100, deadline=None)
@given(samples)
def test_the_area_is_the_share_of_pairs_in_the_right_order(sample: tuple[list[float], list[float]]) -> None:
    same, different = sample
    order = [1.0 if s < d else 0.5 if s == d else 0.0 for s in same for d in different]
    assert roc(*arrays(sample)).auc == pytest.approx(np.mean(order))


@settings(max_examples=100, deadline=None)
@given(samples)
def test_at_the_equal_error_rate_both_rates_are_equal(sample: tuple[list[float], list[float]]) -> None:
    """On the straight lines between the points, walked along in small steps."""
    curve = roc(*arrays(sample))
    place = np.linspace(0, len(curve.thresholds) - 1, 20_001)
    far, tar = (np.interp(place, np.arange(len(v)), v) for v in (curve.false_accept, curve.true_accept))
    nearest = np.argmin(np.abs(far - (1 - tar)))
    assert curve.eer == pytest.approx(far[nearest], abs=2e-3)


@settings(max_examples=100, deadline=None)
@given(samples)
def test_no_threshold_is_better_than_the_best(sample: tuple[list[float], list[float]]) -> None:
    distances, same = arrays(sample)

    def accuracy(threshold: float) -> float:
        accepted = distances <= threshold
        return float(accepted[same].mean() + (~accepted[~same]).mean()) / 2

    found = roc(distances, same).best_threshold()
    assert accuracy(found) == pytest.approx(max(map(accuracy, [-1, *np.linspace(0, 1.1, 177)])))


def test_the_best_threshold_lies_in_the_middle_of_the_gap() -> None:
    assert roc(np.array([0.1, 0.3, 0.7, 0.9]), np.array([True, True, False, False])).best_threshold() == 0.5


def test_a_worked_example() -> None:
    """Same: 1, 2, 3, 6; different: 4, 5, 7, 8, 9. By hand: 18 of 20 in order, equal errors between 1/5 and 1/4."""
    distances = np.array([1.0, 2, 3, 6, 4, 5, 7, 8, 9]) / 10
    same = np.arange(9) < 4
    curve = roc(distances, same)
    assert curve.auc == pytest.approx(18 / 20)
    assert curve.eer == pytest.approx(0.25)  # accepted up to 0.5: 2/5 false; up to 0.4: 1/5 false, 1/4 missed
    assert curve.best_threshold() == pytest.approx(0.35)  # 3/4 accepted and 5/5 refused, 0.875; at 0.65 it is 0.8
    assert [curve.threshold_at(rate) for rate in (0.19, 0.2, 0.39, 0.4)] == [0.3, 0.4, 0.4, 0.6]
    assert curve.threshold_at(0.0) == 0.3


def test_both_kinds_of_pairs_are_needed() -> None:
    with pytest.raises(ArgumentError, match="got 0 and 3"):
        roc(np.zeros(3), np.zeros(3, bool))
    with pytest.raises(ArgumentError, match="got 3 and 0"):
        evaluate(np.zeros((3, 2)), ["a"] * 3, CALIBRATION)


# ---- folds ----


def test_a_fold_is_tried_with_the_threshold_of_the_others() -> None:
    """Two folds whose best thresholds are far apart: each is judged by the other's."""
    distances = np.array([0.1, 0.5, 0.6, 0.9, 0.1, 0.2, 0.3, 0.9])
    same = np.array([True, True, False, False, True, False, False, False])
    first = np.arange(8) < 4
    found = cross_validated(distances, same, [(~first, first), (first, ~first)])
    assert found.thresholds == pytest.approx((0.15, 0.55))
    assert found.accuracies == pytest.approx((0.75, (1 + 1 / 3) / 2))
    assert found.accuracy == pytest.approx(np.mean(found.accuracies))
    assert found.standard_error == pytest.approx(np.std(found.accuracies, ddof=1) / np.sqrt(2))


def test_the_folds_share_no_person() -> None:
    from nstcore.faces.evaluate import people_folds

    encodings, labels = people(25, 3)
    labels[-2:] = 30, 31  # two people with one photograph
    pairs = all_pairs(encodings, labels)
    folds = people_folds(pairs, in_order(encodings, labels)[1])
    assert len(folds) == 10
    tried = []
    for train, test in folds:
        inside, outside = (set(pairs.left[m]) | set(pairs.right[m]) for m in (test, train))
        assert not inside & outside
        assert pairs.same[test].any()
        assert not pairs.same[test].all()
        tried += sorted(inside)
    assert sorted(tried) == sorted({*pairs.left.tolist(), *pairs.right.tolist()})


@pytest.mark.parametrize(("count", "folds"), [(3, None), (4, 2), (7, 3), (40, 10)])
def test_few_people_have_fewer_folds(count: int, folds: int | None) -> None:
    found = evaluate(*people(count, 3), CALIBRATION)
    assert (None if found.folds is None else len(found.folds.accuracies)) == folds


def test_names_and_order_change_nothing() -> None:
    """Folds, drawings and pairs that are drawn: the same photographs, called otherwise and in another order."""
    encodings, labels = people(25, 3, spread=0.2)
    order = np.random.default_rng(5).permutation(len(labels))
    names = np.array([f"p{(7 * label + 3) % 25}" for label in labels])
    one, two = evaluate(encodings, labels, CALIBRATION), evaluate(encodings[order], names[order], CALIBRATION)
    assert one.folds is not None
    assert one.folds == two.folds
    assert one.identification == two.identification
    a, b = (all_pairs(e, n, most=40) for e, n in ((encodings, labels), (encodings[order], names[order])))
    np.testing.assert_allclose(np.sort(a.distances), np.sort(b.distances))


@pytest.mark.parametrize("rates", [(0,), (1.0,), ("a",)])
def test_rates_outside_0_and_1_are_refused(rates: Any) -> None:
    with pytest.raises(ArgumentError, match="false-accept rate between 0 and 1"):
        evaluate(*people(4, 3), CALIBRATION, false_accept_rates=rates)


# ---- rates ----


def test_rates_that_the_number_of_pairs_cannot_show_are_left_out() -> None:
    found = evaluate(*people(12, 3), CALIBRATION)  # 594 pairs of two people
    assert [v.rate is None for v in found.validation] == [False, False, True]
    pairs, second = found.pairs, found.validation[1]
    assert second.threshold == max(d for d in pairs.distances if np.mean(pairs.distances[~pairs.same] <= d) <= 0.01)
    assert second.rate is not None
    assert second.rate.rate == np.mean(pairs.distances[pairs.same] <= second.threshold)
    assert found.false_accept.rate == np.mean(pairs.distances[~pairs.same] <= 0.5)
    assert found.false_reject.rate == np.mean(pairs.distances[pairs.same] > 0.5)
    json.dumps(found.to_json(), allow_nan=False)


# ---- identification ----


def test_identification_is_that_of_the_definition() -> None:
    """Everything again with loops, from the same drawings."""
    encodings, labels = people(9, 4, seed=2, spread=0.16)
    labels[-3:] = 20, 21, 22  # three strangers with one photograph, and one person with one left
    number = np.unique(labels, return_inverse=True)[1]
    threshold = 0.8
    found = open_set(encodings, number, threshold, trials=5)
    assert found is not None
    rng = np.random.default_rng(0)
    several = np.flatnonzero(np.bincount(number) > 1)
    rank1, detection, alarms, at_tenth = [], [], [], []
    for _ in range(5):
        known = np.sort(rng.permutation(several)[: len(several) // 2])
        gallery = {p: rng.choice(np.flatnonzero(number == p)) for p in known}
        right, close, alarm, strangers = [], [], [], []
        for i in set(range(len(number))) - set(gallery.values()):
            near = {p: np.linalg.norm(encodings[i] - encodings[j]) for p, j in gallery.items()}
            best = min(near, key=lambda p: near[p])
            if number[i] in gallery:
                right.append(best == number[i])
                close.append(near[best])
            else:
                strangers.append(near[best])
                alarm.append(near[best] <= threshold)
        rank1.append(np.mean(right))
        detection.append(np.mean([r and d <= threshold for r, d in zip(right, close, strict=True)]))
        alarms.append(np.mean(alarm))
        tries = [t for t in [0.0, *close, *strangers] if np.mean([s <= t for s in strangers]) <= 0.1]
        at_tenth.append(max(np.mean([r and d <= t for r, d in zip(right, close, strict=True)]) for t in tries))
    assert found.known == len(several) // 2
    assert found.rank1 == pytest.approx(np.mean(rank1))
    assert found.detection == pytest.approx((np.mean(detection), np.std(detection, ddof=1)))
    assert found.false_alarm == pytest.approx((np.mean(alarms), np.std(alarms, ddof=1)))
    expected = np.mean(at_tenth) if found.unknown_probes >= 29 else None
    assert found.at_false_alarm == {0.1: pytest.approx(expected) if expected else None, 0.01: None}


def test_a_detection_rate_at_a_false_alarm_rate_needs_enough_strangers() -> None:
    few, many = (open_set(*people(n, 4), 0.5) for n in (6, 24))
    assert few is not None
    assert many is not None
    assert few.at_false_alarm == {0.1: None, 0.01: None}
    assert many.at_false_alarm[0.1] is not None
    assert open_set(*people(1, 4), 0.5) is None


# ---- LFW's list ----

FOLDS = "2\t1\nanna\t1\t2\nanna\t1\tbob\t1\nbob\t1\t3\ncarl o\t2\tbob\t3\n"


def test_lists_of_folds_and_of_one_part(tmp_path: Path) -> None:
    (tmp_path / "folds.txt").write_text(FOLDS)
    rows = [("anna", 1, "anna", 2, 0), ("anna", 1, "bob", 1, 0), ("bob", 1, "bob", 3, 1), ("carl o", 2, "bob", 3, 1)]
    assert read_pairs(tmp_path / "folds.txt") == rows
    (tmp_path / "part.txt").write_text("1\nanna 1 2\nanna 1 bob 1\n\n")
    assert read_pairs(tmp_path / "part.txt") == rows[:2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1: expects 'folds pairs'"),
        (b"two\n", "line 1"),
        (b"1\nanna 1 2\n", "expects 2 pairs after line 1, got 1"),
        (b"9999999999 9\n", "line 1"),
        (b"1\nanna 1 bob 2\nanna 1 bob 1\n", "line 2: expects 'name i j'"),
        (b"1\nanna 1 2\nanna 1 2\n", "line 3: expects 'name i other-name j'"),
        (b"1\nanna 1 2\nanna 1 anna 2\n", "line 3"),
        (b"1\nanna 1 1\nanna 1 bob 2\n", "line 2: expects two photographs"),
        (b"1\n../anna 1 2\nanna 1 bob 2\n", "line 2"),
        (b"1\n.. 1 2\nanna 1 bob 2\n", "line 2"),
        (b"1\nanna 0 2\nanna 1 bob 2\n", "line 2"),
        (b"1\nanna 1 \xff\nanna 1 bob 2\n", "not text in UTF-8"),
    ],
)
def test_a_list_that_means_nothing_is_refused_with_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "pairs.txt").write_bytes(content)
    with pytest.raises(ArgumentError, match=words):
        read_pairs(tmp_path / "pairs.txt")


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_bytes(b"\xef\xbb\xbf1\nanna 1 2\nanna 1 bob 1\n")
    assert read_pairs(tmp_path / "pairs.txt")[1] == ("anna", 1, "bob", 1, 0)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="No such file"):
        read_pairs(tmp_path / "pairs.txt")


def test_the_folds_of_a_list_are_used() -> None:
    encodings, labels = people(8, 3)
    pairs = all_pairs(encodings, labels)
    part = np.arange(len(pairs.same)) % 4
    listed = Pairs(pairs.distances, pairs.same, pairs.left, pairs.right, part)
    found = evaluate_pairs(listed, CALIBRATION)
    assert found.folds is not None
    assert found.folds == cross_validated(pairs.distances, pairs.same, [(part != f, part == f) for f in range(4)])
    assert found.identification is None
    assert evaluate_pairs(pairs, CALIBRATION).folds is None


# ---- text and drawing ----


def test_the_text_says_what_is_not_known() -> None:
    text = report.text(evaluate(*people(12, 3), CALIBRATION))
    assert "12 people, 36 pairs of one person, 594 of two" in text
    assert "at the threshold 0.500 (uncalibrated)" in text
    assert "TAR at FAR 0.001      not known: takes 2,995 pairs of two people, got 594" in text
    assert max(map(len, text.splitlines())) <= 130
    few = report.text(evaluate(*people(2, 2), CALIBRATION))
    assert "accuracy                not known" in few


@pytest.mark.parametrize("separated", [False, True])
def test_the_drawing_is_the_same_as_svg_and_as_a_picture(tmp_path: Path, separated: bool) -> None:
    found = evaluate(*people(12, 3, spread=0.02 if separated else 0.2), CALIBRATION)
    assert (found.roc.auc == 1) == separated
    report.write_plot(tmp_path / "roc.svg", found)
    report.write_plot(tmp_path / "roc.png", found)
    root = ElementTree.parse(tmp_path / "roc.svg").getroot()
    assert (root.get("width"), root.get("height")) == ("1440", "540")
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"true-accept rate", "distance", "one person", "two people", "threshold 0.500"} <= words
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        points = [tuple(map(float, p.split(","))) for p in str(line.get("points")).split()]
        assert all(0 <= x <= 1440 and 0 <= y <= 540 for x, y in points)
    pixels = report.draw(found)
    assert pixels.shape == (540, 1440, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    with pytest.raises(OutputError, match=r"one of \.svg, \.jpg"):
        report.write_plot(tmp_path / "roc.pdf", found)


def test_names_in_an_svg_cannot_break_it() -> None:
    canvas = _chart.Svg(10, 10)
    canvas.text((1, 1), "<script>&\"'")
    assert ElementTree.fromstring(canvas.document())[-1].text == "<script>&\"'"


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [
        (1, 1, [1]),
        (1, 2, [1, 2]),
        (1, 6, [1, 2, 3, 4, 5, 6]),
        (1, 10, [2, 4, 6, 8, 10]),
        (1, 200, [50, 100, 150, 200]),
        (1, 1_000_000, [200_000, 400_000, 600_000, 800_000, 1_000_000]),
        (0.0, 1.1, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.9, 1.0, [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]),
    ],
)
def test_axes_are_labelled_at_even_spacing(first: float, last: float, ticks: list[float]) -> None:
    assert _chart.ticks(first, last) == ticks
