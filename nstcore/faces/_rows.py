"""Adding photographs to a gallery's file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError
from nstcore.faces._index import pack
from nstcore.faces.people import fact_sum, to_enrol
from nstcore.faces.records import source_name
from nstcore.faces.store import MAX_TEXT

_DIGEST = 32  # bytes of a SHA-256


@dataclass(frozen=True)
class Facts:
    """What is kept of a photograph besides its encoding."""

    source: str | None = None
    digest: bytes | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def checked(cls, source: object, digest: object, about: object) -> Facts:
        """From values of a caller or of a file. Raises `ArgumentError`."""
        try:
            plain = None if digest is None else bytes.fromhex(digest) if isinstance(digest, str) else b""
        except ValueError:
            plain = b""
        if plain is not None and len(plain) != _DIGEST:
            raise ArgumentError(f"[gallery] expects a digest as {2 * _DIGEST} hexadecimal digits, got {digest!r:.80}")
        if source is not None and not isinstance(source, str):
            raise ArgumentError(f"[gallery] expects the name of a file, got {type(source).__name__}")
        facts = cls(source_name(source), plain, dict(about) if isinstance(about, Mapping) else {})
        if about is not None and not isinstance(about, Mapping):
            raise ArgumentError(f"[gallery] expects facts as a table, got {type(about).__name__}")
        facts.text()
        return facts

    @property
    def hex(self) -> str | None:
        """The digest as text."""
        return None if self.digest is None else self.digest.hex()

    def text(self) -> str:
        """The facts as the file keeps them. Raises `ArgumentError` for what JSON cannot hold."""
        try:
            text = json.dumps(dict(self.about), allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(f"[gallery] expects facts that JSON can hold ({error})") from error
        if len(text) > MAX_TEXT:
            raise ArgumentError(f"[gallery] expects facts of at most {MAX_TEXT} characters, got {len(text)}")
        return text


def insert(
    connection: sqlite3.Connection,
    people: NDArray[np.int64],
    vectors: NDArray[np.float32],
    facts: Sequence[Facts] | None,
) -> int:
    """Add checked encodings (n, size) of the people with these numbers (n,); give the first photograph's number."""
    first = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM photo").fetchone()[0]
    photos = np.arange(first, first + len(vectors), dtype=np.int64)
    rows = zip(photos.tolist(), people.tolist(), pack(vectors, photos, people), strict=True)
    connection.executemany("INSERT INTO photo (id, person, encoding) VALUES (?, ?, ?)", rows)
    if facts is not None:
        known = (
            (number, fact.source, fact.digest, text := fact.text(), fact_sum(number, fact.source, fact.digest, text))
            for number, fact in zip(photos.tolist(), facts, strict=True)
            if fact != Facts()
        )
        connection.executemany("INSERT INTO fact (photo, source, digest, about, sum) VALUES (?, ?, ?, ?, ?)", known)
    return int(first)


def numbers(connection: sqlite3.Connection, names: Sequence[str]) -> NDArray[np.int64]:
    """The numbers of people who get photographs, new ones where nobody has the name; errors as `to_enrol`."""
    found = {name: to_enrol(connection, name) for name in dict.fromkeys(names)}
    return np.array([found[name] for name in names], np.int64)
