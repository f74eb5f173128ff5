"""Pairs of faces: distances, whether they are one person's, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, ShapeError

Array = NDArray[Any]

MAX_PAIRS = 5_000_000  # pairs of one person, and of two, that are looked at; 25 bytes each
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


def all_pairs(encodings: Array, labels: Sequence[Any] | Array, *, most: int = MAX_PAIRS) -> Pairs:
    """Every pair of different photographs.

    Args:
        encodings: float (n, d). labels: n names or numbers of people.
        most: where there are more pairs of one person, or of two, than this, so many are drawn from that kind, each
            with the same chance; always the same ones, whatever the people are called and in whichever order they come.

    Memory goes with the photographs and the pairs that are taken, not with all pairs there are.
    Raises `ShapeError` for arrays that do not fit, `ArgumentError` for encodings that are not finite, or labels that
    cannot be told apart.

    >>> pairs = all_pairs(np.array([[0.0, 0], [3, 4], [0, 1]]), ["anna", "anna", "bob"])
    >>> pairs.distances.round(3).tolist(), pairs.same.tolist()
    ([5.0, 1.0, 4.243], [True, False, False])
    """
    points = as_encodings(encodings)
    order, person = in_order(points, labels)
    left, right = pair_rows(order, np.bincount(person), most)
    return between(points, person, left, right)


def in_order(points: NDArray[np.float64], labels: Any) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """An order (n,) of photographs, person by person, and whose each is, as numbers (n,) from 0 in that order.

    The order comes from the encodings alone, so that nothing that is dealt out or drawn by it depends on names of
    people and files: photographs by their coordinate along one fixed direction, people by the mean of theirs.

    >>> in_order(np.array([[3.0], [9.0], [1.0]]), ["b", "a", "b"])[1].tolist() in ([0, 1, 0], [1, 0, 1])
    True
    """
    names = _numbered(labels)
    if len(points) != len(names):
        raise ShapeError(f"[pairs] expects as many labels as encodings, got {len(names)} for {len(points)}")
    if not len(names):
        return names, names
    place = points @ np.random.default_rng(_SEED).standard_normal(points.shape[1])
    rank = np.argsort(np.bincount(names, place) / np.bincount(names), kind="stable")
    person = np.argsort(rank, kind="stable")[names]
    return np.lexsort((place, person)), person


def count_pairs(photographs: Any) -> tuple[int, int]:
    """How many pairs there are of one person and of two, from the number of photographs of each person.

    >>> count_pairs([2, 1])
    (1, 2)
    """
    counts = [int(count) for count in photographs]
    same = sum(count * (count - 1) // 2 for count in counts)
    return same, sum(counts) * (sum(counts) - 1) // 2 - same


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
    """People as numbers from 0."""
    try:
        names = np.asarray(labels)
        if names.ndim == 1 and not any(label is None for label in names[:]):
            return np.unique(names, return_inverse=True)[1].astype(np.intp)
    except (TypeError, ValueError):  # of several kinds, which have no order, or of several lengths
        raise ArgumentError("[pairs] expects labels of one kind, names or numbers, got several") from None
    if names.ndim == 1:
        raise ArgumentError("[pairs] expects a label for each photograph, got None")
    raise ShapeError(f"[pairs] expects labels (n,), got {names.shape}")


def pair_rows(order: NDArray[np.intp], members: Any, most: int) -> tuple[Array, Array]:
    """Row numbers of the photographs of every pair, the first below the second, in rising order.

    order: rows, person by person. members: photographs of each person, in that order.
    """
    if not len(order):
        return order, order
    rng = np.random.default_rng(_SEED)
    ends = np.cumsum(members)
    place = np.arange(len(order))
    end = np.repeat(ends, members)  # of the person of each place
    # a place is paired with those behind it: the same person's up to the end, other people's from there on
    kinds = ((place + 1, end - place - 1), (end, len(order) - end))
    found = [_behind(first, count, _numbers(int(count.sum()), most, rng)) for first, count in kinds]
    one, other = (order[part] for part in np.concatenate(found, axis=1))
    left, right = np.minimum(one, other), np.maximum(one, other)
    rising = np.lexsort((right, left))
    return left[rising], right[rising]


def _behind(first: Array, count: Array, numbers: Array) -> Array:
    """Pairs of places (2, m) by their numbers; place i makes the `count[i]` pairs with `first[i]` and those behind."""
    before = np.concatenate([[0], np.cumsum(count)])
    one = np.searchsorted(before, numbers, side="right") - 1
    return np.stack([one, first[one] + numbers - before[one]])


def _numbers(count: int, most: int, rng: np.random.Generator) -> Array:
    """The numbers below `count`, or `most` different ones of them with equal chances."""
    if count <= most:
        return np.arange(count)
    if count <= 4 * most:
        return rng.permutation(count)[:most]
    drawn = np.zeros(0, np.int64)
    while len(drawn) < most:  # at most a quarter is taken, so that few are met twice
        drawn = np.union1d(drawn, rng.integers(0, count, most))
    return rng.permutation(drawn)[:most]
