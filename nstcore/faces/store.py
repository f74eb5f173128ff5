"""The file of a gallery: SQLite with a rollback journal, so that between two changes there is one file alone.

A change is one transaction. Deleted bytes are overwritten with zeros (`secure_delete`), and nothing is kept in
temporary files. A file is used only if its marks and every table are those that this module makes. SQLite keeps no
sums: every row has one of its own here, so that a bit that flips in a name is noticed, too.
"""

from __future__ import annotations

import functools
import os
import secrets
import sqlite3
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nstcore.errors import ArgumentError, GalleryError
from nstcore.faces import _head_row
from nstcore.faces.records import MAX_NAME
from nstcore.files import PathLike

APPLICATION, VERSION = 0x6E737467, 1  # "nstg"
MAX_SIZE = 4096  # numbers in an encoding
MAX_TEXT = 16_384  # characters of facts, or of a calibration
_PAGE = 8192  # bytes; 15 encodings of 128 numbers: loading a million is a fifth faster than with 4096
_MAGIC = b"SQLite format 3\0"
_CHECKED_WHOLE = 64 << 20  # bytes; up to this size every page and index is checked on opening
Identity = tuple[str, str, int]  # of an encoder: name, digest of its weights, numbers in an encoding

# What a name may not hold, as in `records.clean_name`: control characters, line breaks, changes of direction.
_LINE = "||".join(
    [f"char({first})||'-'||char({last})" for first, last in ((1, 31), (127, 159), (0x2028, 0x202E), (0x2066, 0x2069))]
)
_ONE_LINE = f"NOT GLOB '*['||{_LINE}||']*'"
# Opening a file checks these conditions, too: whoever reads a row can rely on them.
_SCHEMA = (
    f"""CREATE TABLE gallery (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        model TEXT NOT NULL CHECK (typeof(model) = 'text' AND length(model) <= {MAX_NAME} AND model {_ONE_LINE}),
        digest TEXT NOT NULL CHECK (typeof(digest) = 'text' AND length(digest) <= {MAX_NAME} AND digest {_ONE_LINE}),
        size INTEGER NOT NULL CHECK (typeof(size) = 'integer' AND size BETWEEN 1 AND {MAX_SIZE}),
        calibration TEXT CHECK (calibration IS NULL OR typeof(calibration) = 'text'),
        sum INTEGER NOT NULL,
        people_changed INTEGER NOT NULL DEFAULT 0,
        photos_changed INTEGER NOT NULL DEFAULT 0,
        forgotten INTEGER NOT NULL DEFAULT 0,
        scrubbed INTEGER NOT NULL DEFAULT 0
    )""",
    f"""CREATE TABLE person (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
            CHECK (typeof(name) = 'text' AND length(name) BETWEEN 1 AND {MAX_NAME} AND name {_ONE_LINE}),
        merged_into INTEGER REFERENCES person (id),
        removed INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)),
        sum INTEGER NOT NULL
    )""",
    "CREATE INDEX person_merged ON person (merged_into) WHERE merged_into IS NOT NULL",
    "CREATE INDEX person_removed ON person (removed) WHERE removed",
    """CREATE TABLE photo (
        id INTEGER PRIMARY KEY,
        person INTEGER NOT NULL REFERENCES person (id),
        encoding BLOB NOT NULL CHECK (typeof(encoding) = 'blob')
    )""",
    "CREATE INDEX photo_person ON photo (person)",
    f"""CREATE TABLE fact (
        photo INTEGER PRIMARY KEY REFERENCES photo (id),
        source TEXT
            CHECK (source IS NULL OR typeof(source) = 'text' AND length(source) <= {MAX_NAME} AND source {_ONE_LINE}),
        digest BLOB CHECK (digest IS NULL OR typeof(digest) = 'blob' AND length(digest) = 32),
        about TEXT NOT NULL CHECK (typeof(about) = 'text' AND length(about) <= {MAX_TEXT}),
        sum INTEGER NOT NULL
    )""",
    "CREATE UNIQUE INDEX fact_digest ON fact (digest) WHERE digest IS NOT NULL",
)
# What SQLite says (sqlite3ErrStr) and what it means here.
_REASONS = (
    ("is locked", "is in use by another process, which did not finish within {timeout:g} s; try again later"),
    ("readonly database", "cannot be written: the file or its folder is read-only"),
    ("disk is full", "cannot be written: the disk is full, or the file's limit is reached; nothing was changed"),
    ("disk I/O error", "cannot be read or written: the disk reports an error, or is full; nothing was changed"),
    ("unable to open", "cannot be opened: no permission, or no room for the file beside it that a change needs"),
    ("not a database", "is not a gallery of nstcore"),
    ("decode to UTF-8", "is damaged: a text in it cannot be read"),
    ("malformed", "is damaged; restore a copy of it, or import an export"),
    ("constraint failed", "does not fit together: it is damaged, or was changed by another program"),
    ("closed database", "was closed"),
    ("same thread", "was opened by another thread; open one in each"),
)


def row_sum(*values: str | int | None) -> int:
    """What a row's `sum` has to be: CRC-32 of its other values, as text with zeros between."""
    return zlib.crc32("\0".join(map(str, values)).encode("utf-8", "surrogatepass"))


class Store:
    """An open file of a gallery. The encoder's identity is fixed when the file is made.

    path: as it was given, for messages; file: the one behind it and its links, which is what is used.
    create: says for which encoder a file that does not exist is made; None makes none.
    """

    def __init__(self, path: PathLike, *, create: Callable[[], Identity] | None, timeout: float) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout <= 3600:
            raise ArgumentError(f"[gallery] expects a timeout of 0 to 3600 s, got {timeout!r}")
        self.path, self.file = _regular(path)
        self.timeout = timeout
        self._claim(create)
        with self._explained():
            self._connection = sqlite3.connect(self.file, timeout=timeout, isolation_level=None)
        try:
            with self._explained():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        with self._explained():
            self._connection.close()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One change: all of it reaches the disk at the end, or nothing does."""
        with self._explained(), self._transaction("BEGIN IMMEDIATE"):
            yield self._connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the gallery, whatever others write meanwhile."""
        with self._explained():
            if self._connection.in_transaction:
                yield self._connection
                return
            with self._transaction("BEGIN"):
                yield self._connection

    def scrub(self) -> None:
        """Write the file anew, so that it holds nothing but its rows.

        secure_delete overwrites what is deleted; SQLite does not promise that for copies from when rows were moved.
        Forgettings are counted, and those alone are marked as done that came before the writing began: another process
        may delete somebody meanwhile, and be stopped.
        """
        with self.reading() as connection:
            before = connection.execute("SELECT forgotten FROM gallery").fetchone()[0]
        with self._explained():
            self._connection.execute("VACUUM")
        with self.changing() as connection:
            connection.execute("UPDATE gallery SET scrubbed = max(scrubbed, ?)", (before,))

    def identity(self) -> tuple[Identity, str | None]:
        """Which encoder the gallery is for, and the stored calibration."""
        with self.reading() as connection:
            *row, found = connection.execute("SELECT model, digest, size, calibration, sum FROM gallery").fetchone()
        if row_sum(*row) != found:
            raise GalleryError(f"[gallery] {self.path}: the file is damaged: its first row does not match its sum")
        model, digest, size, calibration = row
        return (model, digest, size), calibration

    def keep_calibration(self, connection: sqlite3.Connection, text: str | None) -> None:
        """Store a calibration, or none, as a part of a change."""
        identity, _ = self.identity()
        connection.execute("UPDATE gallery SET calibration = ?, sum = ?", (text, row_sum(*identity, text)))

    def check(self) -> None:
        """Read every page and index; raise `GalleryError` if one is damaged."""
        with self._explained():
            self._check_pages()

    def _claim(self, create: Callable[[], Identity] | None) -> None:
        """Refuse what is no gallery before SQLite touches it; make a new file that its owner alone may read."""
        try:
            with open(self.file, "rb") as file:
                head = file.read(100)
        except FileNotFoundError:
            if create is None:
                raise GalleryError(f"[gallery] {self.path} does not exist") from None
            if not self.file.parent.is_dir():
                folder = self.file.parent
                raise GalleryError(
                    f"[gallery] the folder {folder} of {self.path} does not exist; create it first"
                ) from None
            self._make(*create())
            return
        except OSError as error:
            raise GalleryError(f"[gallery] {self.path} cannot be read: {error.strerror or error}") from error
        if not head:
            raise GalleryError(f"[gallery] {self.path} is empty, and is not a gallery of nstcore; restore a copy of it")
        if _is_ours(head, b"\2\2"):
            raise GalleryError(
                f"[gallery] {self.path} was switched to a write-ahead log by another program; take that back with "
                "PRAGMA journal_mode = DELETE"
            )
        interrupted = os.path.exists(f"{self.file}-journal")  # the first page may be half written: SQLite mends it
        if not interrupted and not _is_ours(head):
            raise GalleryError(f"[gallery] {self.path} is not a gallery of nstcore, or one of another version")

    def _make(self, model: str, digest: str, size: int) -> None:
        """Make the file under another name and give it its own when it is whole: nobody sees an empty one."""
        if not (1 <= size <= MAX_SIZE and 0 < len(model) <= MAX_NAME and 0 < len(digest) <= MAX_NAME):
            raise ArgumentError(f"[gallery] expects an encoder of 1 to {MAX_SIZE} numbers with a name, got {size}")
        temporary = self.file.with_name(f".nst-{secrets.token_hex(8)}.tmp")
        try:
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            try:
                with self._explained():
                    _fill(temporary, (model, digest, size))
                _give_name(temporary, self.file)
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:  # another process was faster
            pass
        except OSError as error:
            raise GalleryError(f"[gallery] {self.path} cannot be created: {error.strerror or error}") from error

    def _prepare(self) -> None:
        """Set the connection up and compare the tables with ours."""
        for setting in (
            "trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "foreign_keys = ON", "temp_store = MEMORY",
            "secure_delete = ON", "synchronous = FULL", "cache_size = -16384",
        ):  # fmt: skip
            self._connection.execute(f"PRAGMA {setting}").fetchall()
        with self.reading() as connection:
            found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchmany(100)
            marks = [connection.execute(f"PRAGMA {mark}").fetchone()[0] for mark in ("application_id", "user_version")]
            if marks != [APPLICATION, VERSION] or frozenset(found) not in (_tables(), _tables(_head_row.SCHEMA)):
                raise GalleryError(f"[gallery] {self.path} is not a gallery of nstcore, or one of another version")
            if os.path.getsize(self.file) <= _CHECKED_WHOLE:
                self._check_pages()
            if connection.execute("SELECT count(*) FROM gallery").fetchone()[0] != 1:
                raise GalleryError(f"[gallery] {self.path} is damaged: it does not say which encoder it is for")

    def _check_pages(self) -> None:
        problem = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if self._connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
            problem = "rows are missing"
        if problem != "ok":
            raise GalleryError(
                f"[gallery] {self.path} is damaged ({problem[:80]!r}); restore a copy, or import an export"
            )

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # After a full disk SQLite has rolled back by itself.
            with suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into one line that says what to do."""
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            text = str(error)
            fallback = f"cannot be used: {text[:200]}"
            reason = next((reason for mark, reason in _REASONS if mark in text), fallback)
            raise GalleryError(f"[gallery] {self.path} {reason.format(timeout=self.timeout)}") from error


def _fill(path: Path, identity: Identity) -> None:
    """Make the tables in an empty file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        for statement in _SCHEMA:
            connection.execute(statement)
        facts = (*identity, row_sum(*identity, None))
        connection.execute("INSERT INTO gallery (id, model, digest, size, sum) VALUES (1, ?, ?, ?, ?)", facts)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _give_name(temporary: Path, path: Path) -> None:
    """Raises FileExistsError where there is a file of that name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        os.replace(temporary, path)


@functools.cache
def _tables(*more: str) -> frozenset[tuple[str, str, str, str | None]]:
    """What sqlite_master holds in a file that `_fill` made, with more tables or none."""
    connection = sqlite3.connect(":memory:")
    try:
        for statement in (*_SCHEMA, *more):
            connection.execute(statement)
        return frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    finally:
        connection.close()


def _is_ours(head: bytes, kind: bytes = b"\1\1") -> bool:
    """By the first 100 bytes (https://sqlite.org/fileformat.html, 1.3): SQLite, marked; a write-ahead log is 2, 2."""
    mark = int.from_bytes(head[68:72], "big")
    return len(head) == 100 and head[:16] == _MAGIC and head[18:20] == kind and mark == APPLICATION


def _regular(path: PathLike) -> tuple[Path, Path]:
    """The path and the file behind its links, if that may be a gallery: a regular file, or nothing yet."""
    try:
        text = os.fspath(path)
        if not isinstance(text, str):
            raise GalleryError(f"[gallery] expects the name of a file as text, got {type(text).__name__}")
        if not text:
            raise GalleryError("[gallery] expects a file name, got an empty one")
        # SQLite keeps its journal beside the file itself, not beside a link to it.
        file = Path(os.path.realpath(text))
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        return Path(text), file
    except (OSError, ValueError, TypeError) as error:
        raise GalleryError(f"[gallery] {path!s:.200} cannot be a gallery: {error}") from error
    if stat.S_ISDIR(mode):
        raise GalleryError(f"[gallery] {path} is a folder; give the name of a file in it, such as people.db")
    if not stat.S_ISREG(mode):
        raise GalleryError(f"[gallery] {path} is not a regular file")
    return Path(text), file
