"""From a picture to one encoding with the facts that a gallery keeps about it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import images
from nstcore.errors import ImageError, NoFaceError
from nstcore.faces.encoder import Encoder
from nstcore.faces.pipeline import encode_one, picture_name
from nstcore.faces.quality import problems, quality
from nstcore.faces.records import source_name

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Portrait:
    """The one face of a picture: its encoding (size,), facts for the file, and what speaks against it."""

    encoding: NDArray[np.float32]
    about: dict[str, Any]
    problems: list[str]


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


def portrait(image: images.Source, encoder: Encoder, check_quality: bool, options: dict[str, Any]) -> Portrait:
    """Find, judge and encode the face of a picture; options as `encode_faces`.

    Raises `NoFaceError` (also for a face that is not good enough, if that is to be checked) and what `encode_one` raises.
    """
    name = picture_name(image)
    limit = {key: options[key] for key in ("max_pixels",) if key in options}
    picture = images.load(image, **limit)
    face, encoding = encode_one(picture, task="enroll", name=name, encoder=encoder, **options)
    found = quality(picture, face)
    against = problems(found)
    if against and check_quality:
        raise NoFaceError(f"[enroll] {name}: {'; '.join(against)} (the quality check can be switched off)")
    facts = {**face.to_json(), "quality": found.to_json()}
    return Portrait(encoding, {key: _rounded(value) for key, value in facts.items()}, against)


def _rounded(value: Any) -> Any:
    """Four digits behind the point: more would only fill the file."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value
