"""Verification as logistic regression, and one-shot identification against brute force."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import nstcore as nst
from nstcore.errors import ArgumentError, NonFiniteError, ShapeError, WeightsError
from nstcore.faces.evaluate import roc
from nstcore.faces.head import FORMS, VerificationHead, load_head
from nstcore.faces.oneshot import one_shot
from nstcore.faces.scores import score


def people(seed: int = 0, count: int = 12, photos: int = 5, size: int = 6, noise: Any = 0.6) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), photos)
    return rng.standard_normal((count, size))[labels] + noise * rng.standard_normal((len(labels), size)), labels


def pairs(labels: np.ndarray) -> tuple[Any, Any, Any]:
    first, second = np.triu_indices(len(labels), 1)
    return first, second, labels[first] == labels[second]


@pytest.mark.parametrize("form", FORMS)
def test_gradients_flow_into_both_branches_and_the_weights(form: str) -> None:
    rng = np.random.default_rng(0)
    head = VerificationHead(4, form).astype(np.float64)

    def logits(a: Any, b: Any, w: Any, bias: Any) -> Any:
        head.weight, head.bias = w, bias  # type: ignore[attr-defined]
        return head(a, b)

    report = nst.gradcheck(
        logits, rng.standard_normal((5, 4)), rng.standard_normal((5, 4)), rng.standard_normal((4, 1)), np.ones(1)
    )
    assert report.max_error < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_fit_finds_the_minimum_that_scipy_finds(form: str) -> None:
    z, labels = people()
    first, second, same = pairs(labels)
    head = VerificationHead(6, form)
    fit = head.fit(z, (first, second), same, decay=0.01)
    off = np.abs(z[first] - z[second])
    phi = off if form == "absolute" else off**2 / (np.abs(z[first]) + np.abs(z[second]) + 1e-8)
    spread, weight = phi.std(0), np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    sign = np.where(same, -1.0, 1.0)

    def objective(p: np.ndarray) -> float:
        """p: of each number what it has beyond the shared weight, the shared weight, the offset."""
        loss = weight @ np.logaddexp(0, sign * (phi @ (p[:6] + p[6]) + p[7]))
        return float(loss + 0.005 * np.sum((p[:6] * spread) ** 2) + 0.0005 * (p[6] * phi.sum(1).std()) ** 2)

    found = minimize(objective, np.zeros(8), method="BFGS", options={"gtol": 1e-9})
    mine = np.append(head.weight.data[:, 0], head.bias.data).astype(np.float64)
    np.testing.assert_allclose(mine, np.append(found.x[:6] + found.x[6], found.x[7]), atol=2e-3)
    assert fit.end == pytest.approx(found.fun, rel=1e-6)
    assert fit.start > fit.end
    probabilities = head.probability(z[first], z[second])
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-(phi @ mine[:-1] + mine[-1]))), atol=1e-6)
    assert probabilities[same].mean() > 0.7 > 0.3 > probabilities[~same].mean()


def test_numbers_that_only_add_noise_are_weighed_less() -> None:
    """What a threshold on the distance cannot do: three numbers tell people apart, three others are noise."""
    noise = np.array([0.2, 0.2, 0.2, 6.0, 6.0, 6.0])
    train, labels = people(1, noise=noise)
    test, others = people(2, noise=noise)
    head = VerificationHead(6)
    first, second, same = pairs(labels)
    head.fit(train, (first, second), same)
    first, second, same = pairs(others)
    by_head = roc(1 - head.probability(test[first], test[second]), same).eer
    by_distance = roc(np.linalg.norm(test[first] - test[second], axis=1), same).eer
    assert by_head < 0.5 * by_distance


def test_with_much_decay_the_plain_distance_is_left() -> None:
    z, labels = people()
    first, second, same = pairs(labels)
    head = VerificationHead(6)
    head.fit(z, (first, second), same, decay=1e6)
    weights = head.weight.data[:, 0]
    np.testing.assert_allclose(weights, weights.mean(), rtol=1e-3)
    assert weights.mean() < -0.1


def test_a_head_comes_back_from_its_file(tmp_path: Path) -> None:
    z, labels = people()
    first, second, same = pairs(labels)
    head = VerificationHead(6, "chi2")
    head.fit(z, (first, second), same)
    head.save(tmp_path / "head.npz", encoder="0123")
    other = load_head(tmp_path / "head.npz")
    np.testing.assert_array_equal(other.probability(z[:3], z[3:6]), head.probability(z[:3], z[3:6]))
    assert other.encoder == "0123"
    other.save(tmp_path / "again.npz")
    assert load_head(tmp_path / "again.npz").encoder == "0123"
    for wrong in ("", 7, "x" * 201):
        head.save(tmp_path / "wrong.npz", encoder=wrong)
        with pytest.raises(WeightsError, match="expects the digest of an encoder"):
            load_head(tmp_path / "wrong.npz")
    data = bytearray((tmp_path / "head.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.npz").write_bytes(data)
    with pytest.raises(WeightsError, match=r"bad\.npz"):
        load_head(tmp_path / "bad.npz")
    head.weight.data[0] = np.nan
    head.save(tmp_path / "nan.npz")
    with pytest.raises(WeightsError, match="finite weights"):
        load_head(tmp_path / "nan.npz")
    nst.nn.Affine(3).save(tmp_path / "affine.npz")
    with pytest.raises(WeightsError, match="expects weights of verification_head, got affine"):
        load_head(tmp_path / "affine.npz")


def test_head_refuses() -> None:
    z, labels = people()
    first, second, same = pairs(labels)
    with pytest.raises(ArgumentError, match="form to be one of absolute, chi2"):
        VerificationHead(6, "cosine")
    with pytest.raises(ArgumentError, match="pairs of one person and of two, got 0 of one"):
        VerificationHead(6).fit(z, (first[~same], second[~same]), same[~same])
    with pytest.raises(ShapeError, match=r"expects encodings \(n, 5\)"):
        VerificationHead(5).fit(z, (first, second), same)
    with pytest.raises(ShapeError, match=r"expects encodings \(n, 6\), got \(1, 5\)"):
        VerificationHead(6).probability(z[0], z[1, :5])
    z[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="finite encodings"):
        VerificationHead(6).fit(z, (first, second), same)


@pytest.mark.parametrize("ways", [2, 3, 4])
def test_one_shot_is_the_mean_over_all_choices(ways: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3])
    z = rng.standard_normal((9, 2)) + 0.7 * np.array([[0, 0], [2, 0], [0, 2], [1, 1]])[labels]
    distance = np.sum((z[:, None] - z) ** 2, axis=2)
    members = [np.flatnonzero(labels == j) for j in range(4)]
    rates = []
    for query in range(8):  # the ninth has no other photograph of its person
        right = tried = 0.0
        for own in members[labels[query]]:
            if own == query:
                continue
            for others in itertools.combinations([j for j in range(4) if j != labels[query]], ways - 1):
                for photos in itertools.product(*(members[j] for j in others)):
                    share = 1 / np.prod([len(members[j]) for j in others])
                    right += share * all(distance[query, own] < distance[query, x] for x in photos)
                    tried += share
        rates.append(right / tried)
    found = one_shot(z, labels, ways)
    assert found.accuracy == pytest.approx(np.mean(rates), rel=1e-12)
    assert (found.people, found.queries) == (3, 8)
    assert found.low <= found.accuracy <= found.high


def test_one_shot_of_noise_is_chance_and_of_clear_people_is_one() -> None:
    noise = np.random.default_rng(0).standard_normal((200, 16))
    labels = np.repeat(np.arange(20), 10)
    found = one_shot(noise, labels, 5)
    assert found.accuracy == pytest.approx(0.2, abs=0.03)
    assert found.low < 0.2 < found.high
    clear = one_shot(noise + 100 * np.eye(16)[labels % 16] * (1 + labels // 16)[:, None], labels, 20)
    assert clear.accuracy == clear.low == clear.high == 1
    assert one_shot(np.zeros((4, 2)), [0, 0, 1, 1], 2).accuracy == 0  # a tie is wrong
    assert "5-way one-shot accuracy" in str(found)
    assert found.to_json()["ways"] == 5


@pytest.mark.parametrize(
    ("z", "labels", "ways", "error", "words"),
    [
        (np.zeros((3, 2)), [0, 1], 2, ShapeError, r"labels \(n,\), got \(3, 2\) and \(2,\)"),
        (np.zeros((4, 2)), [0, 0, 1, 1], 3, ArgumentError, "the number of people, 2, got 3"),
        (np.zeros((4, 2)), [0, 0, 1, 1], 1, ArgumentError, "ways from 2"),
        (np.zeros((3, 2)), [0, 1, 2], 2, ArgumentError, "somebody with two photographs"),
        (np.full((4, 2), np.nan), [0, 0, 1, 1], 2, ArgumentError, "finite numbers, got NaN or infinity"),
        ([["a"], ["b"]], [0, 0], 2, ArgumentError, "finite numbers, got <U1"),
        ([[1.0], [1.0, 2.0]], [0, 0], 2, ShapeError, "rows of several lengths"),
        (np.zeros((4, 2)), ["a", "a", None, "b"], 2, ArgumentError, "one that is missing"),
        (np.zeros((4, 2)), [0, 0, np.nan, 1], 2, ArgumentError, "one that is missing"),
    ],
)
def test_one_shot_refuses(z: Any, labels: Any, ways: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=rf"^\[one_shot\] .*{words}"):
        one_shot(z, labels, ways)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"confidence": 2}, r"confidence in \(0, 1\), got 2"),
        ({"confidence": np.nan}, "confidence in"),
        ({"resamples": 0}, "resamples of at least 1, got 0"),
        ({"seed": -1}, "seed of at least 0, got -1"),
    ],
)
def test_one_shot_refuses_options_that_mean_nothing(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^\[one_shot\] expects {words}"):
        one_shot(np.eye(4), [0, 0, 1, 1], 2, **options)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (([0, 100], [1, 5]), {}, "indices of 60 encodings, from 0, got 0 to 100"),
        (([0, -1], [1, 5]), {}, "got -1 to 0"),
        (([0.0, 1.0], [1, 5]), {}, "got float64"),
        (([0, 1], [1, 5]), {"decay": np.nan}, "decay of at least 0, got nan"),
        (([0, 1], [1, 5]), {"decay": -1.0}, "decay of at least 0, got -1.0"),
    ],
)
def test_a_fit_refuses_what_would_ruin_the_head(rows: Any, options: dict[str, Any], words: str) -> None:
    head = VerificationHead(6)
    before = head.weight.data.copy()
    with pytest.raises(ArgumentError, match=rf"^\[head\] expects .*{words}"):
        head.fit(people()[0], rows, [True, False], **options)
    np.testing.assert_array_equal(head.weight.data, before)
    with pytest.raises(ShapeError, match="as many encodings a as b, got 2 and 3"):
        head.probability(np.zeros((2, 6)), np.zeros((3, 6)))


def test_scores_of_people_that_are_clear() -> None:
    z, labels = people(noise=0.01)
    found = score(z, labels)
    assert (found.eer, found.auc, found.one_shot, found.ways) == (0, 1, 1, 10)
    assert (found.same, found.different) == (120, 1650)
    assert found.threshold < 1
