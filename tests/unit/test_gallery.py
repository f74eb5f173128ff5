"""Galleries: who is found, names and merges, calibration, limits. Encodings are made up; no network takes part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstcore.errors import ArgumentError, GalleryError, NstError, ShapeError
from nstcore.faces import Calibration, Gallery, Person, people
from nstcore.faces._index import Index
from nstcore.faces.records import clean_name, source_name

from . import gallery_help
from .gallery_help import CALIBRATION, Fake


def opened(path: Path, encoder: Any = None) -> Gallery:
    return gallery_help.opened(path, encoder or Fake(size=4))


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with opened(tmp_path / "people.db") as made:
        yield made


def vector(*values: float) -> Any:
    return np.array([*values, 0, 0, 0, 0][:4], np.float32)


def names(gallery: Gallery, *values: float, k: int = 9) -> list[str]:
    return [found.name for found in gallery.search(vector(*values)[None], k)[0]]


def test_the_nearest_photograph_counts(gallery: Gallery) -> None:
    gallery.add("anna", vector(0))
    gallery.add("bob", vector(3))
    gallery.add("anna", vector(10))
    nearest, other = gallery.search(vector(9)[None], 5)[0]
    assert (nearest.name, nearest.distance, nearest.photo, nearest.photos) == ("anna", 1.0, 3, 2)
    assert (other.name, other.distance, other.photo, other.photos) == ("bob", 6.0, 2, 1)


@pytest.mark.parametrize("seed", range(4))
def test_search_agrees_with_all_distances(gallery: Gallery, seed: int) -> None:
    """People with 1 to 60 photographs, so that the nearest rows are often one person's."""
    rng = np.random.default_rng(seed)
    points = rng.integers(-3, 4, (700, 4)).astype(np.float32)  # many equal distances
    owners = [f"p{int(x)}" for x in rng.geometric(0.15, 700)]
    gallery.add_many(owners, points)
    queries = rng.integers(-3, 4, (20, 4)).astype(np.float32)
    for query, hits in zip(queries, gallery.search(queries, 6), strict=True):
        squares = ((points - query) ** 2).sum(axis=1)
        best: dict[str, tuple[float, int]] = {}
        for row, (square, owner) in enumerate(zip(squares.tolist(), owners, strict=True)):
            best[owner] = min(best.get(owner, (np.inf, 0)), (square, row))
        expected = sorted((square, row, owner) for owner, (square, row) in best.items())[:6]
        assert [(hit.distance, hit.photo, hit.name) for hit in hits] == [
            (pytest.approx(np.sqrt(square)), row + 1, owner) for square, row, owner in expected
        ]


def test_of_equal_distances_the_first_enrolled_comes_first(gallery: Gallery) -> None:
    for name in ("zoe", "anna", "mia"):
        gallery.add(name, vector(1))
    assert names(gallery, 1) == ["zoe", "anna", "mia"]
    assert names(gallery, 1, k=2) == ["zoe", "anna"]


def test_an_empty_gallery_finds_nobody(gallery: Gallery) -> None:
    assert gallery.search(np.zeros((3, 4), np.float32), 2) == [[], [], []]
    assert gallery.search(np.zeros((0, 4), np.float32), 2) == []
    assert (gallery.people(), gallery.photos(), len(gallery)) == ([], [], 0)


def test_somebody_else_who_looks_the_same_is_told(gallery: Gallery) -> None:
    assert gallery.add("anna", vector(0)).warnings == ()
    assert gallery.add("anna", vector(0.1)).warnings == ()  # herself
    (warning,) = gallery.add("ann", vector(0.4)).warnings
    assert warning == "already enrolled as 'anna'? the distance is 0.300, the threshold 0.500"
    assert gallery.add("bob", vector(0.91)).warnings == ()  # 0.51 away


def test_the_same_picture_is_added_once(gallery: Gallery) -> None:
    digest = "ab" * 32
    first = gallery.add("anna", vector(0), source="/home/me/secret place/a.jpg", digest=digest, about={"score": 0.5})
    again = gallery.add("anna", vector(1), digest=digest)
    assert (first.added, again.added, len(gallery)) == (True, False, 1)
    assert again.photo == first.photo == gallery.photos("anna")[0]
    assert (first.photo.source, first.photo.digest, dict(first.photo.about)) == ("a.jpg", digest, {"score": 0.5})
    with pytest.raises(GalleryError, match=r"this very picture is enrolled as 'anna', got 'bob'"):
        gallery.add("bob", vector(0), digest=digest)
    assert [person.name for person in gallery.people()] == ["anna"]


def test_a_removed_person_is_out_of_the_answers_until_restored(gallery: Gallery) -> None:
    gallery.add_many(["anna", "bob", "carl"], np.stack([vector(0), vector(1), vector(2)]))
    gallery.merge("carl", "anna")
    assert gallery.remove("anna")
    assert not gallery.remove("anna")
    assert names(gallery, 0) == ["bob"]
    assert gallery.people() == [Person("anna", 2, ("carl",), True), Person("bob", 1)]
    with pytest.raises(GalleryError, match="'anna' has been removed; restore or forget"):
        gallery.add("carl", vector(0))
    with pytest.raises(GalleryError, match="'anna' has been removed; restore them before merging"):
        gallery.merge("bob", "anna")
    with pytest.raises(GalleryError, match="'anna' has been removed, and 'carl' with them"):
        gallery.unmerge("carl")
    assert gallery.restore("anna")
    assert not gallery.restore("anna")
    assert names(gallery, 0) == ["anna", "bob"]


def test_a_merge_is_taken_back_exactly(gallery: Gallery) -> None:
    gallery.add_many(["a", "b", "c", "b"], np.stack([vector(0), vector(1), vector(2), vector(3)]))
    before = gallery.people(), gallery.photos(), names(gallery, 3)
    gallery.merge("b", "c")
    gallery.merge("c", "a")
    assert gallery.people() == [Person("a", 4, ("b", "c"))]
    assert names(gallery, 3) == ["a"]
    assert [(photo.name, photo.enrolled_as) for photo in gallery.photos("a")] == [
        ("a", "a"), ("a", "b"), ("a", "c"), ("a", "b")
    ]  # fmt: skip
    assert gallery.unmerge("b") == "c"
    assert gallery.people() == [Person("a", 2, ("c",)), Person("b", 2)]
    assert names(gallery, 3) == ["b", "a"]
    assert gallery.unmerge("c") == "a"
    assert (gallery.people(), gallery.photos(), names(gallery, 3)) == before


def test_a_merge_into_a_merged_name_goes_with_that_name(gallery: Gallery) -> None:
    """a is b, b is c; then d is a: taking back b takes a and d with it, as they were named."""
    gallery.add_many(["a", "b", "c", "d"], np.stack([vector(0), vector(1), vector(2), vector(3)]))
    gallery.merge("a", "b")
    gallery.merge("b", "c")
    before = gallery.people()
    gallery.merge("d", "a")
    assert gallery.people() == [Person("c", 4, ("a", "b", "d"))]
    assert gallery.unmerge("b") == "c"
    assert gallery.people() == [Person("b", 3, ("a", "d")), Person("c", 1)]
    assert names(gallery, 3) == ["b", "c"]
    gallery.merge("b", "c")
    assert gallery.unmerge("d") == "a"
    assert gallery.people() == before
    with pytest.raises(GalleryError, match="'c' and 'a' are one person already"):
        gallery.merge("c", "a")


def test_a_long_chain_of_merges(gallery: Gallery) -> None:
    """Time does not grow with the square of its length."""
    count = 3000
    gallery.add_many([f"p{i}" for i in range(count)], np.zeros((count, 4)))
    with gallery._store.changing() as connection:
        for i in range(count - 1):
            row = people.find(connection, f"p{i}")
            people.write(connection, replace(row, merged_into=row.id + 1))
    ((found,),) = gallery.search(np.zeros((1, 4)))
    assert (found.name, found.photos) == (f"p{count - 1}", count)


def test_a_removed_persons_picture_is_not_called_there_already(gallery: Gallery) -> None:
    gallery.add("anna", vector(0), digest="ab" * 32)
    gallery.add("ann", vector(0), digest="cd" * 32)
    gallery.merge("ann", "anna")
    gallery.remove("anna")
    for name, digest in (("anna", "ab" * 32), ("ann", "cd" * 32)):
        with pytest.raises(GalleryError, match="'anna' has been removed; restore or forget them first"):
            gallery.add(name, vector(0), digest=digest)
    gallery.restore("anna")
    assert not gallery.add("anna", vector(0), digest="ab" * 32).added


def test_an_interrupted_question_changes_no_answer(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between reading new photographs and saying whose they are."""
    gallery.add_many([f"p{i}" for i in range(50)], np.eye(50, 4, dtype=np.float32))
    gallery.search(np.zeros((1, 4)))
    gallery.merge("p1", "p2")
    gallery.search(np.zeros((1, 4)))
    points = np.random.default_rng(0).standard_normal((2000, 4)).astype(np.float32)
    gallery.add_many(["p1", *(f"q{i}" for i in range(1, 2000))], points)
    append, left = Index._append, [3]

    def interrupted(self: Index, *values: Any) -> None:
        append(self, *values)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Index, "_append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            gallery.search(points[:1])
    found = gallery.search(points[:900])
    assert [hits[0].name for hits in found] == ["p2", *(f"q{i}" for i in range(1, 900))]
    assert {hits[0].distance for hits in found} == {0.0}
    gallery.check()


def test_a_merged_name_still_takes_photographs_and_keeps_them(gallery: Gallery) -> None:
    gallery.add_many(["anna", "annie"], np.stack([vector(0), vector(5)]))
    gallery.merge("annie", "anna")
    result = gallery.add("annie", vector(6))
    assert (result.photo.name, result.photo.enrolled_as, result.warnings) == ("anna", "annie", ())
    gallery.unmerge("annie")
    assert gallery.people() == [Person("anna", 1), Person("annie", 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.merge("a", "a"), "'a' and 'a' are one person already"),
        (lambda g: g.merge("a", "m"), "'a' and 'm' are one person already"),
        (lambda g: g.merge("m", "b"), "'m' was merged into 'a'; name that one, or unmerge first"),
        (lambda g: g.remove("m"), "'m' was merged into 'a'; name that one"),
        (lambda g: g.unmerge("b"), "'b' was not merged into anybody"),
        (lambda g: g.unmerge("a"), "'a' was not merged into anybody; it has 'm' in it"),
        (lambda g: g.rename("a", "b"), "somebody is called 'b' already; if they are one person, merge them"),
        (lambda g: g.rename("nobody", "b"), "nobody is called 'nobody'"),
        (lambda g: g.forget("long nme"), "nobody is called 'long nme'; is it 'long name'?"),
        (lambda g: g.photos("x"), "nobody is called 'x'"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(gallery: Gallery, change: Any, message: str) -> None:
    gallery.add_many(["a", "b", "m", "long name"], np.eye(4, dtype=np.float32))
    gallery.merge("m", "a")
    before = gallery.people(), gallery.photos()
    with pytest.raises(GalleryError) as caught:
        change(gallery)
    assert message in str(caught.value)
    assert (gallery.people(), gallery.photos()) == before


def test_rename(gallery: Gallery) -> None:
    gallery.add("Zoe\u0308", vector(0))
    gallery.rename(" Zoë ", "Zoe")
    gallery.rename("Zoe", "Zoe")
    assert names(gallery, 0) == ["Zoe"]
    gallery.add("Zoë", vector(1))  # the name is free again
    assert len(gallery.people()) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expects a name, got an empty one"),
        (" \t ", "expects a name, got an empty one"),
        ("a\nb", r"expects a name on one line, got a control character in 'a\nb'"),
        ("a\x1b[31mb", "got a control character"),
        ("a\u2028b", "got a line break"),
        ("a\u202eb", "got a character that changes the direction of writing"),
        ("a\ud800", "got half a character"),
        ("a" * 201, "expects a name of at most 200 characters, got 201"),
        ("a" * 10**6, "expects a name of at most 200 characters, got 1000000"),
        (7, "expects a name as text, got int"),
    ],
)
def test_names_that_are_none(gallery: Gallery, name: Any, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        gallery.add(name, vector(0))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(gallery) == 0


@pytest.mark.parametrize(
    "name", ["a" * 200, "O'Neil; DROP TABLE person", "[red]x[/red]", "../../etc", "李小龍", "%_*?"]
)
def test_odd_names_are_kept_as_they_are(gallery: Gallery, name: str) -> None:
    gallery.add(name, vector(0))
    assert names(gallery, 0) == [name]
    gallery.forget(name)
    assert gallery.people() == []


@given(st.text(max_size=220))
@settings(max_examples=100, deadline=None)
def test_a_name_is_refused_or_clean(text: str) -> None:
    try:
        clean = clean_name(text)
    except ArgumentError:
        return
    assert clean_name(clean) == clean
    assert 0 < len(clean) <= 200
    assert clean.isprintable() or " " in clean or any(ord(c) > 126 for c in clean)


@pytest.mark.parametrize(
    ("source", "kept"),
    [("/home/anna/a.jpg", "a.jpg"), ("C:\\Users\\anna\\a.jpg", "a.jpg"), ("folder/", "folder"), ("a\nb.jpg", "a?b.jpg"),
     ("/", None), (None, None), ("x" * 300 + ".jpg", "x" * 196 + ".jpg")],
)  # fmt: skip
def test_of_a_path_the_last_part_is_kept(source: str | None, kept: str | None) -> None:
    assert source_name(source) == kept


@pytest.mark.parametrize(
    ("encoding", "error", "message"),
    [
        (np.zeros(5), ShapeError, "[add] expects numbers (1, 4), got float64 (1, 5)"),
        (np.zeros(128, np.float32), ShapeError, "got float32 (1, 128)"),
        (np.zeros((2, 4)), ShapeError, "[add] expects numbers (1, 4), got (2, 4)"),
        (np.zeros((2, 2)), ShapeError, "[add] expects numbers (1, 4), got float64 (2, 2)"),
        ([[1, 2], [1]], ShapeError, "[add] expects numbers (1, 4), got rows of many lengths"),
        (np.array([1, np.nan, 0, 0]), ArgumentError, "[add] expects finite encodings"),
        (np.array([1e300, 0, 0, 0]), ArgumentError, "[add] expects finite encodings"),
        (np.array(["a", "b", "c", "d"]), ShapeError, "[add] expects numbers (1, 4)"),
    ],
)
def test_encodings_that_do_not_fit(gallery: Gallery, encoding: Any, error: type[NstError], message: str) -> None:
    with pytest.raises(error) as caught:
        gallery.add("anna", encoding)
    assert message in str(caught.value)
    assert (len(gallery), gallery.people()) == (0, [])


def test_add_many_is_all_or_nothing(gallery: Gallery) -> None:
    gallery.add("gone", vector(0))
    gallery.remove("gone")
    with pytest.raises(GalleryError, match="'gone' has been removed"):
        gallery.add_many(["new", "gone"], np.eye(4, dtype=np.float32)[:2])
    with pytest.raises(ShapeError, match="expects a name an encoding, got 1 and 2"):
        gallery.add_many(["new"], np.eye(4, dtype=np.float32)[:2])
    assert [person.name for person in gallery.people()] == ["gone"]


@pytest.mark.parametrize("wrong", [[["x"], "a"], ["a", None], [b"a", "b"]])
def test_what_are_no_names_is_refused(gallery: Gallery, wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=r"expects a name as text, got (list|NoneType|bytes)"):
        gallery.add_many(wrong, np.eye(4, dtype=np.float32)[:2])
    with pytest.raises(ShapeError, match="expects a name an encoding, got 1 and 2"):
        gallery.add_many("ab", np.eye(4, dtype=np.float32)[:2])  # one name, not two letters
    assert gallery.people() == []


@pytest.mark.parametrize("k", [0, -1])
def test_search_for_nobody_is_refused(gallery: Gallery, k: int) -> None:
    with pytest.raises(ArgumentError, match=rf"\[search\] expects k of at least 1, got {k}"):
        gallery.search(np.zeros((1, 4)), k)


def test_the_calibration_is_the_encoders_until_one_is_stored(gallery: Gallery, tmp_path: Path) -> None:
    assert gallery.calibration == CALIBRATION
    mine = Calibration(0.25, 31.5, -9.25, True, 40, 4000, "my own pairs", 1e-3)
    gallery.set_calibration(mine)
    with opened(tmp_path / "people.db") as other:
        assert other.calibration == mine
    gallery.add("anna", vector(0))
    assert gallery.add("bob", vector(0.3)).warnings == ()  # beyond the stored threshold, within the encoder's
    gallery.set_calibration(None)
    assert gallery.calibration == CALIBRATION


@pytest.mark.parametrize("field", [{"threshold": np.inf}, {"threshold": -1.0}, {"source": 7}, {"slope": "1"}])
def test_a_calibration_that_is_none_is_refused(gallery: Gallery, field: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="expects a calibration of finite numbers"):
        gallery.set_calibration(replace(CALIBRATION, **field))
    assert gallery.calibration == CALIBRATION


@pytest.mark.parametrize("other", ["x", 0.5, {"threshold": 0.5}])
def test_what_is_no_calibration_is_refused(gallery: Gallery, other: Any) -> None:
    with pytest.raises(ArgumentError, match="expects a calibration of finite numbers, got "):
        gallery.set_calibration(other)


@pytest.mark.parametrize("other", [Fake(digest="e" * 64, size=4), Fake(size=5)])
def test_another_encoders_gallery_is_refused(gallery: Gallery, tmp_path: Path, other: Fake) -> None:
    with pytest.raises(GalleryError, match=r"holds encodings of fake \(ffffffffffff, 4 numbers\), got the encoder"):
        opened(tmp_path / "people.db", encoder=other)
    with Gallery(tmp_path / "people.db") as without:
        for _ in range(2):  # the embedded encoder does not fit the second time either
            with pytest.raises(GalleryError, match="cannot be compared"):
                _ = without.encoder


def test_what_another_process_changes_is_seen(gallery: Gallery, tmp_path: Path) -> None:
    """Two connections, as two processes have them; each change by one, each question to the other."""
    with opened(tmp_path / "people.db") as other:
        gallery.add("anna", vector(0))
        assert names(other, 0) == ["anna"]
        gallery.add("bob", vector(1))
        assert names(other, 0) == ["anna", "bob"]
        gallery.rename("anna", "ann")
        assert names(other, 0) == ["ann", "bob"]
        gallery.merge("bob", "ann")
        assert names(other, 0) == ["ann"]
        gallery.add("bob", vector(2))
        assert [(f.distance, f.photos) for f in other.search(vector(2)[None], 2)[0]] == [(0.0, 3)]
        gallery.unmerge("bob")
        assert names(other, 0) == ["ann", "bob"]
        gallery.remove("ann")
        assert names(other, 0) == ["bob"]
        gallery.restore("ann")
        gallery.forget("bob")
        gallery.add("eve", vector(5))  # takes the number of a photograph that is gone
        assert [(f.name, f.distance) for f in other.search(vector(0)[None], 9)[0]] == [("ann", 0.0), ("eve", 5.0)]
        gallery.set_calibration(replace(CALIBRATION, threshold=0.125))
        assert other.calibration.threshold == 0.125


def test_the_index_grows_with_the_gallery(gallery: Gallery) -> None:
    """Past the spare room, again and again, with a search between."""
    rng = np.random.default_rng(1)
    points = rng.standard_normal((9000, 4)).astype(np.float32)
    for start in range(0, 9000, 1500):
        gallery.add_many([str(i) for i in range(start, start + 1500)], points[start : start + 1500])
        some = rng.integers(0, start + 1500, 5)
        assert [hits[0].name for hits in gallery.search(points[some], 1)] == [str(i) for i in some]


def test_a_closed_gallery_says_so(tmp_path: Path) -> None:
    gallery = opened(tmp_path / "people.db")
    gallery.close()
    gallery.close()
    with pytest.raises(GalleryError, match="was closed"):
        gallery.people()
