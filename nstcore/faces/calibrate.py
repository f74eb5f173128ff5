"""Threshold and probability from the user's own faces, at a false-accept rate that their number supports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, ShapeError
from nstcore.faces._statistics import Rate, Sample, allowed_events, check_rate, fit_logistic, needed_trials
from nstcore.faces.calibration import Calibration
from nstcore.faces.pairs import Pairs, all_pairs
from nstcore.faces.several import several_photographs

Array = NDArray[Any]

FALSE_ACCEPT_RATE = 1e-3
CONFIDENCE = 0.95
_DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class CalibrationReport:
    """A calibration and what it is worth.

    calibration: the threshold, the probability, and how many pairs they come from.
    confidence: of all intervals, in (0, 1).
    false_accept, false_reject: at the threshold, with exact intervals as if the pairs were independent.
    people: how many there are in the pairs; None where that is not known.
    false_accept_people, false_reject_people: intervals from drawing the people anew (bootstrap); the wider ones where
        the pairs are of few people. None where the people are not known, and where nothing happened: no drawing of
        people without an error has one.
    several: (n, false-accept rate against a person with n photographs, of whom the nearest decides), for the n that the
        people had; empty for distances and lists of pairs. The claim is for n = 1.
    """

    calibration: Calibration
    confidence: float
    false_accept: Rate
    false_reject: Rate
    people: int | None
    false_accept_people: tuple[float, float] | None
    false_reject_people: tuple[float, float] | None
    several: tuple[tuple[int, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return {
            "calibration": self.calibration.to_json(), "confidence": self.confidence, "people": self.people,
            "false_accept": {**self.false_accept.to_json(), "people_interval": self.false_accept_people},
            "false_reject": {**self.false_reject.to_json(), "people_interval": self.false_reject_people},
            "several_photographs": [{"photographs": n, "false_accept_rate": rate} for n, rate in self.several],
        }  # fmt: skip


def calibrate(
    values: Any,
    labels: Any,
    *,
    false_accept_rate: float = FALSE_ACCEPT_RATE,
    confidence: float = CONFIDENCE,
    source: str = "the caller's own pairs",
) -> CalibrationReport:
    """Fit a threshold at a false-accept rate, and a probability, to faces whose people are known.

    The threshold is the largest that lets k of the n pairs of two people pass, where k is the most for which the upper
    limit of the rate is `false_accept_rate`: B(confidence; k + 1, n − k), a quantile of the Beta distribution. As k
    follows from n alone, the limit holds although the threshold was chosen on the same pairs (Wilks' tolerance limit):
    at `confidence`, the rate among further independent pairs of two people is at most `false_accept_rate`.
    Pairs that share a person are not independent; the report says what remains when the people are drawn anew. Nor is
    the rate that of a person with several photographs, of whom the nearest decides: the report has it for each number.

    Args:
        values: encodings, float (n, d), all pairs of which are taken; or the distances (n,) of pairs.
        labels: for encodings the people (n,), as names or numbers; for distances whether a pair is of one person,
            bool (n,).
        false_accept_rate: of pairs of two people, how many may be taken for one; in (0, 1).
        confidence: of the limit and the intervals, in (0, 1).
        source: what the pairs are, in words; it is kept in the calibration.

    Raises:
        ArgumentError: too few pairs of two people: `needed_trials` of them are needed, 2995 for 1 in 1000 at 95 %, as
            no smaller number shows such a rate even if none passes. No pair of one person, or an option outside its
            range. ShapeError: arrays that do not fit.

    Source: Wilks, "Determination of sample sizes for setting tolerance limits", 1941; Clopper, Pearson, 1934.

    >>> rng = np.random.default_rng(0)
    >>> distances = np.concatenate([rng.normal(0.4, 0.05, 200), rng.normal(0.8, 0.05, 4000)])
    >>> report = calibrate(distances, np.arange(4200) < 200)
    >>> 0.5 < report.calibration.threshold < 0.7, report.calibration.calibrated, report.false_accept.events
    (True, True, 0)
    """
    array = np.asarray(values)
    if array.ndim == 2:
        report = calibrate_pairs(
            all_pairs(array, labels), false_accept_rate=false_accept_rate, confidence=confidence, source=source
        )
        return with_several(report, array, labels)
    same = np.asarray(labels)
    if array.ndim != 1 or same.shape != array.shape or same.dtype != bool:
        raise ShapeError(
            f"[calibrate] expects distances (n,) with bool labels (n,), got {array.shape}, {same.dtype} {same.shape}"
        )
    return _calibrate(array.astype(np.float64), same, None, false_accept_rate, confidence, source)


def with_several(report: CalibrationReport, encodings: Array, labels: Any) -> CalibrationReport:
    """The report with the rates of `several_photographs` at its threshold."""
    return replace(report, several=several_photographs(encodings, labels, report.calibration.threshold))


def calibrate_pairs(
    pairs: Pairs, *, false_accept_rate: float = FALSE_ACCEPT_RATE, confidence: float = CONFIDENCE, source: str
) -> CalibrationReport:
    """As `calibrate`, for pairs whose people are known."""
    return _calibrate(pairs.distances, pairs.same, pairs, false_accept_rate, confidence, source)


def _calibrate(
    distances: NDArray[np.float64], same: NDArray[np.bool_], pairs: Pairs | None, rate: float, confidence: float,
    source: str,
) -> CalibrationReport:  # fmt: skip
    rate, confidence = (
        check_rate("calibrate", "a false-accept rate", rate),
        check_rate("calibrate", "confidence", confidence),
    )
    if not (np.isfinite(distances).all() and (distances >= 0).all()):
        raise ArgumentError("[calibrate] expects distances of at least 0, got negative, infinite or NaN ones")
    ones, twos = int(same.sum()), int((~same).sum())
    check_numbers(ones, twos, rate, confidence)
    threshold = _threshold(distances, same, allowed_events(rate, twos, confidence))
    slope, offset = fit_logistic(Sample(distances, same))
    passed = distances <= threshold
    return CalibrationReport(
        Calibration(threshold, slope, offset, True, ones, twos, source, rate),
        confidence,
        Rate.of(int((passed & ~same).sum()), twos, confidence),
        Rate.of(int((~passed & same).sum()), ones, confidence),
        None if pairs is None else pairs.people,
        None if pairs is None else over_people(pairs.where(~same), passed[~same], confidence),
        None if pairs is None else over_people(pairs.where(same), ~passed[same], confidence),
    )


def check_numbers(ones: int, twos: int, rate: float, confidence: float) -> None:
    """Refuse, with `ArgumentError`, a rate that so many pairs of one person and of two cannot show."""
    needed = needed_trials(rate, confidence)
    if twos < needed:
        best = -np.expm1(np.log1p(-confidence) / twos) if twos else 1.0
        possible = f"{twos} can show {best:.2g} at best" if twos else "there are none"
        raise ArgumentError(
            f"[calibrate] a false-accept rate of {rate:g} cannot be claimed: at {confidence:.0%} confidence it takes "
            f"at least {needed} pairs of two people, got {twos}; {possible}"
        )
    if not ones:
        raise ArgumentError("[calibrate] expects pairs of one person too, got none: somebody needs two photographs")


def _threshold(distances: Array, same: Array, allowed: int) -> float:
    """The largest threshold that lets at most `allowed` pairs of two people pass, with room to the next pair below."""
    different = distances[~same]
    first_refused = float(np.partition(different, allowed)[allowed])
    if first_refused <= 0:
        raise ArgumentError(
            f"[calibrate] no threshold keeps this rate: {int((different <= 0).sum())} pairs of two people are at "
            "distance 0; are there photographs that stand under two names?"
        )
    below = distances[distances < first_refused]
    middle = ((float(below.max()) if len(below) else 0.0) + first_refused) / 2
    return min(middle, float(np.nextafter(first_refused, 0)))


def over_people(pairs: Pairs, event: Array, confidence: float) -> tuple[float, float] | None:
    """The interval of a rate when the people, rather than the pairs, are drawn anew: bootstrap percentiles.

    None where no pair has the event, as every drawing would give 0.

    Each of 1000 draws takes as many people as there are, with replacement; a pair counts once for each combination of
    its people that was drawn, so a pair of one person as often as that person. With few people the interval is
    itself uncertain.
    Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; for pairs: Bolle, Ratha, Pankanti,
    "Error analysis of pattern recognition systems - the subsets bootstrap", 2004.
    """
    from scipy.sparse import coo_array

    if not event.any():
        return None
    people, index = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    count = len(people)
    place = (index[: len(event)], index[len(event) :])
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _DRAWS).astype(np.float64)
    if (place[0] == place[1]).all():
        events, trials = (times @ np.bincount(place[0], w, count) for w in (event.astype(float), np.ones(len(event))))
    else:
        sums = [coo_array((w, place), (count, count)).tocsr() for w in (event.astype(float), np.ones(len(event)))]
        events, trials = (np.einsum("dp,dp->d", times @ table, times) for table in sums)
    drawn = events[trials > 0] / trials[trials > 0]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
