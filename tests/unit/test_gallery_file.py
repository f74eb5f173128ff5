"""The file of a gallery: foreign and damaged ones, permissions, locks, and how little a change writes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstcore.errors import ArgumentError, GalleryError
from nstcore.faces import Gallery
from nstcore.faces.store import APPLICATION

from .gallery_help import CALIBRATION, SIZE, Fake, filled, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "people.db")


# ---- what is no gallery ----


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "people.db") as gallery:
            with gallery._store.changing() as connection:
                connection.execute("UPDATE gallery SET people_changed = 7")
                beside = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
            gallery.export(tmp_path / "people.npz")
    finally:
        os.umask(before)
    assert beside == {"people.db": 0o600, "people.db-journal": 0o600}
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {
        "people.db": 0o600, "people.npz": 0o600
    }  # fmt: skip


def foreign(path: Path, **marks: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT)")
    for mark, value in marks.items():
        connection.execute(f"PRAGMA {mark} = {value}")
    connection.commit()
    connection.close()


def test_foreign_files_are_refused_and_not_touched(tmp_path: Path) -> None:
    foreign(tmp_path / "other.db")
    foreign(tmp_path / "disguised.db", application_id=APPLICATION, user_version=1)
    foreign(tmp_path / "newer.db", application_id=APPLICATION, user_version=2)
    (tmp_path / "text.db").write_text("name,age\n" * 100)
    (tmp_path / "short.db").write_bytes(b"SQLite format 3\0")
    (tmp_path / "picture.db").write_bytes(bytes(range(256)) * 40)
    log = sqlite3.connect(tmp_path / "log.db")
    log.execute("PRAGMA journal_mode = WAL")
    log.execute("CREATE TABLE t (x)")
    log.close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for name in before:
        with pytest.raises(GalleryError, match=r"is not a gallery of nstcore") as caught:
            opened(tmp_path / name)
        assert name in str(caught.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE more (x)",
        "CREATE TRIGGER t AFTER INSERT ON person BEGIN DELETE FROM photo; END",
        "CREATE VIEW v AS SELECT * FROM person",
        "DROP INDEX photo_person",
        "PRAGMA user_version = 2",
        "PRAGMA application_id = 1",
    ],
)
def test_a_file_with_other_tables_is_refused(path: Path, change: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(change)
    connection.commit()
    connection.close()
    with pytest.raises(GalleryError, match="is not a gallery of nstcore, or one of another version"):
        opened(path)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE person SET name = x'00ff' WHERE id = 3",
        "UPDATE person SET name = 'a' || char(27) || '[31m' WHERE id = 3",
        "UPDATE person SET name = 'a' || char(10) || 'b' WHERE id = 3",
        "UPDATE person SET removed = 7 WHERE id = 3",
        "UPDATE photo SET person = 9999 WHERE id = 3",
        "UPDATE photo SET encoding = 7 WHERE id = 3",
        "UPDATE fact SET about = hex(zeroblob(20000))",
        "UPDATE fact SET source = 'a' || char(7)",
        "DELETE FROM gallery",
        "UPDATE gallery SET size = 1000000",
    ],
)
def test_a_row_that_a_gallery_never_writes_is_refused_on_opening(path: Path, change: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(change)
    connection.commit()
    connection.close()
    with pytest.raises(GalleryError, match=r"people.db is damaged"):
        opened(path)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE photo SET encoding = zeroblob(length(encoding)) WHERE id = 3",
        "UPDATE photo SET encoding = zeroblob(0) WHERE id = 3",
        "UPDATE photo SET encoding = zeroblob(1000000) WHERE id = 3",
        "UPDATE photo SET encoding = (SELECT encoding FROM photo WHERE id = 4) WHERE id = 3",
        "UPDATE photo SET encoding = (SELECT encoding FROM photo WHERE id = 4) WHERE id = 185",
        "UPDATE fact SET about = '[1]'",
        "UPDATE fact SET about = '{'",
        "UPDATE person SET merged_into = id WHERE id = 3",
        "UPDATE person SET merged_into = 3 - id WHERE id IN (1, 2)",
        "UPDATE gallery SET calibration = '{\"threshold\": 1}'",
    ],
)
def test_values_that_a_gallery_never_writes_are_refused_on_use(path: Path, change: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(change)
    connection.commit()
    connection.close()

    def use() -> None:
        with opened(path) as gallery:
            _ = gallery.calibration
            gallery.search(np.zeros((1, SIZE)))
            gallery.people()
            gallery.photos()

    with pytest.raises(GalleryError, match="the file is damaged"):
        use()


def test_a_photograph_given_to_somebody_else_by_another_program_is_found_by_check(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE photo SET person = 5 WHERE id = 3")
    connection.commit()
    connection.close()
    with opened(path) as gallery, pytest.raises(GalleryError, match="an encoding is another photograph's"):
        gallery.check()


def test_any_flipped_bit_is_noticed_or_harmless(path: Path) -> None:
    """300 places, one bit each: an error of ours, or everything as it was; no other answer, and no other error."""
    with opened(path) as gallery:
        gallery.merge("p10", "p11")
        gallery.remove("p12")
        gallery.set_calibration(CALIBRATION)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    queries = rng.standard_normal((4, SIZE))

    def answers() -> Any:
        with opened(path) as gallery:
            return gallery.search(queries, 3), gallery.people(), gallery.photos(), gallery.calibration

    expected, noticed, messages = answers(), 0, []
    places = rng.integers(0, len(whole), 260).tolist()
    # and where what is written has no second copy in an index
    for text in (b'"score":1', b"3.jpg", b"made up", b"p59", b"p12", b"f" * 32):
        places += [whole.index(text) + i for i in range(3)] + [whole.rindex(text)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert answers() == expected, place
        except GalleryError as error:
            noticed += 1
            messages.append(str(error))
    assert noticed > 80
    assert all("\n" not in message for message in messages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE person SET name = 'q3' WHERE name = 'p3'", "name or state does not match its sum"),
        ("UPDATE person SET removed = 1 WHERE id = 3", "name or state does not match its sum"),
        ("UPDATE person SET merged_into = 5 WHERE id = 3", "name or state does not match its sum"),
        ("UPDATE fact SET source = '9.jpg' WHERE source = '3.jpg'", "facts about a photograph do not match their sum"),
        ("UPDATE fact SET about = '{\"score\":2}'", "facts about a photograph do not match their sum"),
        ("UPDATE gallery SET model = 'another'", "first row does not match its sum"),
    ],
)
def test_a_value_that_does_not_match_its_rows_sum_is_refused(path: Path, change: str, message: str) -> None:
    """As a flipped bit in a page would change it, but by SQLite, which keeps every index right."""
    connection = sqlite3.connect(path)
    connection.execute(change)
    connection.commit()
    connection.close()
    with pytest.raises(GalleryError, match=message), opened(path) as gallery:
        gallery.check()


def test_an_empty_file_is_no_gallery_and_stays_empty(tmp_path: Path, path: Path) -> None:
    """Neither somebody's notes nor a gallery that was cut to nothing."""
    path.write_bytes(b"")
    (tmp_path / "notes.txt").touch()
    for empty in (path, tmp_path / "notes.txt"):
        for create in (False, True):
            with pytest.raises(GalleryError, match=r"is empty, and is not a gallery of nstcore"):
                opened(empty, create=create)
        assert empty.stat().st_size == 0


def test_a_link_to_nothing_makes_a_private_file_where_it_points(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "far" / "people.db")
    with opened(tmp_path / "link.db") as gallery:
        gallery.add("anna", np.zeros(SIZE))
    assert [file.name for file in (tmp_path / "far").iterdir()] == ["people.db"]
    assert stat.S_IMODE((tmp_path / "far" / "people.db").stat().st_mode) == 0o600
    assert (tmp_path / "link.db").is_symlink()


def test_behind_a_link_an_interrupted_change_is_taken_back(path: Path, tmp_path: Path) -> None:
    """The journal lies beside the file, not beside the link."""
    (tmp_path / "far").mkdir()
    copy = tmp_path / "far" / "people.db"
    with opened(path) as gallery:
        gallery._store._connection.execute("PRAGMA cache_size = 1")
        gallery._store._connection.execute("BEGIN IMMEDIATE")
        gallery._store._connection.execute("PRAGMA user_version = 9")  # the first page, too
        gallery._store._connection.execute("UPDATE photo SET encoding = zeroblob(88)")  # more than the memory holds
        shutil.copy(path, copy)
        shutil.copy(f"{path}-journal", f"{copy}-journal")
        gallery._store._connection.execute("ROLLBACK")
    damaged = bytearray(copy.read_bytes())
    damaged[:100] = bytes(100)  # the first page is half written
    copy.write_bytes(damaged)
    (tmp_path / "link.db").symlink_to(copy)
    with opened(tmp_path / "link.db") as gallery:
        gallery.check()
        assert len(gallery) == 185


def test_a_write_ahead_log_is_told_and_not_called_foreign(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode = WAL")
    other.close()
    with pytest.raises(GalleryError, match="was switched to a write-ahead log by another program"):
        opened(path)
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode = DELETE")
    other.close()
    with opened(path) as gallery:
        assert len(gallery) == 185


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "5"}, "expects a timeout of 0 to 3600 s, got '5'"),
        ({"timeout": None}, "expects a timeout of 0 to 3600 s, got None"),
        ({"timeout": float("nan")}, "expects a timeout of 0 to 3600 s, got nan"),
        ({"encoder": "x"}, "expects an encoder, got str"),
        ({"encoder": Fake(size=0)}, "expects an encoder of 1 to 4096 numbers"),
    ],
)
def test_wrong_arguments_are_told_and_make_no_file(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Gallery(tmp_path / "new.db", **{"encoder": Fake(), **options})
    with pytest.raises(GalleryError, match="expects the name of a file as text, got bytes"):
        Gallery(bytes(tmp_path / "new.db"), encoder=Fake())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path: Path, length: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * length)])
    with pytest.raises(GalleryError, match=r"damaged|not a gallery"):
        opened(path)


def test_places_that_hold_no_gallery(tmp_path: Path) -> None:
    for place, message in (
        (tmp_path, "is a folder; give the name of a file in it"),
        (tmp_path / "no" / "people.db", "the folder .* does not exist; create it first"),
        ("", "expects a file name, got an empty one"),
        ("/dev/null", "is not a regular file"),
        ("a\0b", "cannot be a gallery"),
        (tmp_path / ("x" * 300), "cannot be a gallery|cannot be read|cannot be created"),
    ):
        with pytest.raises(GalleryError, match=message):
            opened(place)  # type: ignore[arg-type]
    with pytest.raises(GalleryError, match="does not exist"):
        opened(tmp_path / "new.db", create=False)
    with pytest.raises(ArgumentError, match="expects a timeout"):
        opened(tmp_path / "new.db", timeout=-1)
    assert list(tmp_path.iterdir()) == []


def test_names_that_sqlite_would_take_for_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:x.db?mode=ro", "a b%20.db"):
        with opened(Path(name)) as gallery:
            gallery.add("anna", np.zeros(SIZE))
        with opened(Path(name)) as gallery:
            assert len(gallery) == 1
        assert (tmp_path / name).stat().st_size > 0


# ---- no permission, no room, no lock ----


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder in which permissions count, also when the tests run as root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def without_privileges(folder: Path, use: Any) -> None:
    if os.geteuid() != 0:
        use()
        return
    for place in (folder, *folder.iterdir()):
        os.chown(place, 65534, 65534)
    os.seteuid(65534)
    try:
        use()
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_read_only_gallery_answers_and_refuses_changes(path: Path, unprivileged: Path, what: str) -> None:
    copy = unprivileged / "people.db"
    shutil.copy(path, copy)

    def use() -> None:
        if what == "file":
            copy.chmod(0o400)
        else:
            unprivileged.chmod(0o555)
        with opened(copy) as gallery:
            assert len(gallery.search(np.zeros((1, SIZE)), 3)[0]) == 3
            for change in (lambda: gallery.add("new", np.zeros(SIZE)), lambda: gallery.forget("p1")):
                with pytest.raises(GalleryError, match=r"cannot be (written|opened): "):
                    change()
            assert len(gallery) == 185
        with (
            pytest.raises(GalleryError, match=r"cannot be created: Permission denied")
            if what == "folder"
            else pytest.raises(GalleryError, match="cannot be read: Permission denied")
        ):
            copy.chmod(0)
            opened(copy if what == "file" else unprivileged / "new.db")

    without_privileges(unprivileged, use)


def test_a_full_gallery_says_so(path: Path) -> None:
    with opened(path) as gallery:
        pages = gallery._store._connection.execute("PRAGMA page_count").fetchone()[0]
        gallery._store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(GalleryError, match="the disk is full, or the file's limit is reached; nothing was changed"):
            gallery.add_many(["new"] * 500, np.ones((500, SIZE)))
        assert len(gallery) == 185
        gallery.check()


def test_a_lock_that_lasts_is_told(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    with opened(path, timeout=0.05) as gallery:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(GalleryError, match=r"in use by another process, which did not finish within 0.05 s"):
            gallery.add("new", np.zeros(SIZE))
        assert len(gallery) == 185  # reading goes on
        other.execute("COMMIT")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(GalleryError, match="in use by another process"):
            gallery.people()
        other.execute("COMMIT")
        assert gallery.add("new", np.zeros(SIZE)).added
    other.close()


def test_one_more_photograph_touches_few_pages(tmp_path: Path) -> None:
    """Of 20,000 photographs' 3.7 MB at most 10 blocks of 8192 bytes differ afterwards."""
    path = tmp_path / "people.db"
    with opened(path) as gallery:
        gallery.add_many([f"p{i}" for i in range(20_000)], np.random.default_rng(0).standard_normal((20_000, SIZE)))
        before = path.read_bytes()
        gallery.add("one more", np.ones(SIZE), digest="ab" * 32, source="a.jpg", about={"score": 1})
        after = path.read_bytes()
    page = 8192
    changed = sum(before[i : i + page] != after[i : i + page] for i in range(0, len(after), page))
    assert len(before) > 2_500_000
    assert 1 < changed <= 10
