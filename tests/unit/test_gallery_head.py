"""A verification head in a gallery: kept, used, exported, and refused where it is damaged or another encoder's."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstcore.faces.pipeline
from nstcore.errors import ArgumentError, GalleryError
from nstcore.faces import VerificationHead, verify
from nstcore.faces.exchange import read
from nstcore.weights import archive, npy
from nstcore.weights.format import array_digest, meta_digest

from .gallery_help import CALIBRATION, SIZE, Fake, filled, opened


def made(form: str = "absolute", encoder: str | None = Fake.digest, size: int = SIZE) -> VerificationHead:
    """A head with weights of its own."""
    head = VerificationHead(size, form, encoder=encoder)
    rng = np.random.default_rng(1)
    head.weight.data = -rng.random((size, 1)).astype(np.float32)
    head.bias.data = rng.random(1).astype(np.float32)
    return head


def probability(head: VerificationHead, a: Any, b: Any) -> float:
    """By the definition."""
    off = np.abs(np.float64(a) - np.float64(b))
    phi = off if head.form == "absolute" else off**2 / (np.abs(np.float64(a)) + np.abs(np.float64(b)) + 1e-8)
    return float(1 / (1 + np.exp(-(phi @ np.float64(head.weight.data[:, 0]) + np.float64(head.bias.data[0])))))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "people.db")


@pytest.mark.parametrize("form", ["absolute", "chi2"])
def test_a_head_is_kept_and_gives_the_probability_of_the_nearest_photograph(path: Path, form: str) -> None:
    head, queries = made(form), np.random.default_rng(2).standard_normal((3, SIZE)).astype(np.float32)
    with opened(path) as gallery:
        before = gallery.search(queries, 4)
        assert gallery.head is None
        assert {found.probability for hits in before for found in hits} == {None}
        gallery.set_head(head)
    with opened(path) as gallery:
        gallery.check()
        kept = gallery.head
        assert kept is not None
        assert (kept.form, kept.size, kept.encoder) == (form, SIZE, Fake.digest)
        np.testing.assert_array_equal(kept.weight.data, head.weight.data)
        gallery.merge("p1", "p2")
        gallery.remove("p3")
        photos = {photo.id: number for number, photo in enumerate(gallery.photos())}
        gallery.export(path.with_suffix(".npz"))
        encodings = np.load(path.with_suffix(".npz"))["encodings"]
        for query, hits in zip(queries, gallery.search(queries, 4), strict=True):
            for found in hits:
                nearest = encodings[photos[found.photo]]
                assert found.distance == pytest.approx(float(np.linalg.norm(query - nearest)), rel=1e-5)
                assert found.probability == pytest.approx(probability(head, query, nearest), rel=1e-6)
        assert gallery.search(np.empty((0, SIZE)), 4) == []


def test_a_gallery_without_a_head_is_as_it_was_before_there_were_any(path: Path) -> None:
    """Files from before open, and one whose head is taken out again has no trace of it."""

    def tables() -> list[Any]:
        connection = sqlite3.connect(path)
        try:
            return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        finally:
            connection.close()

    before = tables()
    assert all(name != "head" for _, name, _ in before)
    head = made()
    with opened(path) as gallery:
        gallery.set_head(head)
        gallery.set_head(made("chi2"))
        assert gallery.head is not None
        assert gallery.head.form == "chi2"
        gallery.set_head(head)
        gallery.set_head(None)
        assert gallery.head is None
        gallery.check()
    assert tables() == before
    assert head.weight.data.tobytes() not in path.read_bytes()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (made(encoder=None), "does not say which encoder's encodings it takes"),
        (made(encoder="0" * 64), r"expects encodings of the encoder 000000000000 \(16 numbers\), got ffffffffffff"),
        (made(size=4), r"\(4 numbers\), got ffffffffffff \(16 numbers\)"),
        ("a head", "expects a verification head, got str"),
    ],
)
def test_other_heads_are_refused_and_the_old_one_stays(path: Path, head: Any, message: str) -> None:
    broken = made()
    broken.weight.data[3] = np.nan
    with opened(path) as gallery:
        gallery.set_head(made("chi2"))
        with pytest.raises(ArgumentError, match=message):
            gallery.set_head(head)
        with pytest.raises(ArgumentError, match="finite weights"):
            gallery.set_head(broken)
        assert gallery.head is not None
        assert gallery.head.form == "chi2"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE head SET form = 'chi2'",
        "UPDATE head SET form = 'other'",
        "UPDATE head SET sum = sum + 1",
        "UPDATE head SET numbers = zeroblob(68)",
        "UPDATE head SET numbers = substr(numbers, 1, 64)",
        "UPDATE head SET numbers = 7",
        "DELETE FROM head",
        "DROP TABLE head; CREATE TABLE head (id INTEGER PRIMARY KEY, form, numbers, sum)",
        "DROP TABLE head; CREATE VIEW head AS SELECT * FROM person",
    ],
)
def test_a_damaged_head_is_noticed(path: Path, change: str) -> None:
    with opened(path) as gallery:
        gallery.set_head(made())
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.executescript(change)
    connection.close()
    with pytest.raises(GalleryError), opened(path) as gallery:
        gallery.search(np.zeros((1, SIZE)), 1)
    with pytest.raises(GalleryError), opened(path) as gallery:
        gallery.check()


def test_a_head_of_another_gallerys_file_does_not_pass(path: Path, tmp_path: Path) -> None:
    """The row names its encoder in its sum: copied into a gallery of another encoder it is damage."""
    with opened(path) as gallery:
        gallery.set_head(made())
    other = tmp_path / "other.db"
    with opened(other, Fake(digest="a" * 64)) as gallery:
        gallery.set_head(made(encoder="a" * 64))
    connection = sqlite3.connect(other)
    connection.execute("ATTACH ? AS first", (str(path),))
    connection.execute("UPDATE head SET (form, numbers, sum) = (SELECT form, numbers, sum FROM first.head)")
    connection.commit()
    connection.close()
    with opened(other, Fake(digest="a" * 64)) as gallery, pytest.raises(GalleryError, match="verification head"):
        gallery.head  # noqa: B018


# ---- export and import ----


def test_an_export_carries_it(path: Path, tmp_path: Path) -> None:
    head, file = made("chi2"), tmp_path / "people.npz"
    with opened(path) as gallery:
        gallery.set_head(head)
        gallery.export(file)
    with opened(tmp_path / "new.db") as gallery:
        gallery.load_from(file)
        assert gallery.head is not None
        np.testing.assert_array_equal(gallery.head.weight.data, head.weight.data)
        assert (gallery.head.form, gallery.head.encoder) == ("chi2", Fake.digest)
        gallery.export(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()
    with opened(tmp_path / "other.db") as gallery:  # has people: another head would change its answers
        gallery.add("somebody", np.ones(SIZE))
        gallery.load_from(file)
        assert gallery.head is None
    with opened(tmp_path / "own.db") as gallery:
        gallery.set_head(made())
        gallery.load_from(file)
        assert gallery.head is not None
        assert gallery.head.form == "absolute"


def sealed(path: Path, facts: dict[str, Any], arrays: dict[str, Any]) -> None:
    """An export as if a gallery had written it."""
    facts["digests"] = {key: array_digest(array) for key, array in arrays.items()}
    facts["digest"] = meta_digest(facts)
    arrays = {**arrays, "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    with open(path, "wb") as file:
        archive.write_members(file, [(k, npy.header(a), a.reshape(-1).view(np.uint8).data) for k, a in arrays.items()])


@pytest.mark.parametrize("what", ["short", "nan", "float64", "form", "nothing", "more"])
def test_an_export_with_a_head_that_does_not_fit_is_refused(path: Path, tmp_path: Path, what: str) -> None:
    file = tmp_path / "people.npz"
    with opened(path) as gallery:
        gallery.set_head(made())
        gallery.export(file)
    with np.load(file) as stored:
        arrays, facts = {key: stored[key] for key in ("encodings", "head")}, json.loads(stored["facts"].tobytes())
    assert read(file).head is not None
    changes: dict[str, Any] = {
        "short": lambda: arrays.update(head=arrays["head"][1:].copy()),
        "nan": lambda: arrays.update(head=np.full(SIZE + 1, np.nan, np.float32)),
        "float64": lambda: arrays.update(head=arrays["head"].astype(np.float64)),
        "form": lambda: facts.update(head={"form": "other"}),
        "nothing": lambda: facts.update(head=None),
        "more": lambda: arrays.update(more=np.zeros(1)),
    }
    changes[what]()
    sealed(file, facts, arrays)
    with opened(tmp_path / "new.db") as gallery:
        with pytest.raises(GalleryError, match="is not a gallery's export, or damaged"):
            gallery.load_from(file)
        assert len(gallery) == 0


# ---- answers ----


def test_answers_say_that_the_head_gave_the_probability(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold on the distance decides as before; only the probability is another one."""
    query = np.random.default_rng(4).standard_normal(SIZE).astype(np.float32)
    monkeypatch.setattr(nstcore.faces.pipeline, "encode_one", lambda *_, **__: (None, query))
    monkeypatch.setattr(nstcore.faces.pipeline, "encode_faces", lambda *_, **__: [(None, query), (None, query + 1)])
    head = made()
    with opened(path) as gallery:
        plain, named = gallery.identify("x.png"), gallery.verify("p7", "x.png")
        assert not any(answer.by_head for answer in (*plain, named))
        gallery.set_head(head)
        for one_each in (False, True):
            for before, match in zip(plain, gallery.identify("x.png", one_each=one_each), strict=True):
                assert (match.name, match.distance, match.margin) == (before.name, before.distance, before.margin)
                assert match.by_head
                assert match.probability != before.probability
        found = gallery.search(query[None], 1)[0][0]
        assert gallery.identify("x.png")[0].probability == found.probability
        answer = gallery.verify(found.name, "x.png")
        assert (answer.probability, answer.by_head) == (found.probability, True)
        assert answer.to_json()["by_head"] is True
        assert (gallery.verify("p7", "x.png").distance, named.same) == (named.distance, named.distance <= 0.5)


def test_two_pictures_are_judged_by_a_head_of_their_encoder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, SIZE)).astype(np.float32)
    found = iter([a, b])
    module = sys.modules["nstcore.faces.verify"]  # the function of the same name hides it
    monkeypatch.setattr(module, "encode_one", lambda *_, **__: (None, next(found)))
    head = made("chi2")
    answer = verify("a.png", "b.png", encoder=Fake(), calibration=CALIBRATION, head=head)  # type: ignore[arg-type]
    assert answer.probability == pytest.approx(probability(head, a, b))
    assert answer.by_head
    with pytest.raises(ArgumentError, match="encodings of different encoders cannot be compared"):
        verify("a.png", "b.png", encoder=Fake(digest="0" * 64), head=head)  # type: ignore[arg-type]


def test_a_read_only_gallery_is_read_with_its_head(path: Path, tmp_path: Path) -> None:
    with opened(path) as gallery:
        gallery.set_head(made())
    shutil.copy(path, tmp_path / "copy.db")
    (tmp_path / "copy.db").chmod(0o400)
    with opened(tmp_path / "copy.db") as gallery:
        assert gallery.search(np.zeros((1, SIZE)), 1)[0][0].probability is not None
