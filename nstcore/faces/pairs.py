"""Pairs of faces: distances, whether they are one person's, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, ShapeError

Array = NDArray[Any]

MAX_DIFFERENT = 5_000_000  # pairs of two people that are looked at; 17 bytes each
_SEED = 0


@dataclass(frozen=True, eq=False)
class Pairs:
    """n pairs of faces.

    distances: float64 (n,), Euclidean. same: bool (n,), whether a pair is of one person.
    left, right: int (n,), whose the two faces are, as numbers from 0.
    fold: int (n,), the part of the data that a pair belongs to, for cross-validation; None where there are no parts.
    """

    distances: NDArray[np.float64]
    same: NDArray[np.bool_]
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    fold: NDArray[np.intp] | None = None

    @property
    def people(self) -> int:
        """How many people there are in the pairs."""
        return len(np.union1d(self.left, self.right))

    def where(self, chosen: Array) -> Pairs:
        """Some of the pairs."""
        fold = None if self.fold is None else self.fold[chosen]
        return Pairs(self.distances[chosen], self.same[chosen], self.left[chosen], self.right[chosen], fold)


def all_pairs(encodings: Array, labels: Sequence[Any] | Array, *, max_different: int = MAX_DIFFERENT) -> Pairs:
    """Every pair of different photographs.

    Args:
        encodings: float (n, d). labels: n names or numbers of people.
        max_different: where there are more pairs of two people than this, so many are drawn from them, always the
            same ones; pairs of one person are all taken.

    Raises `ShapeError` for arrays that do not fit, `ArgumentError` for encodings that are not finite.

    >>> pairs = all_pairs(np.array([[0.0, 0], [3, 4], [0, 1]]), ["anna", "anna", "bob"])
    >>> pairs.distances.round(3).tolist(), pairs.same.tolist()
    ([5.0, 1.0, 4.243], [True, False, False])
    """
    points, person = as_encodings(encodings), _numbered(labels)
    if len(points) != len(person):
        raise ShapeError(f"[pairs] expects as many labels as encodings, got {len(person)} for {len(points)}")
    left, right = _indices(person, max_different)
    return between(points, person, left, right)


def between(points: Array, person: Array, left: Array, right: Array, fold: Array | None = None) -> Pairs:
    """The pairs of the given photographs, their distances computed a block at a time."""
    distances = np.empty(len(left))
    for start in range(0, len(left), 65_536):
        part = slice(start, start + 65_536)
        distances[part] = np.linalg.norm(points[left[part]] - points[right[part]], axis=1)
    return Pairs(distances, person[left] == person[right], person[left], person[right], fold)


def as_encodings(encodings: Any) -> NDArray[np.float64]:
    """Finite encodings (n, d) in float64."""
    points = np.asarray(encodings)
    if points.ndim != 2 or not np.issubdtype(points.dtype, np.floating):
        raise ShapeError(f"[pairs] expects encodings (n, d) of floats, got {points.dtype} {points.shape}")
    if not np.isfinite(points).all():
        raise ArgumentError("[pairs] expects finite encodings, got NaN or infinity")
    return points.astype(np.float64)


def _numbered(labels: Any) -> NDArray[np.intp]:
    """People as numbers from 0, in the order of their names."""
    names = np.asarray(labels)
    if names.ndim != 1:
        raise ShapeError(f"[pairs] expects labels (n,), got {names.shape}")
    return np.unique(names, return_inverse=True)[1].astype(np.intp)


def _indices(person: Array, max_different: int) -> tuple[Array, Array]:
    """Row numbers of the photographs of every pair, the first below the second, in rising order."""
    count = len(person)
    members = np.bincount(person) if count else np.zeros(0, np.intp)
    different = (count * (count - 1) - int(np.sum(members * (members - 1)))) // 2
    if different <= max_different:
        left, right = np.triu_indices(count, 1)
        return left, right
    groups = (np.flatnonzero(person == p) for p in np.flatnonzero(members > 1))
    same = [np.stack([g[i] for i in np.triu_indices(len(g), 1)]) for g in groups]
    rng, drawn = np.random.default_rng(_SEED), np.zeros(0, np.int64)
    while len(drawn) < max_different:
        more = rng.integers(0, count, (2, max_different))
        more = more[:, person[more[0]] != person[more[1]]]
        drawn = np.union1d(drawn, np.min(more, axis=0) * count + np.max(more, axis=0))
    drawn = np.sort(rng.choice(drawn, max_different, replace=False))
    left, right = np.concatenate([*same, np.stack([drawn // count, drawn % count])], axis=1)
    order = np.lexsort((right, left))
    return left[order], right[order]
