"""What a gallery gives: people, photographs, and what became of one that was enrolled."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nstcore.errors import ArgumentError

MAX_NAME = 200
# Zl, Zp: line and paragraph separators; Cc: newlines and escape sequences; Cs: half a character, Cn: none.
_REFUSED = {"Cc": "a control character", "Cs": "half a character", "Zl": "a line break", "Zp": "a line break"}
_TURNS = frozenset(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)  # would show other text around them reversed


@dataclass(frozen=True)
class Person:
    """Somebody in a gallery.

    photos: how many photographs, those of the merged names among them.
    merged: the names that were merged into this one.
    removed: whether the person is left out of the answers.
    """

    name: str
    photos: int
    merged: tuple[str, ...] = ()
    removed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return {**asdict(self), "merged": list(self.merged)}


@dataclass(frozen=True)
class Photo:
    """One photograph of a gallery: facts alone, never the picture.

    id: number of the photograph in this gallery, in the order of enrolment.
    name: the person's name. enrolled_as: the name before a merge, else the same.
    source: name of the file without its folders; None for one that came without a file.
    digest: SHA-256 of the file, in hex; None for an encoding that came without a picture.
    about: `box`, `landmarks` and `score` of the face in pixels, and `quality`, where they are known.
    """

    id: int
    name: str
    enrolled_as: str
    source: str | None = None
    digest: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return {**asdict(self), "about": dict(self.about)}


@dataclass(frozen=True)
class Enrolment:
    """What became of a photograph that was enrolled.

    added: False where this very picture was there already; nothing was changed then.
    warnings: sentences, such as one about somebody else who looks the same; empty if all is well.
    """

    photo: Photo
    added: bool
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return {"added": self.added, "warnings": list(self.warnings), "photo": self.photo.to_json()}


@dataclass(frozen=True)
class Found:
    """A person that `Gallery.search` found.

    distance: Euclidean, to the nearest of the person's photographs.
    photo: the number of that photograph. photos: how many photographs the person has.
    probability: that this photograph is of the same person, by the gallery's verification head; None without one.
    """

    name: str
    distance: float
    photo: int
    photos: int
    probability: float | None = None


def clean_name(name: object) -> str:
    """A person's name as a gallery keeps it: Unicode's composed form (NFC), without blanks at the ends.

    Raises `ArgumentError` for an empty name, one longer than 200 characters, and line breaks, control characters
    and others that would let a name show as something else.

    >>> clean_name("  Zoe\u0308 ")
    'Zoë'
    """
    if not isinstance(name, str):
        raise ArgumentError(f"[gallery] expects a name as text, got {type(name).__name__}")
    # Composing takes time that grows with the length, so the length comes first.
    clean = unicodedata.normalize("NFC", name[: 4 * MAX_NAME]).strip()
    if not clean:
        raise ArgumentError("[gallery] expects a name, got an empty one")
    for character in clean:
        problem = _REFUSED.get(unicodedata.category(character))
        if problem or character in _TURNS:
            problem = problem or "a character that changes the direction of writing"
            raise ArgumentError(f"[gallery] expects a name on one line, got {problem} in {clean[:40]!a}")
    if len(name) > 4 * MAX_NAME or len(clean) > MAX_NAME:
        raise ArgumentError(f"[gallery] expects a name of at most {MAX_NAME} characters, got {len(name)}")
    return clean


def source_name(source: object) -> str | None:
    """What is kept of a file's name: no folders, which tell about the machine; bytes that are no text as '?'."""
    if source is None:
        return None
    text = str(source).replace("\\", "/").rstrip("/").rpartition("/")[2]
    plain = "".join("?" if unicodedata.category(c) in _REFUSED or c in _TURNS else c for c in text)
    return plain[-MAX_NAME:] or None
