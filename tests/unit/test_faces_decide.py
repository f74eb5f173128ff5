"""Decisions: thresholds, strangers, and the assignment of people to faces against trying everything."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstcore.errors import ArgumentError
from nstcore.faces import Calibration
from nstcore.faces.decide import assignment, identification, verification

CALIBRATION = Calibration(0.6, 20.0, -12.0, False, 10, 20, "made up")


@dataclass(frozen=True)
class Somebody:
    name: str
    distance: float
    photos: int = 1
    probability: float | None = None


def test_the_threshold_itself_is_the_same_person() -> None:
    at, above = (verification(d, CALIBRATION, compared="b.jpg") for d in (0.6, math.nextafter(0.6, 1)))
    assert (at.same, at.margin, above.same) == (True, 0.0, False)
    assert (at.probability, at.calibrated, at.compared) == (pytest.approx(0.5), False, "b.jpg")
    other = verification(0.6, CALIBRATION, threshold=0.5, compared="b.jpg")
    assert (other.same, other.threshold, other.margin) == (False, 0.5, pytest.approx(-0.1))
    assert other.probability == at.probability  # of the distance, whatever the threshold
    assert json.loads(json.dumps(other.to_json()))["same"] is False


@pytest.mark.parametrize("threshold", [0, -1, math.nan, math.inf, True, "0.6"])
def test_a_threshold_is_a_number_above_0(threshold: float) -> None:
    with pytest.raises(ArgumentError, match="a threshold above 0"):
        verification(0.5, CALIBRATION, threshold=threshold, compared="")


def test_a_stranger_has_no_name_but_a_nearest_person() -> None:
    anna = [Somebody("anna", 0.61, 3), Somebody("bob", 0.7)]
    (match,) = identification([None], [anna], CALIBRATION)
    assert (match.name, match.nearest, match.distance, match.compared) == (None, "anna", 0.61, "anna (3 photographs)")
    assert match.margin == pytest.approx(-0.01)
    (match,) = identification([None], [anna], CALIBRATION, threshold=0.65)
    assert (match.name, match.threshold) == ("anna", 0.65)


def test_in_an_empty_gallery_everybody_is_a_stranger() -> None:
    for one_each in (False, True):
        (match,) = identification([None], [[]], CALIBRATION, one_each=one_each)
        assert (match.name, match.nearest, match.distance, match.probability) == (None, None, math.inf, 0.0)
        assert json.loads(json.dumps(match.to_json(), allow_nan=False))["distance"] is None
    assert identification([], [], CALIBRATION, one_each=True) == []


def test_a_face_that_loses_its_person_takes_the_next_or_none() -> None:
    faces = [
        [Somebody("anna", 0.30), Somebody("bob", 0.50)],
        [Somebody("anna", 0.20), Somebody("bob", 0.90)],
        [Somebody("anna", 0.40), Somebody("bob", 0.70)],
    ]
    assert [m.name for m in identification([None] * 3, faces, CALIBRATION)] == ["anna"] * 3
    first, second, third = identification([None] * 3, faces, CALIBRATION, one_each=True)
    assert (first.name, first.nearest, first.distance, first.compared) == ("bob", "anna", 0.50, "bob (1 photograph)")
    assert (second.name, second.distance) == ("anna", 0.20)
    assert (third.name, third.nearest, third.distance) == (None, "anna", 0.40)
    assert third.compared == "anna (1 photograph), who is another face in this picture"


def test_a_sure_match_is_not_given_up_for_two_doubtful_ones() -> None:
    """anna 0.1 alone has the margin 0.5; the two pairs that would name both faces have 0.05 + 0.1."""
    assert assignment([{"anna": 0.10, "bob": 0.55}, {"anna": 0.50}], 0.6) == ["anna", None]


def best_by_trying(distances: list[dict[str, float]], threshold: float) -> float:
    """The largest sum of margins of all ways to give the faces people, or nobody."""
    people = sorted({name for row in distances for name in row})
    best = 0.0
    for given_ in itertools.product([None, *people], repeat=len(distances)):
        named = [name for name in given_ if name is not None]
        pairs = [(row, name) for row, name in zip(distances, given_, strict=True) if name is not None]
        if len(set(named)) == len(named) and all(row.get(name, math.inf) <= threshold for row, name in pairs):
            best = max(best, sum(threshold - row[name] for row, name in pairs))
    return best


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10).map(lambda n: n / 10), max_size=4),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_the_assignment_is_the_best_of_all(distances: list[dict[str, float]]) -> None:
    threshold = 0.6
    found = assignment(distances, threshold)
    named = [name for name in found if name is not None]
    assert len(set(named)) == len(named)
    margins = [threshold - row[n] for row, n in zip(distances, found, strict=True) if n is not None]
    assert all(margin >= 0 for margin in margins)
    assert sum(margins) == pytest.approx(best_by_trying(distances, threshold), abs=1e-8)
    # nobody stays alone who could have somebody that is free
    for row, name in zip(distances, found, strict=True):
        assert name is not None or all(d > threshold or person in named for person, d in row.items())


def test_probabilities_do_not_overflow() -> None:
    assert CALIBRATION.probability(1e6) == 0.0
    assert CALIBRATION.probability(0.0) == pytest.approx(1 / (1 + np.exp(-12.0)))
