"""Identification among people of whom some are unknown, on encodings whose people are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.backend.arrays import to_host
from nstcore.faces._statistics import needed_trials

Array = NDArray[Any]

FALSE_ALARM_RATES = (1e-1, 1e-2)
TRIALS = 10
CONFIDENCE = 0.95


@dataclass(frozen=True)
class OpenSet:
    """Identification from one photograph a person, over several drawings of who is known; means over the drawings.

    known: people in the gallery, each with one photograph. known_probes, unknown_probes: photographs that are asked
    about; of the known people all the others, of the unknown ones all (the mean over the drawings).
    rank1: closed set: share of the known probes whose nearest person is the right one; rank1_deviation: its deviation
    over the drawings.
    detection: (detection-and-identification rate, its deviation over the drawings): share of the known probes whose
    nearest person is the right one and within the threshold. false_alarm: share of the unknown probes with anybody
    within the threshold. Both at `threshold`.
    at_false_alarm: false-alarm rate → the detection rate at the largest threshold that keeps it in that drawing; None
    where there are fewer unknown probes than `needed_trials`.
    Source: Phillips, Grother, Micheals, "Evaluation Methods in Face Recognition", Handbook of Face Recognition, 2011.
    """

    trials: int
    known: int
    known_probes: float
    unknown_probes: float
    threshold: float
    rank1: float
    rank1_deviation: float
    detection: tuple[float, float]
    false_alarm: tuple[float, float]
    at_false_alarm: dict[float, float | None]

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        rates = [{"false_alarm_rate": rate, "detection": found} for rate, found in self.at_false_alarm.items()]
        return {**vars(self), "at_false_alarm": rates}


def open_set(encodings: Array, person: Array, threshold: float, *, trials: int = TRIALS) -> OpenSet | None:
    """Draw half of the people who have several photographs as known, and ask about all other photographs.

    encodings: float64 (n, d). person: (n,), numbers from 0. trials: how many drawings; they are always the same for
    people and photographs in the same order.
    None where fewer than two people have several photographs.
    """
    several = np.flatnonzero(np.bincount(person) > 1)
    if len(several) < 2:
        return None
    rng = np.random.default_rng(0)
    drawn = [_drawing(encodings, person, several, rng) for _ in range(trials)]
    rank1 = [float(right.mean()) for _, right, _ in drawn]
    detection = [float((right & (near <= threshold)).mean()) for near, right, _ in drawn]
    alarm = [float((far <= threshold).mean()) for _, _, far in drawn]
    fewest = min(len(far) for _, _, far in drawn)
    rates = {
        rate: float(np.mean([_detection_at(*d, rate) for d in drawn]))
        if fewest >= needed_trials(rate, CONFIDENCE)
        else None
        for rate in FALSE_ALARM_RATES
    }
    return OpenSet(
        trials, len(several) // 2, float(np.mean([len(near) for near, _, _ in drawn])),
        float(np.mean([len(far) for _, _, far in drawn])), threshold, *_mean_and_deviation(rank1),
        _mean_and_deviation(detection), _mean_and_deviation(alarm), rates,
    )  # fmt: skip


def _drawing(encodings: Array, person: Array, several: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Of known probes the distance to the nearest person and whether it is the right one; of others the distance."""
    known = np.sort(rng.permutation(several)[: len(several) // 2])
    gallery = np.array([rng.choice(np.flatnonzero(person == p)) for p in known])
    asked = np.setdiff1d(np.arange(len(person)), gallery)
    nearest, distance = _nearest(encodings[asked], encodings[gallery])
    of_known = np.isin(person[asked], known)
    right = known[nearest] == person[asked]
    return distance[of_known], right[of_known], distance[~of_known]


def _nearest(probes: Array, gallery: Array) -> tuple[Array, Array]:
    from nstcore import ops

    squared, index = map(to_host, ops.nearest(probes, gallery, 1))
    return index[:, 0], np.sqrt(squared[:, 0])


def _detection_at(near: Array, right: Array, far: Array, rate: float) -> float:
    """The detection rate at the largest threshold, among the distances, that lets at most this share of strangers pass.

    The strangers' next distance is the first that must not pass: a probe has to be below it.
    """
    allowed = int(np.floor(rate * len(far) + 1e-9))
    limit = np.sort(far)[allowed] if allowed < len(far) else np.inf
    return float((right & (near < limit)).mean())


def _mean_and_deviation(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
