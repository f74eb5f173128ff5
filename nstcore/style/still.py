"""What of a clip does not move, and the cost that keeps it still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.backend import current_backend, moved

Array = NDArray[Any]

NOISE, CHANGE = 0.02, 0.06  # of the pixel range: differences below are noise of the camera, those above a change
AROUND = 3  # pixels, to each side, of which the largest mean difference counts


def still_parts(before: Array, photo: Array) -> Array:
    """Where two photographs (h, w, 3) of one size are the same: float32 (h, w), 1 there, 0 where something changed.

    The difference, of the channel where it is largest, is averaged over 3 × 3 pixels, which removes noise; then the
    largest within 3 pixels counts, since what the network sees of a moving edge reaches beyond it.

    >>> still_parts(np.zeros((8, 8, 3)), np.zeros((8, 8, 3))).min()
    1.0
    """
    difference = np.abs(photo - before).max(2)
    mean = np.mean(_windows(difference, 1), axis=0)
    largest = np.maximum.reduce(_windows(mean, AROUND))
    still: Array = np.clip((CHANGE - largest) / (CHANGE - NOISE), 0, 1).astype(np.float32)
    return still


def flicker(frames: list[Array], photos: list[Array]) -> float:
    """The mean absolute change, from frame to frame, of the pixels whose photographs do not change."""
    changes, places = 0.0, 0.0
    for i in range(1, len(frames)):
        still = still_parts(photos[i - 1], photos[i])
        changes += float(np.sum(np.abs(frames[i] - frames[i - 1]).mean(2) * still))
        places += float(still.sum())
    return float(changes / places) if places else 0.0


@dataclass(frozen=True, eq=False)
class Still:
    """What a frame has in common with the one before, whose picture it starts from there.

    still: (h, w) in [0, 1], 1 where nothing changed. weight: how much that stays. first: the first photograph of all.
    """

    still: Array
    weight: float
    first: Array


class StillTerm:
    """W / (h w c) Σ m (x − x_before)²; m: where the photograph is still, x_before: the picture before.

    Source: Ruder, Dosovitskiy, Brox, "Artistic Style Transfer for Videos", GCPR 2016, equation 7, without motion.
    """

    name = "still"

    def __init__(self, before: Array, still: Array, weight: float) -> None:
        self.weight = weight
        self._before, self._still = (moved(a[None], current_backend()) for a in (before, still[:, :, None]))

    def add(self, pixels: Array, grad: Array | None) -> float:
        """See `nstcore.style.extra.Extra.add`."""
        difference = pixels - self._before.astype(pixels.dtype)
        slope = difference * self._still.astype(pixels.dtype)
        cost = float(np.sum(slope * difference, dtype=np.float64) / difference.size)
        if grad is not None:
            grad += slope * pixels.dtype.type(2 * self.weight / difference.size)
        return cost


def _windows(a: Array, reach: int) -> list[Array]:
    """`a` (h, w) moved by up to `reach` pixels each way; beyond its border it goes on as at the border."""
    wide = np.pad(a, reach, mode="edge")
    steps = range(2 * reach + 1)
    return [wide[i : i + a.shape[0], j : j + a.shape[1]] for i in steps for j in steps]
