"""From a picture to one encoding with the facts that a gallery keeps about it."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nstcore import images
from nstcore.errors import ImageError, NoFaceError
from nstcore.faces.encoder import Encoder
from nstcore.faces.pipeline import encode_one, picture_name
from nstcore.faces.quality import MIN_SCORE, problems, quality
from nstcore.faces.records import source_name
from nstcore.faces.squares import SQUARE

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Portrait:
    """The one face of a picture: its encoding (size,), facts for the file, and what speaks against it."""

    encoding: NDArray[np.float32]
    about: dict[str, Any]
    problems: list[str]


class Picture:
    """A picture; a file object that can be read only once is read once."""

    def __init__(self, image: images.Source, max_pixels: int | None = None) -> None:
        self._limit = {} if max_pixels is None else {"max_pixels": max_pixels}
        self.name = picture_name(image)
        self._image: Any = image
        if hasattr(image, "read") and not _can_seek(image):
            try:
                self._image = io.BytesIO(image.read())
            except (OSError, ValueError, TypeError) as error:
                raise ImageError(f"[enroll] {self.name} cannot be read: {error}") from error

    def load(self) -> NDArray[np.float32]:
        """The pixels."""
        return images.load(self._image, **self._limit)

    def fingerprint(self) -> tuple[str | None, bytes]:
        """The name of the picture's file and the SHA-256 of its bytes; without a file, that of the pixels."""
        image = self._image
        try:
            if isinstance(image, (str, os.PathLike)):
                with open(image, "rb") as file:
                    return source_name(os.fspath(image)), _digest(file)
            if hasattr(image, "read"):
                image.seek(0)  # where images.load begins, too
                known = isinstance(getattr(image, "name", None), str)
                return source_name(image.name) if known else None, _digest(image)
        except (OSError, ValueError, TypeError):
            self.load()  # says what is wrong with it
            raise ImageError(f"[enroll] {self.name} cannot be read") from None
        pixels = self.load()
        return None, hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()


def _can_seek(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except (AttributeError, ValueError):
        return False


def _digest(file: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    while block := file.read(_CHUNK):
        digest.update(block)
    return digest.digest()


def portrait(picture: Picture, encoder: Encoder, check_quality: bool, options: dict[str, Any]) -> Portrait:
    """Find, judge and encode the face of a picture; options as `encode_faces`. A square is not judged: it is no face.

    Raises what `encode_one` raises; `NoFaceError` also for a face that is not good enough, if that is to be checked.
    """
    pixels = picture.load()
    face, encoding = encode_one(pixels, task="enroll", name=picture.name, encoder=encoder, **options)
    if encoder.chips == SQUARE:
        return Portrait(encoding, {"box": list(face.box)}, [])
    found = quality(pixels, face)
    against = problems(found, min_score=min(MIN_SCORE, options.get("min_score", MIN_SCORE)))
    if against and check_quality:
        raise NoFaceError(f"[enroll] {picture.name}: {'; '.join(against)} (the quality check can be switched off)")
    facts = {**face.to_json(), "quality": found.to_json()}
    return Portrait(encoding, {key: _rounded(value) for key, value in facts.items()}, against)


def _rounded(value: Any) -> Any:
    """Four digits behind the point: more would only fill the file."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value
