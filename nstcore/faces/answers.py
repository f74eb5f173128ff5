"""What verification and identification answer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from nstcore.faces.face import Face


@dataclass(frozen=True)
class Verification:
    """Whether two faces are one person's.

    distance: Euclidean, between the encodings (or by the gallery's rule, where a person has several photographs).
    margin: threshold − distance; the larger, the surer, negative where the answer is no.
    probability: by the calibration; `calibrated` tells whether that was fitted on the user's own pairs. Where `by_head`
    is true, it comes from a verification head instead.
    compared: what the face was compared with, such as a file or "anna (3 photographs)".
    """

    same: bool
    distance: float
    threshold: float
    margin: float
    probability: float
    calibrated: bool
    compared: str
    by_head: bool = False

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Match:
    """Who a face is: `name` is None for a stranger, whose nearest person is still told.

    face: where it is; None where only its encoding was given. nearest: the nearest person; None in an empty gallery,
    where the distance is infinite. The other fields are those of `Verification`, for `name` or else for `nearest`:
    where every person may have one face only, a face can have lost its nearest to another.
    """

    face: Face | None
    name: str | None
    nearest: str | None
    distance: float
    threshold: float
    margin: float
    probability: float
    calibrated: bool
    compared: str
    by_head: bool = False

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values; an infinite distance as None."""
        facts = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "face"}
        if math.isinf(self.distance):
            facts |= {"distance": None, "margin": None}
        return {**facts, "face": None if self.face is None else self.face.to_json()}
