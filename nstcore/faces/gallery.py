"""People by their photographs, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, GalleryError, ShapeError
from nstcore.faces import _head_row
from nstcore.faces import people as who
from nstcore.faces._index import Index
from nstcore.faces._rows import Facts, insert, numbers
from nstcore.faces.answers import Match, Verification
from nstcore.faces.calibration import Calibration
from nstcore.faces.records import Enrolment, Found, Person, Photo, clean_name
from nstcore.faces.store import Identity, Store
from nstcore.files import PathLike, check_output
from nstcore.ops._op import whole

if TYPE_CHECKING:
    from nstcore.faces.encoder import Encoder
    from nstcore.faces.exchange import Content
    from nstcore.faces.head import VerificationHead
    from nstcore.images import Source

Array = NDArray[Any]


class Gallery:
    """People and the encodings of their photographs in an SQLite file; never the pictures themselves.

    A person's distance from a face is that to the nearest of the person's photographs (decision record 0008). Every
    change is one transaction: after a crash, the gallery is as before it or after it. Several processes may use one
    file; what another one changes is seen at the next call. An object serves the thread that made it.

    Args:
        path: the file; a new one gets the mode 0600. An empty file is no gallery.
        encoder: what turns faces into encodings; None takes the embedded one, once it is needed.
        create: whether a file that does not exist is made.
        timeout: seconds to wait while another process writes.

    Raises:
        GalleryError: no gallery, a damaged one, one of another encoder; locked, read-only, or the disk is full.
        ArgumentError: no encoder, or a timeout outside 0 to 3600 s.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Gallery(f"{folder.name}/people.db") as gallery:
    ...     _ = gallery.add("anna", np.zeros(128, np.float32))
    ...     gallery.search(np.full((1, 128), 0.01, np.float32))[0][0].name
    'anna'
    >>> folder.cleanup()
    """

    def __init__(
        self, path: PathLike, *, encoder: Encoder | None = None, create: bool = True, timeout: float = 5.0
    ) -> None:
        made_for = None if encoder is None else _identity(encoder)
        self._encoder = encoder
        self._index: Index | None = None
        self._store = Store(path, create=(lambda: made_for or self._embedded()) if create else None, timeout=timeout)
        try:
            (self._model, self._digest, self._size), _ = self._store.identity()
            if self._encoder is not None:  # also of a file that another process has made meanwhile
                self._check_encoder(self._encoder)
            with self._store.reading() as connection:
                forgotten, scrubbed = connection.execute("SELECT forgotten, scrubbed FROM gallery").fetchone()
            if scrubbed < forgotten:
                self._finish_forgetting()
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and of the memory."""
        self._store.close()
        self._index = None

    # ---- what it is for ----

    @property
    def model(self) -> str:
        """The encoder whose encodings are kept, by name."""
        return str(self._model)

    @property
    def digest(self) -> str:
        """The digest of that encoder's weights."""
        return str(self._digest)

    @property
    def size(self) -> int:
        """How many numbers an encoding has."""
        return int(self._size)

    @property
    def encoder(self) -> Encoder:
        """What turns faces into encodings. Raises `GalleryError` if it is not the one that the gallery is for."""
        if self._encoder is None:
            from nstcore.faces.encoder import load_encoder

            encoder = load_encoder()
            self._check_encoder(encoder)
            self._encoder = encoder
        return self._encoder

    @property
    def calibration(self) -> Calibration:
        """Threshold and probabilities: those that were stored with `set_calibration`, else the encoder's."""
        _, text = self._store.identity()
        return self.encoder.calibration if text is None else Calibration.from_stored(text)

    def set_calibration(self, calibration: Calibration | None) -> None:
        """Keep a calibration in the file; None goes back to the encoder's. Raises `ArgumentError` for anything else."""
        if calibration is not None and not (isinstance(calibration, Calibration) and calibration.is_sound()):
            raise ArgumentError(f"[gallery] expects a calibration of finite numbers, got {calibration!r:.300}")
        text = None if calibration is None else json.dumps(calibration.to_json())
        with self._store.changing() as connection:
            self._store.keep_calibration(connection, text)

    @property
    def head(self) -> VerificationHead | None:
        """The verification head that gives the probabilities, stored with `set_head`; None without one."""
        with self._store.reading() as connection:
            return _head_row.read(connection, self._store.identity()[0])

    def set_head(self, head: VerificationHead | None) -> None:
        """Keep a head in the file; None takes it out. `ArgumentError` for one of another encoder, or of none."""
        from nstcore.faces.head import VerificationHead

        if head is not None:
            if not isinstance(head, VerificationHead):
                raise ArgumentError(f"[gallery] expects a verification head, got {type(head).__name__}")
            head.check_encoder(self.digest, self.size)
        with self._store.changing() as connection:
            _head_row.write(connection, self._store.identity()[0], head)

    # ---- photographs come in ----

    def enroll(self, name: str, image: Source, *, check_quality: bool = True, **options: Any) -> Enrolment:
        """Add one photograph of a person; nothing else is encoded again.

        Args:
            name: the person's name; somebody new where it is not known.
            image: a path, a file object, a Pillow image or an array, as `nstcore.images.load` takes them.
            check_quality: refuse a face that is small, blurred, turned away or cut off; False only warns.
            options: `flip`, `jitter`, `seed`, `min_size`, `min_score`, `max_pixels`, as for `nstcore.faces.verify`.

        Returns:
            The photograph; warnings tell of somebody else who looks the same. `added` is False for a picture that is
            enrolled under this name already.

        Raises:
            NoFaceError: no face, or not a good one. SeveralFacesError: more than one; it holds them all.
            ImageError: no picture. ArgumentError: no name, or an option outside its range.
            GalleryError: the file refuses, the person was removed, or the picture is enrolled as somebody else.
        """
        from nstcore.faces import _enrol

        clean, picture = clean_name(name), _enrol.Picture(image, options.get("max_pixels"))
        source, digest = picture.fingerprint()
        known = self._enrolled(clean, digest)
        if known is not None:
            return Enrolment(known, added=False)
        found = _enrol.portrait(picture, self.encoder, check_quality, options)
        return self._add(clean, found.encoding, Facts(source, digest, found.about), tuple(found.problems))

    def add(
        self,
        name: str,
        encoding: Array,
        *,
        source: str | None = None,
        digest: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Enrolment:
        """Add a ready encoding of a person, float (size,) or (1, size), with facts as `Photo` has them.

        Raises `ShapeError` for another dimension, `ArgumentError` for values that are not finite; others as `enroll`.
        """
        clean, facts = clean_name(name), Facts.checked(source, digest, about)
        vector = self._vectors("add", encoding, rows=1)[0]
        known = self._enrolled(clean, facts.digest)
        return Enrolment(known, added=False) if known else self._add(clean, vector, facts, ())

    def add_many(self, names: Sequence[str], encodings: Array) -> None:
        """Add ready encodings (n, size), each of the person with the name at its place, all or none of them.

        Raises `ArgumentError` for what are no names; others as `add`.
        """
        vectors = self._vectors("add_many", encodings)
        names = [names] if isinstance(names, (str, bytes)) else list(names)
        if len(names) != len(vectors):
            raise ShapeError(f"[add_many] expects a name an encoding, got {len(names)} and {len(vectors)}")
        clean: dict[str, str] = {}
        for name in names:
            if not isinstance(name, str) or name not in clean:
                clean[name] = clean_name(name)  # first: what is no text may have no hash
        with self._store.changing() as connection:
            insert(connection, numbers(connection, [clean[name] for name in names]), vectors, None)

    # ---- answers ----

    def search(self, encodings: Array, k: int = 1) -> list[list[Found]]:
        """The `k` nearest people of each encoding, nearest first; fewer where there are no more.

        encodings: float (q, size). The search is exact; of equal distances the person whose photograph was enrolled
        first comes first. Memory: 4 · size + 24 bytes a photograph, read at the first search and kept.
        """
        count, queries = whole("search", "k", k), self._vectors("search", encodings)
        if count < 1:
            raise ArgumentError(f"[search] expects k of at least 1, got {count}")
        with self._store.reading() as connection:
            index = self._fresh(connection)
            hits = index.search(queries, count)
            found = [[self._found(connection, index, *hit) for hit in row] for row in hits]
            head = _head_row.read(connection, (self.model, self.digest, self.size))
        if head is None or not any(hits):
            return found
        left = np.concatenate([np.repeat(queries[i : i + 1], len(row), 0) for i, row in enumerate(hits)])
        said = iter(head.probability(left, index.points[[place for row in hits for _, place in row]]).tolist())
        return [[replace(person, probability=next(said)) for person in row] for row in found]

    def identify(
        self, image: Source, *, threshold: float | None = None, one_each: bool = False, **options: Any
    ) -> list[Match]:
        """Who is in a picture: a `Match` for each face, the largest first.

        threshold: the largest distance of a person; None takes the calibration's.
        one_each: give a person at most one face of the picture, by the best assignment of all together.
        options: as `enroll`. Raises `ImageError`, `ArgumentError`, `GalleryError`.
        """
        from nstcore.faces.decide import identification
        from nstcore.faces.pipeline import encode_faces

        found = encode_faces(image, encoder=self.encoder, **options)
        if not found:
            return []
        # with one_each at most all other faces take somebody away from a face
        candidates = self.search(np.stack([encoding for _, encoding in found]), len(found) if one_each else 1)
        faces = [face for face, _ in found]
        matches = identification(faces, candidates, self.calibration, threshold=threshold, one_each=one_each)
        if not any(candidates) and len(self):
            return [replace(match, compared="nobody: all who are enrolled have been removed") for match in matches]
        return matches

    def verify(self, name: str, image: Source, *, threshold: float | None = None, **options: Any) -> Verification:
        """Whether the one face in a picture is that person's; options as `enroll`, errors too."""
        from nstcore.faces.decide import chosen_threshold, verification
        from nstcore.faces.pipeline import encode_one

        calibration = self.calibration
        limit = chosen_threshold(calibration, threshold)
        with self._store.reading() as connection:
            who.find(connection, name)  # before the work of encoding
        _, encoding = encode_one(image, task="verify", encoder=self.encoder, **options)
        with self._store.reading() as connection:
            person = who.root(connection, who.find(connection, name))
            query, index = self._vectors("verify", encoding[None]), self._fresh(connection)
            nearest = index.nearest(query, person.id)
            photos, head = who.count_photos(connection, person.id), self.head
        if nearest is None:
            state = "has been removed; restore them first" if person.removed else "has no photograph"
            raise GalleryError(f"[verify] {person.name!r} {state}")
        compared = f"{person.name} ({photos} photograph{'' if photos == 1 else 's'})"
        distance, row = nearest
        said = None if head is None else float(head.probability(query, index.points[row])[0])
        return verification(distance, calibration, threshold=limit, compared=compared, probability=said)

    # ---- people ----

    def people(self) -> list[Person]:
        """Everybody, by name; also those who were removed."""
        with self._store.reading() as connection:
            return who.everybody(connection)

    def photos(self, name: str | None = None) -> list[Photo]:
        """The photographs of a person and of those merged into them, or all, in the order of enrolment."""
        with self._store.reading() as connection:
            return list(who.photos(connection, None if name is None else who.find(connection, name)))

    def __len__(self) -> int:
        """How many photographs there are, those of people who were removed among them."""
        with self._store.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM photo").fetchone()[0])

    def rename(self, name: str, new: str) -> None:
        """Give a person another name. Raises `GalleryError` when somebody has it."""
        with self._store.changing() as connection:
            who.rename(connection, name, new)

    def merge(self, name: str, into: str) -> None:
        """Make one person of two, who is called `into`; `unmerge` takes it back."""
        with self._store.changing() as connection:
            who.merge(connection, name, into)

    def unmerge(self, name: str) -> str:
        """Take out what was merged into another person, as it was, with what was enrolled as `name` since.

        Gives the name of that other person.
        """
        with self._store.changing() as connection:
            return who.unmerge(connection, name)

    def remove(self, name: str) -> bool:
        """Leave a person out of all answers until `restore`; False if that was so already. Nothing is deleted."""
        with self._store.changing() as connection:
            return who.set_removed(connection, name, True)

    def restore(self, name: str) -> bool:
        """Take a removed person back into the answers; False if nothing was to be done."""
        with self._store.changing() as connection:
            return who.set_removed(connection, name, False)

    def forget(self, name: str) -> int:
        """Delete a person, those merged into them, and every trace of them in the file; give how many photographs.

        The file is written anew, which takes as much memory as it is long. Nothing can be promised about copies of the
        file, backups, exports, and what a disk or file system keeps of overwritten blocks (docs/guide/faces.md).
        A forgetting that was interrupted is finished when the gallery is next opened.
        """
        with self._store.changing() as connection:
            photos = who.forget(connection, name)
        self._index = None
        try:
            self._store.scrub()
        except GalleryError as error:
            raise GalleryError(
                f"{error}; {clean_name(name)!r} is deleted, the rest is done on the next opening"
            ) from error
        return photos

    def check(self) -> None:
        """Read the whole file and compare everything in it. Raises `GalleryError` if something is damaged."""
        self._store.check()
        with self._store.reading() as connection:
            Index(self.size).check(connection)
            who.everybody(connection)
            for _ in who.photos(connection):
                pass
            _head_row.read(connection, self._store.identity()[0])

    # ---- files ----

    def export(self, path: PathLike) -> int:
        """Write everything into an .npz that `load_from` reads; give how many photographs. See docs/guide/faces.md.

        Raises `OutputError` for a place that cannot be written, the gallery's own file among them.
        """
        from nstcore.faces.exchange import write

        check_output(path, inputs=[self._store.file, f"{self._store.file}-journal"])
        with self._store.reading() as connection:
            return write(path, connection, self._store.identity(), self.head)

    def load_from(self, file: PathLike | Content) -> tuple[int, int]:
        """Add everything of a file that `export` wrote, in one change: how many photographs were new, and how many not.

        Photographs that are there already are passed over, and people who are keep their merges and removals: a new
        photograph of somebody who was removed stays out of the answers with the others. A gallery in which nobody is
        yet takes over the calibration and the verification head, too.

        file: the file, or what `nstcore.faces.exchange.read` gave.
        Raises `GalleryError` for another encoder's file, and a damaged or foreign one.
        """
        from nstcore.faces.exchange import Content, read

        content = file if isinstance(file, Content) else read(file)
        if (content.digest, content.size) != (self.digest, self.size):
            raise self._other_encoder("an export", content.model, content.digest)
        with self._store.changing() as connection:
            is_new = connection.execute("SELECT 1 FROM person").fetchone() is None
            if is_new and content.calibration is not None and self._store.identity()[1] is None:
                self._store.keep_calibration(connection, content.calibration)
            if is_new and content.head is not None and self.head is None:
                _head_row.write(connection, content.identity, content.head)
            return content.store(connection)

    # ---- inner ----

    def _fresh(self, connection: Any) -> Index:
        index = Index(self.size) if self._index is None else self._index
        index.refresh(connection)
        self._index = index
        return index

    def _found(self, connection: Any, index: Index, distance: float, row: int) -> Found:
        person = who.with_id(connection, int(index.people[row]))
        return Found(person.name, distance, int(index.photos[row]), who.count_photos(connection, person.id))

    def _enrolled(self, name: str, digest: bytes | None) -> Photo | None:
        """The photograph with these bytes, if it is this person's."""
        with self._store.reading() as connection:
            return _same(connection, name, digest)

    def _add(self, name: str, vector: Array, facts: Facts, warnings: tuple[str, ...]) -> Enrolment:
        threshold = self.calibration.threshold
        alike = [found for found in self.search(vector[None], 2)[0] if found.distance <= threshold]
        with self._store.changing() as connection:
            known = _same(connection, name, facts.digest)
            if known is not None:  # another process was faster
                return Enrolment(known, added=False)
            number = insert(connection, numbers(connection, [name]), vector[None], [facts])
            person = who.find(connection, name)
            end = who.root(connection, person)
        warnings += tuple(
            f"already enrolled as {found.name!r}? the distance is {found.distance:.3f}, the threshold {threshold:.3f}"
            for found in alike
            if found.name != end.name
        )[:1]
        photo = Photo(number, end.name, person.name, facts.source, facts.hex, facts.about)
        return Enrolment(photo, added=True, warnings=warnings)

    def _vectors(self, what: str, encodings: Any, rows: int | None = None) -> NDArray[np.float32]:
        """Encodings as float32 (n, size), checked."""
        wanted = "n" if rows is None else rows
        try:
            array = np.asarray(encodings)
        except ValueError as error:
            raise ShapeError(f"[{what}] expects numbers ({wanted}, {self.size}), got rows of many lengths") from error
        if rows is not None and array.ndim == 1:
            array = array[None]
        if array.ndim != 2 or array.shape[1] != self.size or array.dtype.kind not in "fiu":
            raise ShapeError(f"[{what}] expects numbers ({wanted}, {self.size}), got {array.dtype} {array.shape}")
        if rows is not None and len(array) != rows:
            raise ShapeError(f"[{what}] expects numbers ({wanted}, {self.size}), got {array.shape}")
        with np.errstate(over="ignore"):
            vectors = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(vectors).all():
            raise ArgumentError(f"[{what}] expects finite encodings, got infinity or NaN")
        return vectors

    def _embedded(self) -> Identity:
        from nstcore.faces.encoder import load_encoder

        self._encoder = load_encoder()
        return _identity(self._encoder)

    def _check_encoder(self, encoder: Encoder) -> None:
        if (encoder.digest, encoder.size) != (self.digest, self.size):
            raise self._other_encoder("the encoder", encoder.id, encoder.digest)

    def _other_encoder(self, what: str, model: str, digest: str) -> GalleryError:
        ours = f"{self.model} ({self.digest[:12]}, {self.size} numbers)"
        return GalleryError(
            f"[gallery] {self._store.path} holds encodings of {ours}, got {what} of {model[:80]} ({digest[:12]}); "
            "encodings of different encoders cannot be compared"
        )

    def _finish_forgetting(self) -> None:
        """A process was stopped between deleting somebody and writing the file anew."""
        with suppress(GalleryError):  # locked or read-only: whoever opens it next does it
            self._store.scrub()


def _identity(encoder: Encoder) -> Identity:
    try:
        return encoder.id, encoder.digest, encoder.size
    except AttributeError:
        raise ArgumentError(f"[gallery] expects an encoder, got {type(encoder).__name__}") from None


def _same(connection: Any, name: str, digest: bytes | None) -> Photo | None:
    """The photograph with these bytes, if it is this person's, who must not have been removed."""
    person = who.look_up(connection, name)
    if person is not None:
        who.refuse_removed(connection, person)
    found = None if digest is None else who.with_digest(connection, digest)
    if found is not None and name not in (found.name, found.enrolled_as):
        raise GalleryError(
            f"[gallery] this very picture is enrolled as {found.name!r}, got {name!r}; "
            "rename or merge them if that is wrong"
        )
    return found
