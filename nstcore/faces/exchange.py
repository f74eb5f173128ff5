"""A gallery as an .npz: the encodings, and the facts as JSON. Nothing in it is ever unpickled or used as a path."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, GalleryError
from nstcore.faces import _head_row
from nstcore.faces import people as who
from nstcore.faces._index import body, unpack
from nstcore.faces._rows import Facts, insert
from nstcore.faces.calibration import Calibration
from nstcore.faces.head import VerificationHead
from nstcore.faces.records import clean_name
from nstcore.faces.store import MAX_SIZE, Identity, Store
from nstcore.files import PathLike, atomic_write
from nstcore.weights import archive, npy
from nstcore.weights.format import array_digest, meta_digest

FORMAT, VERSION = "nstcore-gallery", 1
MAX_PHOTOS = 1 << 24
_KEYS = ("encodings", "facts")
_HEAD = "head"  # a third array, where there is a verification head: its weights and bias


@dataclass(frozen=True)
class Exported:
    """A person as an export has them: the name of the one merged into, if any."""

    name: str
    into: str | None
    removed: bool


@dataclass(frozen=True)
class Content:
    """What is in an exported file, checked. people: in the order in which they came. calibration: as JSON."""

    model: str
    digest: str
    size: int
    calibration: str | None
    people: list[Exported]
    owners: list[int]
    facts: list[Facts]
    encodings: NDArray[np.float32]
    head: VerificationHead | None = None

    @property
    def identity(self) -> Identity:
        """The encoder that the encodings are of."""
        return self.model, self.digest, self.size

    def store(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Add what is not there yet: how many photographs were added, and how many passed over.

        People who are there stay as they are, removed ones removed; new ones come with the merges and removals of the
        file, except those whose photographs are all there already, under whatever name.
        """
        known = {person.name: who.look_up(connection, person.name) for person in self.people}
        wanted = self._missing(connection, known)
        new = self._new_people({name for name, row in known.items() if row is None}, wanted)
        ids = {name: row.id if row else who.add(connection, name) for name, row in known.items() if row or name in new}
        for person in self.people:
            if person.name in new and (person.into is not None or person.removed):
                into = None if person.into is None else ids[person.into]
                who.write(connection, who.Row(ids[person.name], person.name, into, person.removed))
        owners = np.array([ids[self.people[self.owners[i]].name] for i in wanted], np.int64)
        insert(connection, owners, self.encodings[wanted], [self.facts[i] for i in wanted])
        return len(wanted), len(self.owners) - len(wanted)

    def _new_people(self, unknown: set[str], wanted: list[int]) -> set[str]:
        """Who is made: with a photograph to be added, or none in the file; and those into whom they were merged."""
        owning, adding = set(self.owners), {self.owners[i] for i in wanted}
        into = {person.name: person.into for person in self.people}
        new: set[str] = set()
        for number, person in enumerate(self.people):
            name: str | None = person.name if number in adding or number not in owning else None
            while name in unknown and name not in new:
                new.add(name)
                name = into[name]
        return new

    def _missing(self, connection: sqlite3.Connection, known: dict[str, who.Row | None]) -> list[int]:
        """Which photographs are not there: by the digest of the picture; without one, by the person's encodings."""
        wanted, without_digest = [], dict[int, list[int]]()
        for i, (owner, fact) in enumerate(zip(self.owners, self.facts, strict=True)):
            if fact.digest is None:
                without_digest.setdefault(owner, []).append(i)
            elif connection.execute("SELECT 1 FROM fact WHERE digest = ?", (fact.digest,)).fetchone() is None:
                wanted.append(i)
        for owner, photos in without_digest.items():
            row, there = known[self.people[owner].name], set[bytes]()
            if row is not None:
                rows = connection.execute("SELECT encoding FROM photo WHERE person = ?", (row.id,))
                there = {body(encoding) for (encoding,) in rows}
            wanted += [i for i in photos if self.encodings[i].tobytes() not in there]
        return sorted(wanted)


def write(
    path: PathLike,
    connection: sqlite3.Connection,
    about: tuple[Identity, str | None],
    head: VerificationHead | None = None,
) -> int:
    """Write the gallery atomically, for its owner alone; give the number of photographs.

    about: the encoder that it is for, and its calibration. head: its verification head.
    """
    (model, digest, size), calibration = about
    rows = who.all_rows(connection)
    place = {row.id: number for number, row in enumerate(rows)}
    names: dict[int | None, str] = {row.id: row.name for row in rows}
    people = [{"name": row.name, "merged_into": names.get(row.merged_into), "removed": row.removed} for row in rows]
    encodings, owners = _encodings(connection, size)
    arrays: dict[str, NDArray[Any]] = {"encodings": encodings}
    if head is not None:
        arrays[_HEAD] = _head_row.numbers(head)
    photos = [
        {"person": place[owner], "source": photo.source, "digest": photo.digest, "about": photo.about}
        for photo, owner in zip(who.photos(connection), owners.tolist(), strict=True)
    ]
    facts: dict[str, Any] = {
        "format": FORMAT, "format_version": VERSION, "model": model, "digest_of_model": digest, "size": size,
        "calibration": None if calibration is None else Calibration.from_stored(calibration).to_json(),
        "people": people, "photos": photos, "digests": {key: array_digest(a) for key, a in arrays.items()},
    }  # fmt: skip
    if head is not None:
        facts["head"] = {"form": head.form}
    facts["digest"] = meta_digest(facts)
    text = np.frombuffer(json.dumps(facts, separators=(",", ":"), allow_nan=False).encode("ascii"), np.uint8)
    if text.nbytes + encodings.nbytes > archive.MAX_FILE_BYTES - (1 << 20):
        raise GalleryError(f"[gallery] an export holds at most {archive.MAX_FILE_BYTES >> 20} MiB, got more")

    arrays["facts"] = text
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


def make(path: PathLike, content: Content) -> None:
    """Make a gallery without people, for the encoder of an export, where there is no file."""
    Store(path, create=lambda: content.identity, timeout=5.0).close()


def read(path: PathLike) -> Content:
    """Read and check a file that `write` made. Raises `GalleryError` for any other."""
    try:
        with open(path, "rb") as file:
            blocks = archive.read_members(file)
        if set(blocks) not in (set(_KEYS), {*_KEYS, _HEAD}):
            raise ValueError("does not have the arrays of a gallery's export")
        encodings, text = (npy.parse(blocks[key]) for key in _KEYS)
        head = npy.parse(blocks[_HEAD]) if _HEAD in blocks else None
        if text.dtype != np.uint8 or text.ndim != 1:
            raise ValueError("has facts that are no text")
        return _content(encodings, json.loads(text.tobytes()), head)
    except OSError as error:
        raise GalleryError(f"[gallery] {path} cannot be read: {error.strerror or error}") from error
    except KeyError as error:
        raise GalleryError(f"[gallery] {path} is not a gallery's export, or damaged ({error.args[-1]})") from error
    except (ValueError, TypeError, RecursionError, AttributeError) as error:
        raise GalleryError(f"[gallery] {path} is not a gallery's export, or damaged: it {error}") from error


def _content(encodings: NDArray[Any], facts: Any, head: NDArray[Any] | None) -> Content:
    """Compare facts and encodings; raises ValueError, KeyError or TypeError where they do not fit."""
    if not isinstance(facts, dict) or (facts.get("format"), facts.get("format_version")) != (FORMAT, VERSION):
        raise ValueError("is of another format or version")
    arrays = {"encodings": encodings} if head is None else {"encodings": encodings, _HEAD: head}
    digests_of = {key: array_digest(array) for key, array in arrays.items()}
    if facts.get("digest") != meta_digest(facts) or facts["digests"] != digests_of:
        raise ValueError("does not match its digest: the file was altered")
    size, photos, model, digest = (facts[key] for key in ("size", "photos", "model", "digest_of_model"))
    if not (type(size) is int and 1 <= size <= MAX_SIZE and isinstance(model, str) and isinstance(digest, str)):
        raise ValueError("does not say which encoder it is for")
    if not isinstance(photos, list) or len(photos) > MAX_PHOTOS or encodings.shape != (len(photos), size):
        raise ValueError(f"has encodings {encodings.shape} for another number of photographs")
    if encodings.dtype != np.float32 or not np.isfinite(encodings).all():
        raise ValueError("has encodings that are not finite float32 numbers")
    people, calibration = _people(facts["people"]), _calibration(facts["calibration"])
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
    return Content(
        model, digest, size, calibration, people, owners, checked, np.ascontiguousarray(encodings),
        _head(facts.get("head"), head, size, digest),
    )  # fmt: skip


def _head(facts: Any, array: NDArray[Any] | None, size: int, digest: str) -> VerificationHead | None:
    if array is None:
        return None
    if not isinstance(facts, dict) or array.shape != (size + 1,):
        raise ValueError("has a verification head for other encodings")
    try:
        return _head_row.from_numbers(facts["form"], array, digest)
    except ArgumentError as error:
        raise ValueError(f"has a verification head of no known form: {error}") from error


def _calibration(facts: Any) -> str | None:
    if facts is None:
        return None
    try:
        return json.dumps(Calibration.from_stored(json.dumps(facts)).to_json())
    except GalleryError as error:
        raise ValueError("has a calibration that cannot be read") from error


def _people(rows: Any) -> list[Exported]:
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
        if removed and into is not None:
            raise ValueError("has somebody who is merged and removed")
        found.append(Exported(clean, into, removed))
    merges = {person.name: person.into for person in found}
    if len(merges) != len(found) or not set(merges.values()) - {None} <= set(merges):
        raise ValueError("has a name twice, or a person merged into nobody")
    try:
        who.ends(merges)
    except GalleryError as error:
        raise ValueError("has people who were merged in a circle") from error
    return found
