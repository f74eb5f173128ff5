"""How well faces are told apart: accuracy by folds, ROC, AUC, EER, validation rates, with their definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError
from nstcore.faces._statistics import Rate, check_rate, needed_trials
from nstcore.faces.calibration import Calibration
from nstcore.faces.identification import OpenSet, open_set
from nstcore.faces.pairs import Pairs, all_pairs, as_encodings, in_order

Array = NDArray[Any]

FALSE_ACCEPT_RATES = (1e-1, 1e-2, 1e-3)
FOLDS = 10
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Roc:
    """The rates at every threshold that makes a difference, from none accepted to all.

    thresholds: float64 (m,), rising: at thresholds[i] a pair is accepted when its distance is at most that; the first
    is -1, below every distance. false_accept, true_accept: float64 (m,), the rates.
    """

    thresholds: NDArray[np.float64]
    false_accept: NDArray[np.float64]
    true_accept: NDArray[np.float64]

    @property
    def auc(self) -> float:
        """Area under the curve, by trapezia: the probability that a pair of one person is closer than one of two.

        Equal distances count one half, so that this is the Mann-Whitney statistic over n₊ · n₋.
        Source: Hanley, McNeil, "The meaning and use of the area under a ROC curve", 1982.
        """
        step = np.diff(self.false_accept)
        return float(np.sum(step * (self.true_accept[1:] + self.true_accept[:-1])) / 2)

    @property
    def eer(self) -> float:
        """Equal error rate: where false-accept and false-reject rate are equal, on straight lines between the points.

        Source: ISO/IEC 19795-1; the interpolation is a choice.
        """
        excess = self.false_accept - (1 - self.true_accept)
        after = int(np.argmax(excess >= 0))  # the first point is below 0, the last above
        part = -excess[after - 1] / (excess[after] - excess[after - 1])
        return float(self.false_accept[after - 1] + part * (self.false_accept[after] - self.false_accept[after - 1]))

    def threshold_at(self, false_accept_rate: float) -> float:
        """The largest of the thresholds at which the false-accept rate is at most this."""
        return float(self.thresholds[np.searchsorted(self.false_accept, false_accept_rate, side="right") - 1])

    def best_threshold(self) -> float:
        """The threshold of the highest balanced accuracy, ½ (true accept + 1 − false accept).

        Halfway to the next larger distance; of several, that with the widest gap there. -1 where it is best to accept
        nothing and there are distances of 0.
        """
        balanced = self.true_accept - self.false_accept
        best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
        low = np.maximum(self.thresholds, 0)
        gap = np.append(np.diff(low), 0.0)
        chosen = best[np.argmax(gap[best])]
        return float(low[chosen] + gap[chosen] / 2) if chosen or gap[0] else -1.0


@dataclass(frozen=True)
class Validation:
    """Which share of the pairs of one person is accepted at a false-accept rate; None for a rate that is too small.

    Source: Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, equations 6 and 7.
    """

    false_accept_rate: float
    threshold: float | None
    rate: Rate | None


@dataclass(frozen=True)
class Folds:
    """Accuracy where the threshold was chosen without the fold that it is tried on.

    accuracy: mean over the folds of ½ (rate of one-person pairs accepted + rate of two-people pairs refused).
    standard_error: s / √n, s the sample deviation over the n folds.
    accuracies, thresholds: of each fold.
    """

    accuracy: float
    standard_error: float
    accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    people, photographs: those that took part. same, different: pairs of one person and of two.
    calibration: whose threshold is judged. false_accept, false_reject: at that threshold.
    folds: None where there are too few people. identification: None for pairs from a list, or too few people.
    """

    people: int
    photographs: int | None
    same: int
    different: int
    calibration: Calibration
    false_accept: Rate
    false_reject: Rate
    folds: Folds | None
    roc: Roc
    validation: tuple[Validation, ...]
    identification: OpenSet | None
    pairs: Pairs

    def to_json(self) -> dict[str, Any]:
        """Give everything but the pairs as plain values; the ROC at no more than 1000 of its points."""
        fields = ("people", "photographs", "same", "different")
        chosen = np.unique(np.linspace(0, len(self.roc.thresholds) - 1, 1000).astype(int))
        return {
            **{name: getattr(self, name) for name in fields},
            "calibration": self.calibration.to_json(),
            "false_accept": self.false_accept.to_json(), "false_reject": self.false_reject.to_json(),
            "folds": None if self.folds is None else {**vars(self.folds)},
            "auc": self.roc.auc, "eer": self.roc.eer,
            "validation": [
                {**vars(v), "rate": None if v.rate is None else v.rate.to_json()} for v in self.validation
            ],
            "identification": None if self.identification is None else self.identification.to_json(),
            "roc": {name: getattr(self.roc, name)[chosen].tolist() for name in self.roc.__dataclass_fields__},
        }  # fmt: skip


def evaluate(
    encodings: Array,
    labels: Any,
    calibration: Calibration,
    *,
    false_accept_rates: tuple[float, ...] = FALSE_ACCEPT_RATES,
) -> Evaluation:
    """Evaluate all pairs of encodings, and identification among people of whom some are unknown.

    Args:
        encodings: float (n, d). labels: n names or numbers of people.
        calibration: the threshold to judge.
        false_accept_rates: for the validation rates; one is reported only where there are `needed_trials` pairs of two
            people for it at 95 %, about 3 / rate.

    Folds and drawings come from the encodings alone, not from names or the order of photographs.
    Raises `ArgumentError` without a pair of either kind, `ShapeError` for arrays that do not fit.
    """
    rates = tuple(check_rate("evaluate", "a false-accept rate", rate) for rate in false_accept_rates)
    pairs, points = all_pairs(encodings, labels), as_encodings(encodings)
    order, person = in_order(points, labels)
    found = open_set(points[order], person[order], calibration.threshold)
    return _evaluate(pairs, calibration, rates, people_folds(pairs, person), found, len(person))


def evaluate_pairs(
    pairs: Pairs, calibration: Calibration, *, false_accept_rates: tuple[float, ...] = FALSE_ACCEPT_RATES
) -> Evaluation:
    """Evaluate given pairs; the folds are those of the pairs, as in LFW's list."""
    rates = tuple(check_rate("evaluate", "a false-accept rate", rate) for rate in false_accept_rates)
    parts = [] if pairs.fold is None else [(pairs.fold != f, pairs.fold == f) for f in np.unique(pairs.fold)]
    return _evaluate(pairs, calibration, rates, parts if len(parts) > 1 else [], None, None)


def roc(distances: Array, same: Array) -> Roc:
    """The curve of n distances, float (n,), and whether each is of one person, bool (n,).

    Source: Fawcett, "An introduction to ROC analysis", 2006; equal distances are one step.

    >>> curve = roc(np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, False, True, False]))
    >>> curve.false_accept.tolist(), curve.true_accept.tolist(), curve.auc
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0], 0.75)
    """
    ones, twos = int(np.sum(same)), int(np.sum(~same))
    if not ones or not twos:
        raise ArgumentError(f"[evaluate] expects pairs of one person and of two, got {ones} and {twos}")
    order = np.argsort(distances, kind="stable")
    rising, kind = distances[order], same[order]
    last = np.append(np.flatnonzero(np.diff(rising)), len(rising) - 1)
    accepted = np.cumsum(kind)[last]
    return Roc(
        np.concatenate([[-1.0], rising[last]]),
        np.concatenate([[0.0], (last + 1 - accepted) / twos]),
        np.concatenate([[0.0], accepted / ones]),
    )


def cross_validated(distances: Array, same: Array, parts: list[tuple[Array, Array]]) -> Folds:
    """Accuracy on each part with the threshold that is best on the rest of it.

    parts: for every fold which pairs choose the threshold, and which are tried, bool (n,) both.
    Source: Huang et al., "Labeled Faces in the Wild", 2007, section "View 2": mean and standard error over 10 folds.
    """
    thresholds = [roc(distances[train], same[train]).best_threshold() for train, _ in parts]
    accuracies = []
    for threshold, (_, test) in zip(thresholds, parts, strict=True):
        accepted, ones = distances[test] <= threshold, same[test]
        accuracies.append(float(accepted[ones].mean() + (~accepted[~ones]).mean()) / 2)
    error = float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies)))
    return Folds(float(np.mean(accuracies)), error, tuple(accuracies), tuple(thresholds))


def _evaluate(
    pairs: Pairs, calibration: Calibration, rates: tuple[float, ...], parts: list[tuple[Array, Array]],
    identification: OpenSet | None, photographs: int | None,
) -> Evaluation:  # fmt: skip
    distances, same = pairs.distances, pairs.same
    curve = roc(distances, same)
    ones, twos = int(same.sum()), int((~same).sum())
    accepted = distances <= calibration.threshold
    # a fold whose photographs of one kind have all failed cannot be judged
    parts = [part for part in parts if all(0 < np.sum(same[mask]) < np.sum(mask) for mask in part)]
    return Evaluation(
        pairs.people, photographs, ones, twos, calibration,
        Rate.of(int((accepted & ~same).sum()), twos, CONFIDENCE),
        Rate.of(int((~accepted & same).sum()), ones, CONFIDENCE),
        cross_validated(distances, same, parts) if len(parts) > 1 else None,
        curve, tuple(_validation(curve, distances[same], twos, rate) for rate in rates), identification, pairs,
    )  # fmt: skip


def _validation(curve: Roc, same: Array, different: int, rate: float) -> Validation:
    if different < needed_trials(rate, CONFIDENCE):
        return Validation(rate, None, None)
    threshold = curve.threshold_at(rate)
    return Validation(rate, threshold, Rate.of(int((same <= threshold).sum()), len(same), CONFIDENCE))


def people_folds(pairs: Pairs, person: Array, most: int = FOLDS) -> list[tuple[Array, Array]]:
    """Folds that share no person: tried are the pairs inside a fold, the threshold comes from those outside it.

    `most` of them, or fewer where not every fold would have two people, one of them with two photographs. The people,
    numbered by `in_order`, are dealt out in an order that is always the same and does not depend on their names.
    """
    photographs = np.bincount(person)
    order = np.random.default_rng(0).permutation(len(photographs))
    several, one = order[photographs[order] > 1], order[photographs[order] == 1]
    count = min(most, len(several), (len(several) + len(one)) // 2)
    if count < 2:
        return []
    fold = np.empty(len(photographs), np.intp)
    fold[np.concatenate([several, one])] = np.arange(len(photographs)) % count
    left, right = fold[pairs.left], fold[pairs.right]
    return [((left != f) & (right != f), (left == f) & (right == f)) for f in range(count)]
