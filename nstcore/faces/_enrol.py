"""From a picture to one encoding with the facts that a gallery keeps about it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import images
from nstcore.errors import ArgumentError, ImageError, NoFaceError, SeveralFacesError
from nstcore.faces.align import align
from nstcore.faces.detect import detect
from nstcore.faces.face import Face
from nstcore.faces.quality import MIN_SCORE, problems, quality
from nstcore.faces.records import source_name

_CHUNK = 1 << 20


@dataclass(frozen=True)
class OneFace:
    """The face of a picture: what the encoder takes, facts for the file, and what speaks against it."""

    chip: NDArray[np.float32]
    about: dict[str, Any]
    problems: list[str]


def name_of(image: Any) -> str:
    """How a picture is called in a message."""
    return str(image) if isinstance(image, (str, os.PathLike)) else "the picture"


def fingerprint(image: images.Source) -> tuple[str | None, bytes]:
    """The name of a picture's file and its SHA-256; without a file, that of the pixels."""
    if not isinstance(image, (str, os.PathLike)):
        pixels = images.load(image)
        return None, hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()
    digest = hashlib.sha256()
    try:
        with open(image, "rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
    except (OSError, ValueError):
        images.load(image)  # says what is wrong with it
        raise ImageError(f"[enroll] {image} cannot be read") from None
    return source_name(os.fspath(image)), digest.digest()


def one_face(image: images.Source, which: int | None, what: str, options: dict[str, Any]) -> OneFace:
    """The only face of a picture, or the one that was chosen: 1 is the largest.

    Raises `NoFaceError`, `SeveralFacesError`, `ImageError`; `ArgumentError` for a number that no face has.
    """
    picture = images.load(image)
    faces = detect(picture, **options)
    face = faces[_choice(faces, which, f"[{what}] {name_of(image)}")]
    found = quality(picture, face)
    facts = {**face.to_json(), "quality": found.to_json()}
    about = {key: _rounded(value) for key, value in facts.items()}
    return OneFace(align(picture, face), about, problems(found))


def _choice(faces: Sequence[Face], which: int | None, where: str) -> int:
    if which is not None and not 1 <= which <= len(faces):
        raise ArgumentError(f"{where}: expects the number of a face, from 1 to {len(faces)}, got {which}")
    if not faces:
        raise NoFaceError(f"{where}: no face was found")
    if which is not None:
        return which - 1
    # beside a face that is one for sure, a box that may be none does not count
    sure = [place for place, face in enumerate(faces) if face.score >= MIN_SCORE] or list(range(len(faces)))
    if len(sure) > 1:
        error = SeveralFacesError(f"{where}: expects one face, found {len(sure)}: {_places(faces, sure)}")
        error.faces = tuple(faces)
        raise error
    return sure[0]


def _places(faces: Sequence[Face], which: list[int], most: int = 6) -> str:
    """Where the faces are, with the numbers by which one can be chosen."""
    shown = []
    for place in which[:most]:
        face = faces[place]
        size = f"{face.width:.0f} × {face.height:.0f} pixels at ({face.box[0]:.0f}, {face.box[1]:.0f})"
        shown.append(f"({place + 1}) {size}")
    return ", ".join(shown) + (", ..." if len(which) > most else "")


def _rounded(value: Any) -> Any:
    """Four digits behind the point: more would only fill the file."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value
