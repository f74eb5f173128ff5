"""How well distances tell pairs of one class from pairs of two: what training looks at between its steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.errors import ArgumentError
from nstcore.faces.oneshot import one_shot

Array = NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """Of people who were not trained on.

    eer: the error rate at the threshold where as many pairs of one person are refused as pairs of two accepted.
    threshold: that distance. auc: the probability that a pair of one person is closer than a pair of two.
    one_shot: accuracy of one-shot identification with `ways` people. same, different: numbers of pairs.
    """

    eer: float
    threshold: float
    auc: float
    one_shot: float
    ways: int
    same: int
    different: int

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return asdict(self)


def equal_error_rate(distances: Array, same: Array) -> tuple[float, float]:
    """The equal error rate and its threshold, from all pairs: a pair counts as the same up to the threshold.

    The threshold lies in the middle between the two distances around the crossing, and the rate is the mean of both
    errors there. Raises `ArgumentError` unless there are pairs of both kinds.

    >>> equal_error_rate(np.array([0.1, 0.4, 0.3, 0.9]), np.array([True, True, False, False]))
    (0.5, 0.35)
    """
    distances, same = np.asarray(distances, np.float64), np.asarray(same, bool)
    ones, twos = int(same.sum()), int((~same).sum())
    if not ones or not twos:
        raise ArgumentError(f"[scores] expects pairs of one person and of two, got {ones} and {twos}")
    order = np.argsort(distances, kind="stable")
    values, kinds = distances[order], same[order]
    last = np.append(values[1:] > values[:-1], True)  # equal distances fall on one side together
    accepted = np.concatenate([[0], np.cumsum(~kinds)[last]]) / twos
    refused = np.concatenate([[ones], ones - np.cumsum(kinds)[last]]) / ones
    edges = values[last]
    at = int(np.argmin(np.abs(accepted - refused)))
    low, high = edges[max(0, at - 1)], edges[min(at, len(edges) - 1)]
    return float((accepted[at] + refused[at]) / 2), round(float((low + high) / 2), 12)


def score(encodings: Array, labels: Array, ways: int = 10) -> Scores:
    """All pairs of these photographs, and one-shot identification among up to `ways` of their people."""
    z = np.asarray(encodings, np.float64)
    first, second = np.triu_indices(len(z), 1)
    distances = np.sqrt(ops.pairwise_sqdist(z, z)[first, second])
    same = labels[first] == labels[second]
    eer, threshold = equal_error_rate(distances, same)
    ways = min(ways, len(np.unique(labels)))
    found = one_shot(z, labels, ways, resamples=1)
    return Scores(eer, threshold, _area(distances, same), found.accuracy, ways, int(same.sum()), int((~same).sum()))


def _area(distances: Array, same: Array) -> float:
    """The area under the ROC curve: the share of (one, two) that are in order, half of it for ties."""
    ones, twos = np.sort(distances[same]), distances[~same]
    closer = np.searchsorted(ones, twos, "left") + np.searchsorted(ones, twos, "right")
    return float(np.mean(closer) / (2 * len(ones)))
