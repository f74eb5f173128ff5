"""Galleries as .npz: everything comes back, twice is once, and a damaged or foreign file changes nothing."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstcore.errors import GalleryError, OutputError
from nstcore.faces import Calibration, Gallery, Person
from nstcore.weights import archive, npy
from nstcore.weights.format import array_digest, meta_digest

from .gallery_help import CALIBRATION, SIZE, Fake, filled, opened

Facts = dict[str, Any]


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A gallery's export: merges in a chain, a removed person, photographs with facts and without."""
    with opened(filled(tmp_path / "people.db")) as gallery:
        gallery.merge("p1", "p2")
        gallery.merge("p2", "p3")
        gallery.remove("p4")
        assert gallery.export(tmp_path / "people.npz") == 185
    return tmp_path / "people.npz"


def state(gallery: Gallery) -> Any:
    queries = np.random.default_rng(9).standard_normal((5, SIZE))
    return gallery.people(), gallery.photos(), gallery.search(queries, 7)


def write(path: Path, encodings: Any, facts: Facts, seal: bool = True) -> None:
    """An export with these contents; sealed as if a gallery had written them."""
    if seal:
        facts["digests"] = {"encodings": array_digest(encodings)}
        facts["digest"] = meta_digest(facts)
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    members = {"encodings": encodings, "facts": text}
    with open(path, "wb") as file:
        archive.write_members(file, [(k, npy.header(a), a.reshape(-1).view(np.uint8).data) for k, a in members.items()])


def test_everything_comes_back_and_twice_is_once(exported: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "people.db") as first, opened(tmp_path / "new.db") as second:
        assert second.load_from(exported) == (185, 0)
        assert state(second) == state(first)
        assert second.load_from(exported) == (0, 185)
        assert state(second) == state(first)
        assert second.unmerge("p1") == "p2"
        second.export(tmp_path / "again.npz")
        first.unmerge("p1")
        first.export(exported)
    assert (tmp_path / "again.npz").read_bytes() == exported.read_bytes()


def test_numpy_reads_an_export(exported: Path) -> None:
    with np.load(exported, allow_pickle=False) as file:
        facts = json.loads(file["facts"].tobytes())
        assert file["encodings"].shape == (185, SIZE)
    assert facts["people"][2] == {"name": "p2", "merged_into": "p3", "removed": False}
    assert facts["photos"][-1] == {"person": 4, "source": "4.jpg", "digest": f"{4:064x}", "about": {"score": 1}}


def test_people_who_are_there_keep_their_state(exported: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "other.db") as gallery:
        gallery.add("p1", np.full(SIZE, 9.0))
        gallery.add("p4", np.full(SIZE, 8.0))
        gallery.add("p7", np.full(SIZE, 6.0))
        gallery.remove("p7")
        gallery.add("somebody", np.full(SIZE, 7.0), digest=f"{3:064x}")  # one of the photographs, under another name
        assert gallery.load_from(exported) == (184, 1)
        people = {person.name: person for person in gallery.people()}
        assert people["p1"].photos == 5  # not merged: the name was there
        assert people["p3"].merged == ("p2",)
        assert not people["p4"].removed
        assert (people["p7"].removed, people["p7"].photos) == (True, 4)
        queries = np.stack([np.full(SIZE, 6.0), np.zeros(SIZE)])
        assert all(hit.name != "p7" for hits in gallery.search(queries, 99) for hit in hits)
        gallery.restore("p7")
        assert gallery.search(queries, 1)[0][0].name == "p7"
        gallery.check()


def test_merges_come_back_as_they_were(tmp_path: Path) -> None:
    """Enrolled as b, a, c, so that the order of merging is neither that of names nor that of numbers."""
    with opened(tmp_path / "a.db") as first, opened(tmp_path / "b.db") as second:
        first.add_many(["b", "a", "c"], np.eye(3, SIZE))
        first.merge("a", "b")
        first.merge("b", "c")
        first.export(tmp_path / "x.npz")
        second.load_from(tmp_path / "x.npz")
        for gallery in (first, second):
            assert gallery.unmerge("b") == "c"
        assert second.people() == first.people() == [Person("b", 2, ("a",)), Person("c", 1)]


def test_nobody_is_made_of_pictures_that_are_there(tmp_path: Path) -> None:
    """A picture that is enrolled under another name brings no empty person along."""
    with opened(tmp_path / "a.db") as first, opened(tmp_path / "b.db") as second:
        for name, digest in (("anna", "ab"), ("bob", "cd"), ("carl", "ef")):
            first.add(name, np.zeros(SIZE), digest=32 * digest)
        first.merge("bob", "anna")
        first.export(tmp_path / "x.npz")
        second.add("ann", np.zeros(SIZE), digest=32 * "ab")
        second.add("karl", np.zeros(SIZE), digest=32 * "ef")
        assert second.load_from(tmp_path / "x.npz") == (1, 2)
        # anna is there because bob, whose picture is new, was merged into her
        assert [(p.name, p.photos) for p in second.people()] == [("ann", 1), ("anna", 1), ("karl", 1)]


def test_a_calibration_travels_into_a_gallery_without_people(tmp_path: Path) -> None:
    mine, other = (Calibration(t, 31.5, -9.25, True, 40, 4000, "my own pairs", 1e-3) for t in (0.25, 0.75))
    with opened(tmp_path / "a.db") as first:
        first.add("anna", np.zeros(SIZE))
        first.set_calibration(mine)
        first.export(tmp_path / "x.npz")
    with opened(tmp_path / "new.db") as gallery:
        gallery.load_from(tmp_path / "x.npz")
        assert gallery.calibration == mine
    with opened(tmp_path / "own.db") as gallery:
        gallery.set_calibration(other)
        gallery.load_from(tmp_path / "x.npz")
        assert gallery.calibration == other
    with opened(tmp_path / "people.db") as gallery:
        gallery.add("bob", np.ones(SIZE))  # whose answers an import must not change
        gallery.load_from(tmp_path / "x.npz")
        assert gallery.calibration == CALIBRATION


def test_photographs_without_a_digest_are_read_once(tmp_path: Path) -> None:
    """Of each person, and not once a photograph; counted in SQLite's steps."""
    count, encodings = 3000, np.random.default_rng(0).standard_normal((3000, SIZE))
    with opened(tmp_path / "a.db") as gallery:
        gallery.add_many(["anna"] * count, encodings)
        gallery.export(tmp_path / "x.npz")
        read: list[str] = []
        gallery._store._connection.set_trace_callback(read.append)
        assert gallery.load_from(tmp_path / "x.npz") == (0, count)
        gallery._store._connection.set_trace_callback(None)
    assert sum("SELECT encoding" in statement for statement in read) == 1


def test_an_export_onto_the_gallery_itself_is_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.db"
    (tmp_path / "link.npz").symlink_to(path)
    before = path.read_bytes()
    with opened(path) as gallery:
        for place in (path, tmp_path / "link.npz"):
            with pytest.raises(OutputError, match=r"is the input .*people.db; choose another name"):
                gallery.export(place)
        assert len(gallery) == 185
    assert path.read_bytes() == before


def test_people_without_photographs_and_an_empty_gallery_travel(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as empty, opened(tmp_path / "b.db") as other:
        assert empty.export(tmp_path / "empty.npz") == 0
        assert other.load_from(tmp_path / "empty.npz") == (0, 0)


def test_another_encoders_export_is_refused(exported: Path, tmp_path: Path) -> None:
    for fake in (Fake(digest="e" * 64), Fake(size=8)):
        with opened(tmp_path / f"{fake.size}.db", fake) as gallery:
            with pytest.raises(GalleryError, match="encodings of different encoders cannot be compared"):
                gallery.load_from(exported)
            assert len(gallery) == 0


def change(key: str, value: Any) -> Callable[[Facts], None]:
    return lambda facts: facts.__setitem__(key, value)


def first_photo(**new: Any) -> Callable[[Facts], None]:
    return lambda facts: facts["photos"][0].update(new)


def first_person(**new: Any) -> Callable[[Facts], None]:
    return lambda facts: facts["people"][0].update(new)


@pytest.mark.parametrize(
    "alter",
    [
        change("format", "other"), change("format_version", 2), change("size", 0), change("size", "16"),
        change("size", 8), change("photos", []), change("photos", {}), change("people", None), change("model", None),
        lambda facts: facts.pop("people"), lambda facts: facts["photos"].pop(),
        first_photo(person=60), first_photo(person=-1), first_photo(person=True), first_photo(digest="x" * 64),
        first_photo(digest="ab"), first_photo(digest=f"{1:064x}"), first_photo(source=7), first_photo(about=[]),
        first_photo(about={"x": "y" * 20_000}),
        first_person(name=""), first_person(name="a\nb"), first_person(name=" a"), first_person(name="p1"),
        change("calibration", 7), change("calibration", {"threshold": 1}), first_person(merged_into="p1", removed=True),
        first_person(merged_into="nobody"), first_person(merged_into=1), first_person(removed=1),
    ],
)  # fmt: skip
def test_facts_that_a_gallery_never_writes_are_refused(
    exported: Path, tmp_path: Path, alter: Callable[[Facts], Any]
) -> None:
    """Though every digest is right, as a forger would make it."""
    with np.load(exported) as file:
        facts, encodings = json.loads(file["facts"].tobytes()), file["encodings"]
    alter(facts)
    write(tmp_path / "forged.npz", encodings, facts)
    with opened(tmp_path / "other.db") as gallery:
        with pytest.raises(GalleryError, match=r"forged.npz.* (is not a gallery's export|cannot be compared)|forged"):
            gallery.load_from(tmp_path / "forged.npz")
        assert (gallery.people(), len(gallery)) == ([], 0)


def test_merges_in_a_circle_are_refused_as_a_whole(exported: Path, tmp_path: Path) -> None:
    with np.load(exported) as file:
        facts, encodings = json.loads(file["facts"].tobytes()), file["encodings"]
    facts["people"][3]["merged_into"] = "p1"  # and p1 into p2, and p2 into p3
    write(tmp_path / "circle.npz", encodings, facts)
    with opened(tmp_path / "other.db") as gallery:
        with pytest.raises(GalleryError):
            gallery.load_from(tmp_path / "circle.npz")
        assert (gallery.people(), len(gallery)) == ([], 0)


def test_files_that_are_no_export_are_refused(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 3] ^= 1
    with np.load(exported) as file:
        facts, encodings = json.loads(file["facts"].tobytes()), file["encodings"]
    contents = {
        "flipped": bytes(middle), "cut": whole[:-100], "empty": b"", "text": b"hello", "pickle": pickle.dumps([1]),
        "database": (tmp_path / "people.db").read_bytes(),
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "other.npz", encodings=encodings)
    np.savez_compressed(tmp_path / "packed.npz", encodings=encodings, facts=np.zeros(3, np.uint8))
    write(tmp_path / "nan.npz", encodings * np.float32(np.nan), facts)
    write(tmp_path / "wide.npz", encodings.astype(np.float64), facts)
    facts["people"][0]["name"] = "altered"
    write(tmp_path / "unsealed.npz", encodings, facts, seal=False)
    with opened(tmp_path / "new.db") as gallery:
        for name in (*contents, "other.npz", "packed.npz", "nan.npz", "wide.npz", "unsealed.npz", "absent", "."):
            with pytest.raises(GalleryError) as caught:
                gallery.load_from(tmp_path / name)
            assert "\n" not in str(caught.value)
        assert len(gallery) == 0


def test_an_export_that_cannot_be_written_leaves_the_old_one(exported: Path, tmp_path: Path) -> None:
    before = exported.read_bytes()
    with opened(tmp_path / "people.db") as gallery:
        for place in (tmp_path, tmp_path / "no" / "x.npz"):
            with pytest.raises(OutputError):
                gallery.export(place)
    assert exported.read_bytes() == before
