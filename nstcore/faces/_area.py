"""Parts of a picture shrunk by averaging, all from one table of sums.

Every pixel of a shrunk part is the mean of the pixels it touches: of n pixels to m, number i averages those from
⌊i n / m⌋ to ⌈(i + 1) n / m⌉. With a table of the sums over everything above and left of each corner, a mean takes four
look-ups however many pixels it covers (Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984), and since the
sums are of whole numbers they are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class AreaMeans:
    """The table of sums of a picture, uint8 (h, w, 3); it takes four times three bytes a pixel.

    Sums are kept modulo 2³², which leaves their differences right: no mean covers 2³² / 255 pixels.
    """

    def __init__(self, levels: NDArray[np.uint8]) -> None:
        self.height, self.width, channels = levels.shape
        self._sums = np.zeros((self.height + 1, self.width + 1, channels), np.uint32)
        sums = self._sums[1:, 1:]
        sums[...] = levels
        for row in range(1, self.height):  # row by row: cumsum along the first axis would stride through memory
            sums[row] += sums[row - 1]
        for channel in range(channels):
            np.cumsum(sums[:, :, channel], axis=1, out=sums[:, :, channel])

    def resized(self, height: int, width: int) -> Floats:
        """The whole picture as float32 (height, width, 3), values in 0–255."""
        top, bottom = (edge[0] for edge in _edges(np.array([0]), np.array([self.height]), height))
        left, right = (edge[0] for edge in _edges(np.array([0]), np.array([self.width]), width))
        result = np.empty((height, width, self._sums.shape[2]), np.float32)
        columns = (right - left).astype(np.float32)[:, None]
        for start in range(0, height, 64):  # a few rows at a time stay in the cache
            rows = slice(start, start + 64)
            bands = self._sums.take(bottom[rows], axis=0) - self._sums.take(top[rows], axis=0)
            total = bands.take(right, axis=1) - bands.take(left, axis=1)
            np.divide(total, columns * (bottom[rows] - top[rows]).astype(np.float32)[:, None, None], out=result[rows])
        return result

    def windows(self, boxes: Integers, side: int) -> Floats:
        """Parts of the picture as float32 (n, side, side, 3), values in 0–255.

        boxes: (n, 4), left, top, right and bottom in whole pixels, inside the picture and not empty.
        """
        left, right = _edges(boxes[:, 0], boxes[:, 2], side)
        top, bottom = _edges(boxes[:, 1], boxes[:, 3], side)
        flat, row = self._sums.reshape(-1, self._sums.shape[2]), self.width + 1

        def at(y: Integers, x: Integers) -> NDArray[Any]:
            return flat.take((y * row)[:, :, None] + x[:, None, :], axis=0)

        total = at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)
        area = (bottom - top)[:, :, None] * (right - left)[:, None, :]
        return np.asarray(total / area[..., None].astype(np.float32), np.float32)


def _edges(first: Integers, last: Integers, count: int) -> tuple[Integers, Integers]:
    """Where each of `count` parts of the pixels from `first` to `last` begins and ends: two arrays (n, count)."""
    steps, length = np.arange(count + 1), (last - first)[:, None]
    begin = first[:, None] + steps[:-1] * length // count
    end = first[:, None] - (-steps[1:] * length // count)
    return begin, end
