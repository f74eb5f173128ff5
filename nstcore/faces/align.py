"""From a face in a picture to the chip that the encoder takes: upright, centred, of one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import images, ops
from nstcore.autograd import Tensor
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, ShapeError
from nstcore.faces.face import Face
from nstcore.ops._op import whole

Array = NDArray[Any]
Matrix = NDArray[np.float64]

MAX_SIDE = 4096  # of a chip: 200 MB in float32
CHIP = 150  # the encoder's; a test compares them, since importing the models takes longer than this whole package
#: where the five landmarks shall lie in a chip of 150 × 150 pixels, counted from its upper left corner
TEMPLATE = np.array([(47.6, 44.8), (102.4, 44.8), (75.0, 77.1), (49.5, 104.3), (100.5, 104.3)])


def align(image: Any, face: Face | Sequence[Face], size: int = CHIP) -> Any:
    """Cut faces out of a picture so that eyes, nose and mouth lie where the encoder expects them.

    Args:
        image: the picture that the face was found in, as `nstcore.images.load` takes it; or a `Tensor` (h, w, 3) of RGB
            in [0, 1], through which gradients flow.
        face: one face, or several.
        size: side of the chip, in pixels, at most 4096.

    Returns:
        RGB in [0, 1], black where the picture ends: float32 (size, size, 3) for one face, (n, size, size, 3) for
        several; a tensor of its own type for a tensor.

    Raises:
        ImageError, ShapeError, DTypeError, ArgumentError: what `nstcore.images.load` refuses, or landmarks that all lie
        in one place.

    >>> from nstcore.faces import Face
    >>> face = Face((0, 0, 150, 150), TEMPLATE.astype(np.float32), 1.0)
    >>> align(np.zeros((150, 150, 3), np.uint8), [face, face]).shape
    (2, 150, 150, 3)
    """
    picture, side = _picture(image), _count("a size", size, 1, MAX_SIDE)
    one = isinstance(face, Face)
    faces = [face] if isinstance(face, Face) else list(face)
    chips = [_chip(picture, similarity(_landmarks(f), TEMPLATE * (side / CHIP)), side) for f in faces]
    if not chips:
        return np.zeros((0, side, side, 3), picture.dtype)
    return chips[0][0] if one else _joined(chips)


def visible(height: int, width: int, face: Face) -> float:
    """The part of a face's chip, from 0 to 1, that a picture of this size covers.

    >>> visible(150, 150, Face((0, 0, 150, 150), TEMPLATE.astype(np.float32), 1.0))
    1.0
    """
    ones = np.broadcast_to(np.float32(1), (height, width, 3))  # of no memory, however large
    return float(_chip(ones, similarity(_landmarks(face), TEMPLATE), CHIP).mean())


def jittered(image: Any, face: Face, count: int, *, seed: int = 0, size: int = CHIP) -> Any:
    """`count` chips of one face, each turned, scaled and moved a little: (count, size, size, 3).

    Turns are normal with a deviation of 3°, scales of 3 %, shifts of 1.5 % of the chip's side; every second chip is
    mirrored. The same seed gives the same chips, and the first ones do not depend on how many follow. Arguments and
    errors as `align`.
    """
    picture, side = _picture(image), _count("a size", size, 1, MAX_SIDE)
    base = np.vstack([similarity(_landmarks(face), TEMPLATE * (side / CHIP)), [0, 0, 1]])
    chips = [_chip(picture, change @ base, side) for change in _changes(count, side, seed)]
    return _joined(chips) if chips else np.zeros((0, side, side, 3), picture.dtype)


def jittered_chips(chips: Any, count: int, *, seed: int = 0) -> NDArray[np.floating[Any]]:
    """The same as `jittered` where the photograph is not at hand: (n, count, s, s, 3) from chips (n, s, s, 3).

    chips: RGB, float in [0, 1] or uint8; what a turned chip needs beyond its border is its border again. Every chip is
    changed in the same ways. Gives float32, float64 for float64. Raises what `nstcore.images.as_images` does.
    """
    batch = images.as_images(chips)
    side = batch.shape[1]
    if batch.shape[2] != side:
        raise ShapeError(f"[jittered_chips] expects chips (n, s, s, 3), got {batch.shape}")
    margin = -(-side // 8)
    wide = np.pad(batch, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    changes = _changes(count, side, seed)
    result = np.empty((len(batch), len(changes), *batch.shape[1:]), batch.dtype)
    for index, change in enumerate(changes):
        back = _inverse(change) + np.array([[0, 0, margin], [0, 0, margin]])
        np.clip(to_host(ops.warp_affine(wide, back, side)), 0, 1, out=result[:, index])
    return result


def _changes(count: int, side: int, seed: int) -> list[Matrix]:
    """Small similarities (2, 3) of a chip, about its centre; every second one mirrors it."""
    rng, centre, changes = np.random.default_rng(_count("a seed", seed, 0)), np.full(2, side / 2), []
    for index in range(_count("a count", count, 0)):
        turn, growth = rng.normal(0, np.deg2rad(3)), np.exp(rng.normal(0, 0.03))
        shift = rng.normal(0, 0.015 * side, 2)
        linear = growth * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        linear = linear * [[-1], [1]] if index % 2 else linear
        changes.append(np.column_stack([linear, centre + shift - linear @ centre]))
    return changes


def similarity(source: Array, target: Array) -> Matrix:
    """The turn, scale and shift, (2, 3), that brings points closest to others: min Σ ‖A · (x, y, 1) − target‖².

    source, target: (n, 2). No mirror image is ever taken.
    Source: Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", TPAMI 1991.

    >>> similarity(np.array([[0.0, 0], [1, 0]]), np.array([[1.0, 1], [1, 3]])).round(9) + 0.0
    array([[ 0., -2.,  1.],
           [ 2.,  0.,  1.]])
    """
    from_mean, to_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = (points.astype(np.float64) - mean for points, mean in ((source, from_mean), (target, to_mean)))
    spread = np.sum(a**2)
    if not spread > 0:
        raise ArgumentError(f"[align] expects landmarks in different places, got {source.tolist()}")
    # In the plane the best rotation and scale are one complex number: the projection of the targets on the points.
    real, imaginary = np.sum(a * b) / spread, np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / spread
    linear = np.array([[real, -imaginary], [imaginary, real]])
    return np.column_stack([linear, to_mean - linear @ from_mean])


def _count(name: str, value: int, least: int, most: int | None = None) -> int:
    found = whole("align", name, value)
    if found < least or (most is not None and found > most):
        limit = f"at least {least}" if found < least else f"at most {most}"
        raise ArgumentError(f"[align] expects {name} of {limit}, got {found}")
    return found


def _inverse(matrix: Matrix) -> Matrix:
    """The map back, (2, 3)."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def _landmarks(face: Face) -> Array:
    points = np.asarray(face.landmarks, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ShapeError(f"[align] expects landmarks (5, 2) of finite numbers, got {points.shape}")
    return points


def _picture(image: Any) -> Any:
    if not isinstance(image, Tensor):
        return images.readable(image)
    if len(image.shape) != 3 or image.shape[2] != 3:
        raise ShapeError(f"[align] expects a tensor (h, w, 3), got {image.shape}")
    return image


def _chip(picture: Any, matrix: Matrix, side: int) -> Any:
    """The chip (1, side, side, 3) that `matrix` maps the picture's pixels to.

    A face larger than the chip is first shrunk by averaging whole squares of pixels, as far as it stays at least as
    large as the chip: bilinear values of a picture that is not shrunk would skip pixels.
    """
    back = _inverse(matrix)
    corners = back @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]])
    step = max(1, int(np.sqrt(abs(np.linalg.det(back[:, :2])))))
    low = np.floor(corners.min(axis=1)).astype(int) - 2 * step
    high = np.ceil(corners.max(axis=1)).astype(int) + 2 * step
    (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, (picture.shape[1], picture.shape[0]))
    right, bottom = (first + max(0, last - first) // step * step for first, last in ((left, right), (top, bottom)))
    if right <= left or bottom <= top:
        return to_host(ops.warp_affine(np.zeros((1, 0, 0, 3), picture.dtype), back, side))
    part = picture[None, top:bottom, left:right]
    if step > 1:
        part = ops.avg_pool2d(part, step)
    back = (back - np.array([[0, 0, left], [0, 0, top]])) / step
    chip = ops.warp_affine(part, back, side)
    if isinstance(chip, Tensor):
        return chip
    here = to_host(chip)
    return np.clip(here, 0, 1, out=here)  # the weights of a mean, rounded, may add up to a little more than 1


def _joined(chips: list[Any]) -> Any:
    return ops.concat(chips) if any(isinstance(chip, Tensor) for chip in chips) else np.concatenate(chips)
