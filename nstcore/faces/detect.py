"""Where the faces are in a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nstcore import images
from nstcore.errors import ArgumentError
from nstcore.faces.face import Face
from nstcore.ops._op import whole

if TYPE_CHECKING:
    from nstcore.models import MTCNN

MIN_SIZE = 20
THRESHOLDS = (0.6, 0.7, 0.7)
MAX_SIDE = 4096
_SMALLEST = 6  # pixels; below, a face would have to be enlarged more than twice


def detect(
    image: images.Source,
    *,
    min_size: float = MIN_SIZE,
    thresholds: tuple[float, float, float] = THRESHOLDS,
    max_faces: int | None = None,
    max_side: int | None = MAX_SIDE,
    max_pixels: int = images.MAX_PIXELS,
    model: MTCNN | None = None,
) -> list[Face]:
    """Find the faces in a picture, the largest first.

    Args:
        image: a path, a file object, a Pillow image or an array, as `nstcore.images.load` takes them: rotation by EXIF
            is carried out first, and grey and transparent pictures are read too.
        min_size: side of the smallest face to look for, in pixels of the picture, at least 6; the time grows with
            1 / min_size². Clear faces of half that size may still be found.
        thresholds: the probabilities that the three networks must give, each in [0, 1].
        max_faces: keep so many, the largest; None keeps all.
        max_side: a picture with a longer side than this is searched in a smaller copy, in which faces below the smaller
            of `min_size` and 20 pixels are not looked for; None searches every picture as it is, with 12 bytes of
            memory a pixel and as much again for the largest level of the pyramid.
        max_pixels: the most pixels that the picture may have.
        model: the networks; None takes those with the embedded weights.

    Returns:
        The faces, in pixels of the upright picture; none gives an empty list. Boxes and landmarks may reach beyond the
        picture where its border cuts a face.

    Raises:
        ImageError: no picture, damaged, or too large. ArgumentError: an option outside its range.
        ShapeError, DTypeError: an array that is no picture.

    Source: Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks", 2016.

    >>> detect(np.zeros((100, 100, 3), np.uint8))
    []
    """
    from nstcore.faces import _cascade

    _check(min_size, thresholds, max_faces, max_side)
    if whole("detect", "max_pixels", max_pixels) < 1:
        raise ArgumentError(f"[detect] expects max_pixels of at least 1, got {max_pixels}")
    levels = _read(image, max_pixels)
    shrunk = 1.0
    if max_side is not None and max(levels.shape[:2]) > max_side:
        shrunk = max_side / max(levels.shape[:2])
        height, width = (max(1, round(side * shrunk)) for side in levels.shape[:2])
        levels = _levels(images.resize_to(levels, height, width))
    smallest = min_size if shrunk == 1 else max(min_size * shrunk, min(min_size, MIN_SIZE))
    nets = _cascade.embedded_networks() if model is None else model
    boxes, landmarks, scores = _cascade.run(levels, smallest, thresholds, nets)
    back = np.float32(1 / shrunk)
    order = np.argsort(-((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])), kind="stable")[:max_faces]
    return [_face(boxes[i] * back, landmarks[i] * back, scores[i]) for i in order]


def _face(box: NDArray[np.float32], landmarks: NDArray[np.float32], score: np.float32) -> Face:
    left, top, right, bottom = map(float, box)
    return Face((left, top, right, bottom), landmarks, float(score))


def _read(image: images.Source, max_pixels: int) -> NDArray[np.uint8]:
    """A picture of any kind as uint8 (h, w, 3); one that is that already is not copied."""
    ready = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if isinstance(image, np.ndarray) and ready and 0 < image.size <= 3 * max_pixels:
        return image
    return _levels(images.readable(image, max_pixels=max_pixels))


def _levels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture in [0, 1] as levels from 0 to 255, a few rows at a time."""
    levels = np.empty(image.shape, np.uint8)
    for start in range(0, len(image), 64):
        np.rint(image[start : start + 64] * np.float32(255), out=levels[start : start + 64], casting="unsafe")
    return levels


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _check(min_size: Any, thresholds: Any, max_faces: Any, max_side: Any) -> None:
    if not _is_number(min_size) or not _SMALLEST <= min_size < math.inf:
        raise ArgumentError(f"[detect] expects min_size of at least {_SMALLEST} pixels, got {min_size!r}")
    three = isinstance(thresholds, (tuple, list, np.ndarray)) and len(thresholds) == 3
    if not three or not all(_is_number(value) and 0 <= value <= 1 for value in thresholds):
        raise ArgumentError(f"[detect] expects three thresholds in [0, 1], got {thresholds!r}")
    for name, value in (("max_faces", max_faces), ("max_side", max_side)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            raise ArgumentError(f"[detect] expects {name} as a whole number of at least 1, got {value!r}")
