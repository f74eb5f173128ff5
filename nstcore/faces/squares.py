"""The middle square of a picture: what encoders of other classes than faces take, in place of an aligned face."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import images
from nstcore._chips import FACE, KINDS, SQUARE
from nstcore.faces.face import Face

__all__ = ["FACE", "KINDS", "SQUARE", "middle_square", "square_of"]


def square_of(height: int, width: int) -> Face:
    """The middle square of a picture as a box without landmarks; nothing was looked for, so its score is 1.

    >>> square_of(4, 10).box
    (3.0, 0.0, 7.0, 4.0)
    """
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    box = (float(left), float(top), float(left + edge), float(top + edge))
    return Face(box, np.empty((0, 2), np.float32), 1.0)


def middle_square(picture: NDArray[Any], side: int) -> NDArray[np.uint8]:
    """The middle square of a picture (h, w, 3), float in [0, 1], brought to uint8 (side, side, 3)."""
    left, top, right, bottom = (int(edge) for edge in square_of(*picture.shape[:2]).box)
    return images.to_bytes(images.resize_to(picture[top:bottom, left:right], side, side))
