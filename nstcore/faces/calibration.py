"""From a distance between two encodings to a decision and a probability."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Calibration:
    """A threshold on the Euclidean distance of two encodings, and the probability that they are one person's.

    The probability is 1 / (1 + exp(slope · distance + offset)), fitted on pairs of which as many are of one person as
    of two: other proportions need another offset.

    threshold: two faces are taken for one person's when their distance is at most this.
    slope, offset: of the logistic curve.
    calibrated: True when fitted on the user's own pairs, False for what comes with the package.
    same, different: how many pairs of one person and of two it was fitted on.
    source: the data, in words.
    false_accept_rate: the rate that the threshold was chosen for; None where it was not chosen by a rate.
    """

    threshold: float
    slope: float
    offset: float
    calibrated: bool
    same: int
    different: int
    source: str
    false_accept_rate: float | None = None

    def probability(self, distance: float) -> float:
        """The probability, in [0, 1], that two faces at this distance are one person's."""
        exponent = self.slope * distance + self.offset
        return 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return asdict(self)
