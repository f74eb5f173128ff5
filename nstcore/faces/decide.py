"""From distances and a calibration to answers: who is who, and who is nobody known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nstcore.errors import ArgumentError
from nstcore.faces.answers import Match, Verification
from nstcore.faces.calibration import Calibration
from nstcore.faces.face import Face


class Candidate(Protocol):
    """A person that a face may be of: the distance to the person, from how many photographs, and what a head says."""

    @property
    def name(self) -> str: ...
    @property
    def distance(self) -> float: ...
    @property
    def photos(self) -> int: ...
    @property
    def probability(self) -> float | None: ...


def verification(
    distance: float,
    calibration: Calibration,
    *,
    threshold: float | None = None,
    compared: str,
    probability: float | None = None,
) -> Verification:
    """Whether two faces at a distance are one person's: yes where distance ≤ threshold.

    threshold: another one than the calibration's. compared: what the face was compared with, in words.
    probability: what a verification head says; None takes the calibration's.

    Raises `ArgumentError` for a threshold that is not a number above 0.
    """
    limit = chosen_threshold(calibration, threshold)
    return Verification(
        distance <= limit, distance, limit, limit - distance, _probability(distance, probability, calibration),
        calibration.calibrated, compared, probability is not None,
    )  # fmt: skip


def identification(
    faces: Sequence[Face | None],
    candidates: Sequence[Sequence[Candidate]],
    calibration: Calibration,
    *,
    threshold: float | None = None,
    one_each: bool = False,
) -> list[Match]:
    """Who the faces of a picture are; `name` is None for a stranger, one beyond the threshold from everybody.

    Args:
        faces: n faces; None where only the encoding is known.
        candidates: for each face the people nearest to it, the nearest first. One is enough without `one_each`; with it
            the n nearest are, or all there are: at most n − 1 of them can go to other faces.
        calibration: the threshold and the probability.
        threshold: another threshold than the calibration's.
        one_each: give every person at most one face, by `assignment`. A face that loses its nearest person takes the
            next one that is free and within the threshold, where that makes the whole picture surer.

    Returns:
        One `Match` a face, in their order.

    Raises `ArgumentError` for a threshold that is not a number above 0.
    """
    limit = chosen_threshold(calibration, threshold)
    if one_each:
        given = assignment([{c.name: c.distance for c in nearest} for nearest in candidates], limit)
    else:
        given = [nearest[0].name if nearest and nearest[0].distance <= limit else None for nearest in candidates]
    return [
        _match(face, nearest, name, limit, calibration)
        for face, nearest, name in zip(faces, candidates, given, strict=True)
    ]


def assignment(distances: Sequence[dict[str, float]], threshold: float) -> list[str | None]:
    """Give every face at most one person and every person at most one face, with the largest sum of margins.

    Maximises Σ (threshold − distance) over the pairs that are made; a pair beyond the threshold is never made, so that
    no certain match is given up for two doubtful ones that are barely within it. One exactly at the threshold is made
    where both are free.

    distances: for each face, name → distance; a name that is missing is too far.
    Source: Kuhn, "The Hungarian method for the assignment problem", 1955; the algorithm is SciPy's
    `linear_sum_assignment` (Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 2016).

    >>> assignment([{"anna": 0.30, "bob": 0.50}, {"anna": 0.35}, {"bob": 0.90}], 0.6)
    ['bob', 'anna', None]
    """
    from scipy.optimize import linear_sum_assignment

    near = [{name: d for name, d in row.items() if d <= threshold} for row in distances]
    names = sorted({name for row in near for name in row})
    column = {name: index for index, name in enumerate(names)}
    # a gain just above 0 for a pair at the very threshold; the columns behind the names leave a face alone, for nothing
    gain = np.zeros((len(near), len(names) + len(near)))
    tiny = 1e-9 * threshold
    for face, row in enumerate(near):
        for name, distance in row.items():
            gain[face, column[name]] = threshold - distance + tiny
    rows, columns = linear_sum_assignment(gain, maximize=True)
    given: list[str | None] = [None] * len(near)
    for place, index in zip(rows.tolist(), columns.tolist(), strict=True):
        if gain[place, index] > 0:
            given[place] = names[index]
    return given


def chosen_threshold(calibration: Calibration, threshold: float | None) -> float:
    """The user's threshold where there is one, else the calibration's."""
    limit = calibration.threshold if threshold is None else threshold
    if isinstance(limit, bool) or not isinstance(limit, (int, float, np.number)) or not 0 < limit < math.inf:
        raise ArgumentError(f"[faces] expects a threshold above 0, got {limit!r}")
    return float(limit)


def _match(
    face: Face | None, candidates: Sequence[Candidate], name: str | None, limit: float, calibration: Calibration
) -> Match:
    """The answer for one face: about the person it was given, else about the nearest one."""
    told = next((c for c in candidates if c.name == name), candidates[0] if candidates else None)
    if told is None:
        return Match(
            face,
            None,
            None,
            math.inf,
            limit,
            -math.inf,
            0.0,
            calibration.calibrated,
            "nobody: the gallery has nobody to compare with",
        )
    compared = f"{told.name} ({told.photos} photograph{'' if told.photos == 1 else 's'})"
    if name is None and told.distance <= limit:
        compared += ", who is another face in this picture"
    return Match(
        face, name, candidates[0].name, told.distance, limit, limit - told.distance,
        _probability(told.distance, told.probability, calibration), calibration.calibrated, compared,
        told.probability is not None,
    )  # fmt: skip


def _probability(distance: float, by_head: float | None, calibration: Calibration) -> float:
    return calibration.probability(distance) if by_head is None else by_head
