"""Parts of a picture shrunk by averaging, all from one table of sums.

Every pixel of a shrunk part is the mean of the pixels it touches: of n pixels to m, number i averages those from
⌊i n / m⌋ to ⌈(i + 1) n / m⌉. With a table of the sums over everything above and left of each corner, a mean takes four
look-ups however many pixels it covers (Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984), and since the
sums are of whole numbers they are exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nstcore.backend.cpu import native
from nstcore.backend.memory import empty

Floats = NDArray[np.float32]


class AreaMeans:
    """The table of sums of a picture, uint8 (h, w, 3); it takes twelve bytes a pixel.

    Sums are kept modulo 2³², which leaves their differences right as long as no mean covers 2³² / 255 pixels or more.
    shift, scale: what the means are given as, (mean − shift) · scale.
    """

    def __init__(self, levels: NDArray[np.uint8], shift: float = 0.0, scale: float = 1.0) -> None:
        self.height, self.width = levels.shape[:2]
        self.shift, self.scale = shift, scale
        self._sums = empty(((self.height + 1) * (self.width + 1) * 3 + 1,), np.uint32)
        native.area_sums(np.ascontiguousarray(levels), self._sums)

    def resized(self, height: int, width: int) -> Floats:
        """The whole picture as float32 (1, height, width, 3)."""
        return self._means(np.array([[0, 0, self.width, self.height]]), height, width)

    def windows(self, boxes: NDArray[np.int64], side: int) -> Floats:
        """Parts of the picture as float32 (n, side, side, 3).

        boxes: (n, 4), left, top, right and bottom in whole pixels, inside the picture and not empty.
        """
        return self._means(boxes, side, side)

    def _means(self, boxes: NDArray[np.int64], height: int, width: int) -> Floats:
        result: Floats = empty((len(boxes), height, width, 3), np.float32)
        edges = np.ascontiguousarray(boxes, np.int64)
        native.area_means(self._sums, self.height, self.width, edges, self.shift, self.scale, result)
        return result
