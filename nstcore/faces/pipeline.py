"""From a picture to the encodings of its faces: detect, align, encode."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import images
from nstcore.errors import ArgumentError, NoFaceError, SeveralFacesError
from nstcore.faces.align import align, jittered
from nstcore.faces.detect import MIN_SIZE, THRESHOLDS, detect
from nstcore.faces.encoder import Encoder, check_jitter, load_encoder
from nstcore.faces.face import Face
from nstcore.faces.squares import SQUARE, middle_square, square_of

Encoded = tuple[Face, NDArray[np.float32]]

#: The detector's own last threshold, 0.7, lets hair, hands and folds of cloth pass; docs/guide/faces-thresholds.md has
#: the measurement behind this one.
MIN_SCORE = 0.98
#: Where one face is wanted, another box with a lower score and at most this part of its area is passed over.
SMALL_BESIDE = 0.1


def encode_faces(
    image: images.Source,
    *,
    encoder: Encoder | None = None,
    flip: bool = False,
    jitter: int = 0,
    seed: int = 0,
    min_size: float = MIN_SIZE,
    min_score: float = MIN_SCORE,
    max_faces: int | None = None,
    max_pixels: int = images.MAX_PIXELS,
) -> list[Encoded]:
    """The faces of a picture and their encodings (128,), the largest face first; none gives an empty list.

    An encoder of squares (`Encoder.chips`) looks for no face: it gives the middle square of the picture as a `Face`
    without landmarks, and its encoding; `min_size`, `min_score` and `max_faces` do not count then.

    Args:
        image: as `nstcore.images.load` takes it.
        encoder: another one than the package's.
        flip, jitter, seed: as `Encoder.encode`; jittered copies are cut from the picture itself.
        min_size, max_faces, max_pixels: as `detect`.
        min_score: the probability that the detector must give a face, in [0, 1].

    Raises `ImageError`, `ShapeError`, `DTypeError` for what is no picture, `ArgumentError`.

    >>> encode_faces(np.zeros((100, 100, 3), np.uint8))
    []
    """
    copies = check_jitter(jitter, flip)
    if isinstance(min_score, bool) or not isinstance(min_score, (int, float, np.number)) or not 0 <= min_score <= 1:
        raise ArgumentError(f"[faces] expects min_score in [0, 1], got {min_score!r}")
    picture = images.readable(image, max_pixels=max_pixels)
    encoder = encoder or load_encoder()
    if encoder.chips == SQUARE:
        chip = middle_square(picture, encoder.chip)
        return [(square_of(*picture.shape[:2]), encoder.encode(chip, flip=flip, jitter=copies, seed=seed)[0])]
    passed = (*THRESHOLDS[:2], min_score)
    faces = detect(picture, min_size=min_size, thresholds=passed, max_faces=max_faces, max_pixels=max_pixels)
    if not faces:
        return []
    if not copies:
        return list(zip(faces, encoder.encode(align(picture, faces, encoder.chip), flip=flip), strict=True))
    return [
        (f, encoder.mean(*encoder.encode(jittered(picture, f, copies, seed=seed, size=encoder.chip)))) for f in faces
    ]


def encode_one(image: images.Source, *, task: str = "faces", name: str | None = None, **options: Any) -> Encoded:
    """The one face of a picture and its encoding.

    A second box of at most a tenth of the largest one's area and a lower score, such as a fold of cloth or somebody far
    behind, is passed over with a warning: nobody who is meant to be enrolled is so small beside another.

    task: the operation that errors name. name: what errors call the picture; by default its file.
    options: as `encode_faces`.

    Raises:
        NoFaceError: no face was found. SeveralFacesError: more than one was; the message has their boxes.
        What `encode_faces` raises.
    """
    called = name or picture_name(image)
    found = encode_faces(image, **options)
    small = small_beside([face for face, _ in found])
    if any(small):
        boxes = ", ".join(box_text(face) for passed_over, (face, _) in zip(small, found, strict=True) if passed_over)
        warnings.warn(f"[{task}] {called}: a small second face is passed over: {boxes}", stacklevel=2)
        found = [encoded for passed_over, encoded in zip(small, found, strict=True) if not passed_over]
    if not found:
        size, score = options.get("min_size", MIN_SIZE), options.get("min_score", MIN_SCORE)
        limits = f"of at least {size:g} pixels that the detector is {score:.0%} sure of"
        raise NoFaceError(f"[{task}] {called}: expects one face, found none {limits}")
    if len(found) > 1:
        boxes = ", ".join(box_text(face) for face, _ in found[:8]) + (", ..." if len(found) > 8 else "")
        error = SeveralFacesError(
            f"[{task}] {called}: expects one face, found {len(found)}, from the largest: {boxes} "
            "(left, top, right, bottom); cut the picture around one of them"
        )
        error.faces = tuple(face for face, _ in found)
        raise error
    return found[0]


def small_beside(faces: Sequence[Face]) -> list[bool]:
    """Which of the faces, the largest first, are small beside the largest and less certain than it."""
    areas = [face.width * face.height for face in faces]
    return [
        area <= SMALL_BESIDE * areas[0] and face.score < faces[0].score for area, face in zip(areas, faces, strict=True)
    ]


def box_text(face: Face) -> str:
    """The box in whole pixels.

    >>> box_text(Face((1.2, 2.0, 30.7, 40.4), np.zeros((5, 2), np.float32), 1.0))
    '(1, 2, 31, 40)'
    """
    return "({}, {}, {}, {})".format(*(round(value) for value in face.box))


def picture_name(image: images.Source) -> str:
    """The file that a picture came from, as far as it is known."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    return str(getattr(image, "filename", None) or getattr(image, "name", None) or "the picture")
