"""Keeping a photograph's colours: painting its brightness alone, or giving the paintings its colours first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
FAINTEST = 0.01  # standard deviation of a colour below which it is noise, which is not made stronger


def luminance(picture: Array) -> Array:
    """Brightness (h, w) of a picture (h, w, 3), as BT.601 weighs the channels; in the picture's type and range."""
    bright: Array = picture @ LUMA.astype(picture.dtype)
    return bright


def as_grey(picture: Array) -> Array:
    """The brightness of a picture in all three channels, float32 (h, w, 3)."""
    bright = np.clip(luminance(picture), 0, 1).astype(np.float32, copy=False)
    return np.repeat(bright[:, :, None], 3, axis=2)


def match_luminance(painting: Array, photo: Array) -> Array:
    """`painting` in grey, with the mean and standard deviation of `photo`'s brightness, float32 (h, w, 3) in [0, 1].

    Source: Gatys et al., "Preserving Color in Neural Artistic Style Transfer", 2016, section 3.2.
    """
    ours, theirs = luminance(painting), luminance(photo)
    ratio = float(theirs.std()) / max(float(ours.std()), FAINTEST)
    return as_grey(np.repeat(((ours - ours.mean()) * ratio + theirs.mean())[:, :, None], 3, axis=2))


def match_colors(painting: Array, photo: Array) -> Array:
    """`painting` with the mean and covariance of `photo`'s colours, float32 (h, w, 3) clipped to [0, 1].

    The colours are moved as little as the covariances allow: x ← T (x − μ_p) + μ_c with the symmetric
    T = P^-½ (P^½ C P^½)^½ P^-½. A picture without colour, or of one colour, gives finite values.
    Source: Pitié, Kokaram, "The linear Monge-Kantorovitch linear colour mapping", CVMP 2007, equation 9.

    >>> grey, red = np.full((4, 4, 3), 0.5, np.float32), np.zeros((4, 4, 3), np.float32) + np.float32([1, 0, 0])
    >>> match_colors(grey, red)[0, 0].tolist()
    [1.0, 0.0, 0.0]
    """
    ours, theirs = painting.reshape(-1, 3).astype(np.float64), photo.reshape(-1, 3).astype(np.float64)
    root = _power(np.cov(ours.T, bias=True), 0.5, floor=FAINTEST**2)
    inverse = np.linalg.inv(root)
    change = inverse @ _power(root @ np.cov(theirs.T, bias=True) @ root, 0.5) @ inverse
    moved = (ours - ours.mean(0)) @ change.T + theirs.mean(0)
    result: Array = np.clip(moved, 0, 1).reshape(painting.shape).astype(np.float32)
    return result


def _power(matrix: Array, exponent: float, floor: float = 0.0) -> Array:
    """A symmetric, positive semidefinite matrix to a power, its eigenvalues at least `floor`."""
    values, vectors = np.linalg.eigh(matrix)
    raised: Array = (vectors * np.maximum(values, floor) ** exponent) @ vectors.T
    return raised


def with_luminance(colors: Array, bright: Array) -> Array:
    """The picture `colors` (h, w, 3) with the brightness of `bright` (h, w, 3), float32 clipped to [0, 1]."""
    difference = luminance(bright) - luminance(colors)
    result: Array = np.clip(colors + difference[:, :, None], 0.0, 1.0).astype(np.float32)
    return result
