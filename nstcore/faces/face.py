"""A face as the detector found it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LANDMARKS = ("left eye", "right eye", "nose", "left corner of the mouth", "right corner of the mouth")


@dataclass(frozen=True, eq=False)
class Face:
    """Where a face is in a picture, in pixels from the upper left corner; x to the right, y down.

    box: (left, top, right, bottom); may reach beyond the picture where the border cuts the face.
    landmarks: float32 (5, 2), (x, y) of `LANDMARKS`; left and right as one looks at the picture. (0, 2) for the square
        that an encoder of squares takes, where no face was looked for.
    score: the detector's probability that this is a face, in [0, 1].
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    score: float

    @property
    def width(self) -> float:
        """Width of the box."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """Height of the box."""
        return self.box[3] - self.box[1]

    def to_json(self) -> dict[str, Any]:
        """Give plain values: box, landmarks as pairs, score."""
        return {"box": list(self.box), "landmarks": self.landmarks.tolist(), "score": self.score}
