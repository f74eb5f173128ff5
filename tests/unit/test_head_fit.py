"""Fitting a verification head: chosen and calibrated on people that it was not fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nstcore.errors import ArgumentError, ShapeError
from nstcore.faces import VerificationHead, fit_head
from nstcore.faces._statistics import Sample, fit_logistic
from nstcore.faces.evaluate import roc
from nstcore.faces.head_fit import FOLDS, judge, separation
from nstcore.faces.report import by_head_text, head_text


def people(seed: int, noise: Any, count: int = 30, photos: int = 4, size: int = 8) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), photos)
    return rng.standard_normal((count, size))[labels] + noise * rng.standard_normal((len(labels), size)), labels


USELESS = np.array([0.3] * 4 + [5.0] * 4)  # the last four numbers tell nothing about who it is


@pytest.fixture(scope="module")
def fitted() -> Any:
    return fit_head(*people(0, USELESS), "e" * 64)


def test_it_is_better_than_the_distance_where_some_numbers_tell_nothing(fitted: Any) -> None:
    """On people who took no part at all: fewer errors, and better probabilities than the distance's own curve."""
    z, labels = people(1, USELESS)
    first, second = np.triu_indices(len(z), 1)
    same = labels[first] == labels[second]
    distances = np.linalg.norm(z[first] - z[second], axis=1)
    slope, offset = fit_logistic(Sample(distances, same))
    plain = separation(distances, 1 / (1 + np.exp(slope * distances + offset)), same)
    found = judge(fitted.head, z, labels)
    assert fitted.helps
    assert found.eer < 0.5 * plain.eer
    assert found.loss < 0.6 * plain.loss
    assert (fitted.head.encoder, fitted.people, fitted.same) == ("e" * 64, 30, 180)
    assert "kept" in head_text(fitted)
    assert "not kept" not in head_text(fitted)
    assert f"{found.eer:.2%}" in by_head_text(found)


def test_probabilities_are_as_sure_as_they_may_be() -> None:
    """Of new people's pairs that get a probability near p, a share near p is of one person, both kinds weighing alike.

    Few people with many numbers: a head that is fitted without a second look is far too sure there.
    """
    few, whose = people(0, 1.0, count=16, size=16)
    found = fit_head(few, whose, "e")
    z, labels = people(5, 1.0, count=120, size=16)
    first, second = np.triu_indices(len(z), 1)
    same = labels[first] == labels[second]
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    probability = found.head.probability(z[first], z[second])
    for low, high in ((0.1, 0.4), (0.4, 0.6), (0.6, 0.9)):
        near = (low < probability) & (probability < high)
        said, true = (np.average(x[near], weights=weight[near]) for x in (probability, same))
        assert abs(said - true) < 0.15
    plain, (one, two) = VerificationHead(16, found.head.form), np.triu_indices(len(few), 1)
    plain.fit(few, (one, two), whose[one] == whose[two], decay=1e-4)
    sure = plain.probability(z[first], z[second])
    assert separation(1 - probability, probability, same).loss < separation(1 - sure, sure, same).loss


def test_where_all_numbers_tell_as_much_little_is_lost() -> None:
    z, labels = people(2, 0.8, count=16)
    found = fit_head(z, labels, "e")
    assert found.by_head.loss < found.by_distance.loss + 0.05
    assert ("not kept" in head_text(found)) is not found.helps


def test_a_head_that_was_there_before_stays_where_it_is_better(fitted: Any) -> None:
    """One fitted to a great many other people beats one fitted to these few; an untrained one does not."""
    z, labels = people(3, USELESS, count=12)
    many, whose = people(4, USELESS, count=150)
    good = fit_head(many, whose, "e").head
    found = fit_head(z, labels, "e", present=good)
    assert found.by_present is not None
    assert (found.kept, found.helps) == ("present", True)
    assert found.by_present.loss <= found.by_head.loss
    assert "not kept: the gallery's own head gives probabilities at least as good" in head_text(found)
    assert f"equal error rate {found.by_present.eer:.2%}" in head_text(found)
    assert "it stays; --replace-head takes it out" in head_text(found)
    assert "of two; kept\n" in head_text(found, replace=True)
    assert "it is taken out" in head_text(found, replace=True)
    bad = VerificationHead(8, encoder="e")
    found = fit_head(z, labels, "e", present=bad)
    assert found.kept == "fitted"
    assert found.to_json()["by_present"]["loss"] > found.by_head.loss
    assert "it is taken out" in head_text(found)
    assert (fitted.by_present, fitted.kept) == (None, "fitted")
    with pytest.raises(ArgumentError, match="encodings of different encoders cannot be compared"):
        fit_head(z, labels, "another", present=bad)


def test_what_a_present_head_is_worth_is_what_it_says(fitted: Any) -> None:
    """On all pairs of people without folds to draw from, as `judge` counts them."""
    z, labels = people(1, USELESS)
    found = fit_head(z, labels, "e" * 64, present=fitted.head)
    assert found.by_present is not None
    whole = judge(fitted.head, z, labels)
    assert found.by_present.loss == pytest.approx(whole.loss, abs=0.05)
    assert found.by_present.eer == pytest.approx(whole.eer, abs=0.05)


def test_separation_by_its_definition() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.4])
    same = np.array([True, False, True, False])
    found = separation(values, np.array([0.9, 0.4, 0.5, 0.0]), same)
    assert (found.auc, found.eer) == (0.75, roc(values, same).eer)
    assert found.loss == pytest.approx(-0.25 * (np.log(0.9) + np.log(0.5) + np.log(0.6) + np.log(1.0)))
    assert np.isfinite(separation(values, same.astype(float) * 0, same).loss)


def test_names_and_order_change_nothing(fitted: Any) -> None:
    z, labels = people(0, USELESS)
    order = np.random.default_rng(3).permutation(len(z))
    again = fit_head(z[order], [f"person {7 * i % 31}" for i in labels[order]], "e" * 64)
    np.testing.assert_allclose(again.head.weight.data, fitted.head.weight.data, rtol=1e-4)
    np.testing.assert_allclose(again.head.bias.data, fitted.head.bias.data, rtol=1e-4)


def test_progress_and_json(fitted: Any) -> None:
    seen: list[tuple[int, int]] = []
    z, labels = people(0, USELESS, count=8)
    found = fit_head(z, labels, "e", progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    assert seen[-1][1] == 8 * FOLDS + 1
    facts = found.to_json()
    assert set(facts["by_head"]) == {"eer", "auc", "loss"}
    assert (facts["people"], facts["encoder"], facts["form"]) == (8, "e", found.head.form)


@pytest.mark.parametrize("labels", [["a"] * 8, list("aaaabbbb"), list("abcdefgh"), list("aabcdefg")])
def test_too_few_people(labels: list[str]) -> None:
    with pytest.raises(ArgumentError, match=r"expects at least four people, two of them with two photographs, got"):
        fit_head(np.random.default_rng(0).standard_normal((8, 4)), labels, "e")


def test_what_cannot_be_fitted() -> None:
    z, labels = people(0, 0.5)
    with pytest.raises(ShapeError, match="as many labels as encodings"):
        fit_head(z[1:], labels, "e")
    with pytest.raises(ArgumentError, match="finite encodings"):
        fit_head(np.where(z == z[0, 0], np.nan, z), labels, "e")
