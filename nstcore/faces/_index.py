"""The encodings of a gallery in memory, as one matrix, and the search in it.

Each person's distance is that to the nearest of the photographs (decision record 0008).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.backend.arrays import to_host
from nstcore.errors import GalleryError
from nstcore.faces.people import hidden as hidden_people
from nstcore.faces.people import merged_roots

Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]

_AT_ONCE = 256  # rows; few enough that their Python objects stay in the processor's cache
_SPARE = 8  # one part in so many is kept free behind the encodings, for those that will be added
_LEAST_SPARE = 1024
# A blob of the file: number of the photograph, number of its person, a sum, the encoding; all little-endian.
_HEAD = np.dtype([("photo", "<i8"), ("person", "<i8"), ("sum", "<u8")])
_MIXED = np.uint64(0x9E3779B97F4A7C15)  # odd: whatever changes in a number changes the sum


def blob_bytes(size: int) -> int:
    """Length of a blob with an encoding of so many numbers."""
    return _HEAD.itemsize + 4 * size


def body(blob: bytes) -> bytes:
    """The encoding of a blob."""
    return blob[_HEAD.itemsize :]


def pack(vectors: Vectors, photos: Numbers, people: Numbers) -> Iterator[memoryview]:
    """The blobs of encodings (n, d). One column is read twice as fast as three, so it has all that a search needs."""
    for start in range(0, len(vectors), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        words = np.ascontiguousarray(vectors[part], "<f4").view("<u4")
        heads = np.empty(len(words), _HEAD)
        heads["photo"], heads["person"] = photos[part], people[part]
        heads["sum"] = _sums(words, heads)
        for row in np.concatenate([heads[:, None].view(np.uint8), words.view(np.uint8)], axis=1):
            yield row.data


def unpack(blobs: Sequence[bytes], size: int) -> tuple[Numbers, Numbers, Vectors]:
    """The numbers of photographs and people, and the encodings (n, size), of what `pack` gave.

    Raises ValueError or TypeError for anything else.
    """
    if set(map(len, blobs)) - {blob_bytes(size)}:
        raise ValueError("an encoding has the wrong length")
    row = np.dtype([("head", _HEAD), ("words", "<u4", (size,))])
    rows = np.frombuffer(b"".join(blobs), row)
    heads, words = rows["head"], rows["words"]
    if not np.array_equal(heads["sum"], _sums(words, heads)):
        raise ValueError("an encoding does not match its sum")
    return heads["photo"].astype(np.int64), heads["person"].astype(np.int64), words.view("<f4")


def _sums(words: NDArray[np.uint32], heads: NDArray[Any]) -> NDArray[np.uint64]:
    """Each encoding's words, modulo 2^32, and the numbers of photograph and person, modulo 2^64."""
    numbers = heads["photo"].astype(np.uint64) * np.uint64(3) + heads["person"].astype(np.uint64) + np.uint64(1)
    sums: NDArray[np.uint64] = numbers * _MIXED + words.sum(axis=1, dtype=np.uint32)
    return sums


class Index:
    """What of a gallery is kept in memory: 4 · d + 24 bytes a photograph, and an eighth more for those to come.

    points: float32 (n, d), in the order of enrolment. photos: their numbers. people: the number of each one's person,
    merges carried out. People who were removed are not in it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._clear(0)
        self._seen: tuple[int, int] | None = None

    def check(self, connection: sqlite3.Connection) -> None:
        """Read everything anew, and compare each encoding with the row that it stands in."""
        self._seen = None
        self.refresh(connection)
        hidden = set(hidden_people(connection))
        rows = connection.execute("SELECT id, person FROM photo ORDER BY id")
        shown = np.array([row for row in rows if row[1] not in hidden], np.int64).reshape(-1, 2)
        if not np.array_equal(shown, np.stack([self.photos, self._owners[: self._count]], axis=1)):
            raise GalleryError("[gallery] the file is damaged: an encoding is another photograph's")

    @property
    def points(self) -> Vectors:
        return self._points[: self._count]

    @property
    def photos(self) -> Numbers:
        return self._photos[: self._count]

    @property
    def people(self) -> Numbers:
        return self._people[: self._count]

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Take over what was changed in the file: new photographs alone, where nothing else was."""
        merges, photos = connection.execute("SELECT people_changed, photos_changed FROM gallery").fetchone()
        # Whatever stops the reading, and be it a signal between two lines: the next call then begins again.
        seen, self._seen = self._seen, None
        if seen is None or seen[1] != photos:
            seen = None
            self._clear(connection.execute("SELECT count(*) FROM photo").fetchone()[0])
        first = self._count
        self._read(connection)
        if seen is None or seen[0] != merges:
            first = 0
        if first < self._count:
            self._people[first : self._count] = self._owners[first : self._count]
            self._merge(connection, first)
        self._seen = merges, photos

    def _clear(self, room: int) -> None:
        room += max(_LEAST_SPARE, room // _SPARE)
        self._count, self._last = 0, 0
        self._points = np.empty((room, self.size), np.float32)  # pages that are never written take no memory
        self._photos, self._owners, self._people = (np.empty(room, np.int64) for _ in range(3))

    def _read(self, connection: sqlite3.Connection) -> None:
        """The photographs behind the last one that was read."""
        hidden = np.fromiter(hidden_people(connection), np.int64)
        cursor = connection.execute("SELECT encoding FROM photo WHERE id > ? ORDER BY id", (self._last,))
        while rows := cursor.fetchmany(_AT_ONCE):
            try:
                photos, people, vectors = unpack([row[0] for row in rows], self.size)
                if not np.isfinite(vectors).all():
                    raise ValueError("an encoding is not finite")
                if photos[0] <= self._last or (np.diff(photos) <= 0).any():
                    raise ValueError("an encoding is another photograph's")
            except (ValueError, TypeError) as error:
                raise GalleryError(f"[gallery] the file is damaged: {error}") from error
            self._last = int(photos[-1])
            if len(hidden):
                shown = ~np.isin(people, hidden)
                photos, people, vectors = photos[shown], people[shown], vectors[shown]
            self._append(vectors, photos, people)

    def _append(self, vectors: Vectors, photos: Numbers, people: Numbers) -> None:
        end = self._count + len(vectors)
        if end > len(self._points):
            room = end + max(_LEAST_SPARE, end // _SPARE)
            for name in ("_points", "_photos", "_owners", "_people"):
                old = getattr(self, name)
                new = np.empty((room, *old.shape[1:]), old.dtype)
                new[: self._count] = old[: self._count]
                setattr(self, name, new)
        part = slice(self._count, end)
        self._points[part], self._photos[part], self._owners[part] = vectors, photos, people
        self._count = end

    def _merge(self, connection: sqlite3.Connection, first: int) -> None:
        """Give merged people's photographs to those into whom they were merged."""
        roots = merged_roots(connection)
        if roots:
            people = self._people[first : self._count]
            names = np.array(sorted(roots), np.int64)
            place = np.minimum(np.searchsorted(names, people), len(names) - 1)
            found = names[place] == people
            people[found] = np.array([roots[int(n)] for n in names], np.int64)[place[found]]

    def search(self, queries: Vectors, k: int) -> list[list[tuple[float, int]]]:
        """For each row of `queries` (q, d) the k nearest people, as (distance, row), nearest first; fewer if there are
        no more. Of equal distances the one that was enrolled first comes first."""
        found: list[list[tuple[float, int]]] = [[] for _ in queries]
        waiting, count = list(range(len(queries))), k
        while waiting and self._count:
            count = min(count, self._count)
            squares, rows = map(to_host, ops.nearest(queries[waiting], self.points, count))
            people = self.people[rows]
            short = []
            for place, query in enumerate(waiting):
                # the first of each person, in the order of distance
                first = np.sort(np.unique(people[place], return_index=True)[1])[:k]
                if len(first) < k and count < self._count:
                    short.append(query)
                found[query] = [(float(np.sqrt(squares[place, i])), int(rows[place, i])) for i in first]
            waiting, count = short, 4 * count
        return found

    def nearest(self, query: Vectors, person: int) -> tuple[float, int] | None:
        """Distance of one encoding (1, d) to a person, and the row of the nearest photograph; None if there is none."""
        rows = np.flatnonzero(self.people == person)
        if not len(rows):
            return None
        squares = to_host(ops.pairwise_sqdist(query, self.points[rows]))[0]
        first = int(np.argmin(squares))
        return float(np.sqrt(squares[first])), int(rows[first])
