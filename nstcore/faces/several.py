"""How often a stranger is taken for a person of whom several photographs are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.backend.arrays import to_host
from nstcore.faces.pairs import as_encodings, in_order

Array = NDArray[Any]

MAX_DISTANCES = 50_000_000  # between photographs; more are computed from fewer strangers, evenly taken
_STEPS = (1, 2, 3, 5, 8, 10, 20, 50, 100, 200, 500, 1000)
_BLOCK = 2_000_000  # distances at a time, 8 bytes each


def several_photographs(encodings: Any, labels: Any, threshold: float) -> tuple[tuple[int, float], ...]:
    """(n, rate): of comparisons of a photograph with another person, known by n photographs, how many are accepted.

    The nearest of the n decides, as in a gallery. Nothing is drawn: of a person with m photographs, k of them within
    the threshold, a choice of n has none of the k in C(m − k, n) of C(m, n) cases. Taken are people with at least n
    photographs; n is 1 and some more, up to the most that somebody has.

    encodings: float (n, d). labels: n names or numbers of people. Errors as `nstcore.faces.pairs.all_pairs`.

    >>> near = np.array([[0.0], [9.0], [1.0], [5.0]])
    >>> several_photographs(near, ["anna", "anna", "bob", "bob"], 1.5)
    ((1, 0.25), (2, 0.5))
    """
    points = as_encodings(encodings)
    order, person = in_order(points, labels)
    points, person = points[order], person[order]
    counts = np.bincount(person)
    if len(counts) < 2:
        return ()
    stride = -(-(len(points) ** 2) // MAX_DISTANCES)
    probes = np.arange(0, len(points), stride)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    steps = [n for n in _STEPS if n <= counts.max()]
    if counts.max() <= 20 and counts.max() not in steps:
        steps.append(int(counts.max()))
    events, trials = np.zeros(len(steps)), np.zeros(len(steps), np.int64)
    rows = max(1, _BLOCK // len(points))
    for first in range(0, len(probes), rows):
        part = probes[first : first + rows]
        within = to_host(ops.pairwise_sqdist(points[part], points)) <= threshold**2
        close = np.add.reduceat(within.astype(np.int64), starts, axis=1)
        others = person[part][:, None] != np.arange(len(counts))
        for index, n in enumerate(steps):
            asked = others & (counts >= n)
            known = np.broadcast_to(counts, close.shape)[asked]
            events[index] += np.sum(1 - _none(known, close[asked], n))
            trials[index] += known.size
    return tuple((n, float(e / t)) for n, e, t in zip(steps, events, trials, strict=True) if t)


def _none(known: Array, close: Array, n: int) -> Array:
    """C(known − close, n) / C(known, n): the share of choices of n that have none of the close ones."""
    share = np.ones(len(known))
    for i in range(n):
        share *= np.maximum(known - close - i, 0) / (known - i)
    return share
