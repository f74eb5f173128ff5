"""A gallery as an .npz: the encodings, and the facts as JSON. Nothing in it is ever unpickled or used as a path."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, GalleryError
from nstcore.faces import people as who
from nstcore.faces._index import body, unpack
from nstcore.faces._rows import Facts, insert
from nstcore.faces.records import clean_name
from nstcore.faces.store import MAX_SIZE
from nstcore.files import PathLike, atomic_write
from nstcore.weights import archive, npy
from nstcore.weights.format import array_digest, meta_digest

FORMAT, VERSION = "nstcore-gallery", 1
MAX_PHOTOS = 1 << 24
_KEYS = ("encodings", "facts")


@dataclass(frozen=True)
class Content:
    """What is in an exported file, checked. people: (name, name of the one merged into, removed)."""

    model: str
    digest: str
    size: int
    people: list[tuple[str, str | None, bool]]
    owners: list[int]
    facts: list[Facts]
    encodings: NDArray[np.float32]

    def store(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Add what is not there yet: how many photographs were added, and how many passed over."""
        new = {name for name, _, _ in self.people if who.look_up(connection, name) is None}
        names = [self.people[owner][0] for owner in self.owners]
        wanted = [i for i, name in enumerate(names) if not self._is_there(connection, name, i)]
        insert(connection, [names[i] for i in wanted], self.encodings[wanted], [self.facts[i] for i in wanted])
        for name in (name for name, _, _ in self.people if name in new):
            who.to_enrol(connection, name)  # also people without a photograph of their own
        for name, into, _ in self.people:
            if name in new and into is not None and into != name:
                who.merge(connection, name, into)
        for name, into, removed in self.people:
            if name in new and removed and into is None:
                who.set_removed(connection, name, True)
        return len(wanted), len(names) - len(wanted)

    def _is_there(self, connection: sqlite3.Connection, name: str, i: int) -> bool:
        """By the digest of the picture; without one, by the encoding."""
        digest = self.facts[i].digest
        if digest is not None:
            return who.with_digest(connection, digest) is not None
        person = who.look_up(connection, name)
        if person is None:
            return False
        there = connection.execute("SELECT encoding FROM photo WHERE person = ?", (person.id,))
        return any(body(row[0]) == self.encodings[i].tobytes() for row in there)


def write(path: PathLike, connection: sqlite3.Connection) -> int:
    """Write the gallery atomically, for its owner alone; give the number of photographs."""
    model, digest, size = connection.execute("SELECT model, digest, size FROM gallery").fetchone()
    rows = connection.execute("SELECT id, name, merged_into, removed FROM person ORDER BY id").fetchall()
    place = {row[0]: number for number, row in enumerate(rows)}
    names = {row[0]: row[1] for row in rows}
    people = [{"name": row[1], "merged_into": names.get(row[2]), "removed": bool(row[3])} for row in rows]
    encodings, owners = _encodings(connection, size)
    photos = [
        {"person": place[owner], "source": photo.source, "digest": photo.digest, "about": photo.about}
        for photo, owner in zip(who.photos(connection), owners.tolist(), strict=True)
    ]
    facts: dict[str, Any] = {
        "format": FORMAT, "format_version": VERSION, "model": model, "digest_of_model": digest, "size": size,
        "people": people, "photos": photos, "digests": {"encodings": array_digest(encodings)},
    }  # fmt: skip
    facts["digest"] = meta_digest(facts)
    text = np.frombuffer(json.dumps(facts, separators=(",", ":"), allow_nan=False).encode("ascii"), np.uint8)
    if text.nbytes + encodings.nbytes > archive.MAX_FILE_BYTES - (1 << 20):
        raise GalleryError(f"[gallery] an export holds at most {archive.MAX_FILE_BYTES >> 20} MiB, got more")

    arrays: dict[str, NDArray[Any]] = dict(zip(_KEYS, (encodings, text), strict=True))
    members = [(key, npy.header(a), a.reshape(-1).view(np.uint8).data) for key, a in arrays.items()]

    def store(file: BinaryIO) -> None:
        archive.write_members(file, members)

    atomic_write(path, store, private=True)
    return len(encodings)


def _encodings(connection: sqlite3.Connection, size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    count = connection.execute("SELECT count(*) FROM photo").fetchone()[0]
    encodings, owners, done = np.empty((count, size), "<f4"), np.empty(count, np.int64), 0
    cursor = connection.execute("SELECT encoding FROM photo ORDER BY id")
    while rows := cursor.fetchmany(256):
        part = slice(done, done + len(rows))
        try:
            _, owners[part], encodings[part] = unpack([row[0] for row in rows], size)
        except (ValueError, TypeError) as error:
            raise GalleryError(f"[gallery] the file is damaged: {error}") from error
        done += len(rows)
    return encodings, owners


def read(path: PathLike) -> Content:
    """Read and check a file that `write` made. Raises `GalleryError` for any other."""
    try:
        with open(path, "rb") as file:
            blocks = archive.read_members(file)
        if set(blocks) != set(_KEYS):
            raise ValueError("does not have the two arrays of a gallery's export")
        encodings, text = (npy.parse(blocks[key]) for key in _KEYS)
        if text.dtype != np.uint8 or text.ndim != 1:
            raise ValueError("has facts that are no text")
        return _content(encodings, json.loads(text.tobytes()))
    except OSError as error:
        raise GalleryError(f"[gallery] {path} cannot be read: {error.strerror or error}") from error
    except KeyError as error:
        raise GalleryError(f"[gallery] {path} is not a gallery's export, or damaged ({error.args[-1]})") from error
    except (ValueError, TypeError, RecursionError, AttributeError) as error:
        raise GalleryError(f"[gallery] {path} is not a gallery's export, or damaged: it {error}") from error


def _content(encodings: NDArray[Any], facts: Any) -> Content:
    """Compare facts and encodings; raises ValueError, KeyError or TypeError where they do not fit."""
    if not isinstance(facts, dict) or (facts.get("format"), facts.get("format_version")) != (FORMAT, VERSION):
        raise ValueError("is of another format or version")
    if facts.get("digest") != meta_digest(facts) or facts["digests"] != {"encodings": array_digest(encodings)}:
        raise ValueError("does not match its digest: the file was altered")
    size, photos, model, digest = (facts[key] for key in ("size", "photos", "model", "digest_of_model"))
    if not (type(size) is int and 1 <= size <= MAX_SIZE and isinstance(model, str) and isinstance(digest, str)):
        raise ValueError("does not say which encoder it is for")
    if not isinstance(photos, list) or len(photos) > MAX_PHOTOS or encodings.shape != (len(photos), size):
        raise ValueError(f"has encodings {encodings.shape} for another number of photographs")
    if encodings.dtype != np.float32 or not np.isfinite(encodings).all():
        raise ValueError("has encodings that are not finite float32 numbers")
    people = _people(facts["people"])
    owners = [photo["person"] for photo in photos]
    if not all(type(owner) is int and 0 <= owner < len(people) for owner in owners):
        raise ValueError("has a photograph of nobody")
    try:
        checked = [Facts.checked(photo["source"], photo["digest"], photo["about"]) for photo in photos]
    except ArgumentError as error:
        raise ValueError(f"has facts that cannot be kept: {error}") from error
    digests = [fact.digest for fact in checked if fact.digest]
    if len(set(digests)) != len(digests):
        raise ValueError("has one picture twice")
    return Content(model, digest, size, people, owners, checked, np.ascontiguousarray(encodings))


def _people(rows: Any) -> list[tuple[str, str | None, bool]]:
    found = []
    for row in rows:
        name, into, removed = row["name"], row["merged_into"], row["removed"]
        if type(removed) is not bool or (into is not None and not isinstance(into, str)):
            raise ValueError("has a person whose state cannot be read")
        try:
            clean = clean_name(name)
        except ArgumentError as error:
            raise ValueError(f"has a person without a proper name: {error}") from error
        if clean != name:
            raise ValueError("has a name that is not in the form that a gallery keeps")
        found.append((clean, into, removed))
    names = {name for name, _, _ in found}
    if len(names) != len(found) or not {into for _, into, _ in found if into is not None} <= names:
        raise ValueError("has a name twice, or a person merged into nobody")
    return found
