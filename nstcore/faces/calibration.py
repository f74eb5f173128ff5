"""From a distance between two encodings to a decision and a probability."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from nstcore.errors import GalleryError

_LONGEST = 16_384  # characters of a calibration in a file


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

    def is_sound(self) -> bool:
        """Whether every field has a value that it may have: a file may hold anything."""
        numbers: Iterable[Any] = (
            self.threshold, self.slope, self.offset, self.same, self.different, self.false_accept_rate or 0
        )  # fmt: skip
        plain = all(isinstance(n, (int, float)) and not isinstance(n, bool) and abs(n) < 1e12 for n in numbers)
        kinds = isinstance(self.calibrated, bool) and isinstance(self.source, str) and len(self.source) < _LONGEST // 8
        return plain and self.threshold >= 0 and kinds

    @classmethod
    def from_stored(cls, text: str) -> Calibration:
        """From what `to_json` gave, as JSON. Raises `GalleryError`."""
        try:
            facts = json.loads(text) if len(text) <= _LONGEST else None
            calibration = cls(**facts) if isinstance(facts, dict) else None
        except (ValueError, TypeError, RecursionError):
            calibration = None
        if calibration is None or not calibration.is_sound():
            raise GalleryError("[gallery] the file is damaged: its calibration cannot be read")
        return calibration
