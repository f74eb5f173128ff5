"""Small changes of a picture that leave it the same person's: mirror, shift, scale and light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, ShapeError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Augmentation:
    """How far pictures are changed, each by its own random amounts; 0 and False change nothing.

    flip: mirror every second picture, on average. shift: as a share of the side, in both directions. scale: the factor
    lies in [1 − scale, 1 + scale]. light: brightness, in [−light, light], is added, and contrast is multiplied by a
    factor in [1 − light, 1 + light].
    """

    flip: bool = True
    shift: float = 0.12
    scale: float = 0.2
    light: float = 0.3

    def __post_init__(self) -> None:
        if not isinstance(self.flip, (bool, np.bool_)):
            raise ArgumentError(f"[augment] expects flip as True or False, got {self.flip!r}")
        object.__setattr__(self, "flip", bool(self.flip))
        for name in ("shift", "scale", "light"):
            value = real("augment", name, getattr(self, name), "in [0, 1)")
            if not 0 <= value < 1:
                raise ArgumentError(f"[augment] expects {name} in [0, 1), got {value!r}")
            object.__setattr__(self, name, value)


def real(op: str, name: str, value: Any, rule: str) -> float:
    """`value`, a number of Python or NumPy, as a float; `ArgumentError` with the rule for anything else."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ArgumentError(f"[{op}] expects {name} {rule}, got {value!r:.80}")
    return float(value)


def augment(pictures: NDArray[np.uint8], how: Augmentation, rng: np.random.Generator) -> Floats:
    """The pictures as float32 in [0, 1], each changed at random; what lies beyond a border repeats it.

    pictures: uint8 (n, h, w, c). Shift, scale and mirror act on rows and columns alone, so a picture is resampled
    (linearly) first down, then across. The same generator state gives the same pictures.
    """
    if pictures.ndim != 4 or pictures.dtype != np.uint8:
        raise ShapeError(f"[augment] expects pictures as uint8 (n, h, w, c), got {pictures.dtype} {pictures.shape}")
    n, height, width, _ = pictures.shape
    draw = rng.uniform(-1, 1, (5, n)).astype(np.float32)
    mirrored = np.logical_and(rng.random(n) < 0.5, how.flip)
    factor = 1 + how.scale * draw[2]
    x = pictures.astype(np.float32)
    if how.shift or how.scale:
        x = _resampled(x, how.shift * height * draw[0], factor, np.zeros(n, bool))
        x = _resampled(x.swapaxes(1, 2), how.shift * width * draw[1], factor, mirrored).swapaxes(1, 2)
    else:
        x[mirrored] = x[mirrored, :, ::-1]
    contrast = (1 + how.light * draw[3]) / np.float32(255)
    offset = how.light * draw[4] + 0.5 * (1 - 255 * contrast)
    x *= contrast[:, None, None, None]
    x += offset[:, None, None, None]
    np.clip(x, 0, 1, out=x)
    result: Floats = np.ascontiguousarray(x)
    return result


def _resampled(x: Floats, shift: Floats, factor: Floats, mirrored: NDArray[np.bool_]) -> Floats:
    """x (n, h, ...) resampled along its second axis around the middle, edges repeated."""
    size = x.shape[1]
    middle = np.float32((size - 1) / 2)
    off = np.arange(size, dtype=np.float32) - middle
    sign = np.where(mirrored, np.float32(-1), np.float32(1))
    at = np.clip(off * (sign / factor)[:, None] + (middle + shift)[:, None], 0, size - 1)
    low = np.minimum(at.astype(np.intp), max(0, size - 2))
    part = (at - low).astype(np.float32)[:, :, None, None]
    rows = np.arange(len(x))[:, None]
    first, second = x[rows, low], np.asarray(x[rows, np.minimum(low + 1, size - 1)])
    second -= first
    second *= part
    second += first
    return second


def plain(pictures: NDArray[np.uint8]) -> Floats:
    """The pictures as float32 in [0, 1], unchanged."""
    x: Floats = pictures.astype(np.float32)
    x /= np.float32(255)
    return x
