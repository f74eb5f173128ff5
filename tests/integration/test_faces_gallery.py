"""`nst faces enroll` and the commands on a gallery, and galleries of real photographs."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstcore.demo import picture_path
from nstcore.errors import GalleryError, NoFaceError, SeveralFacesError
from nstcore.faces import Gallery
from nstcore.images import load, resize, save

from .conftest import ROOT, Run

PHOTO = picture_path("astronaut")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a portrait and what is none, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NSTCORE_GALLERY", raising=False)
    portrait = load(PHOTO)[:300, 80:380]
    save(tmp_path / "eileen.png", portrait)
    save(tmp_path / "mirrored.png", portrait[:, ::-1])
    save(tmp_path / "two.png", np.concatenate([portrait, portrait[:, ::-1]], axis=1))
    save(tmp_path / "small.png", resize(portrait, 80))
    save(tmp_path / "cat.jpg", load(picture_path("chelsea"), size=200))
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "cat.jpg").read_bytes()[:400])
    return tmp_path


def rows(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


def test_enrol_list_and_every_change(place: Path, run: Run) -> None:
    code, out, err = run("faces", "enroll", "Eileen", "eileen.png", "mirrored.png")
    assert (code, out, err) == (0, "people.db: 2 photographs of 1 person added\n", "")
    assert (place / "people.db").stat().st_mode & 0o777 == 0o600
    assert run("faces", "enroll", "Eileen", "eileen.png")[1] == "people.db: 0 photographs added, 1 already there\n"
    assert run("faces", "list") == (0, "Eileen\t2\t\t\n", "")
    (first, _) = rows(run("faces", "list", "Eileen")[1])
    assert first[:3] == ["1", "eileen.png", "Eileen"]
    assert 80 < float(first[3]) < 180
    save(place / "brighter.png", np.clip(load(place / "eileen.png") * 1.1, 0, 1))
    code, out, err = run("faces", "enroll", "E. Collins", "brighter.png")
    assert (code, out) == (0, "people.db: 1 photograph of 1 person added\n")
    assert err.startswith("warning: brighter.png: already enrolled as 'Eileen'? the distance is 0.")
    ada, eileen = ["Ada", "1", "", ""], ["Eileen", "2", "", ""]
    is_she, two = (
        "E. Collins is Eileen now; nst faces unmerge takes it back",
        "E. Collins and Eileen are two people again",
    )
    gone, back = "Ada is out of the answers; nst faces restore takes them back", "Ada is in the answers again"
    for command, answer, listed in (
        (("merge", "E. Collins", "Eileen"), is_she, [["Eileen", "3", "", "E. Collins"]]),
        (("unmerge", "E. Collins"), two, [["E. Collins", "1", "", ""], eileen]),
        (("rename", "E. Collins", "Ada"), "E. Collins is called Ada now", [ada, eileen]),
        (("remove", "Ada"), gone, [["Ada", "1", "removed", ""], eileen]),
        (("remove", "Ada"), "Ada was removed already", [["Ada", "1", "removed", ""], eileen]),
        (("restore", "Ada"), back, [ada, eileen]),
        (("restore", "Ada"), "Ada was not removed", [ada, eileen]),
        (("export", "all.npz"), "all.npz: 3 photographs", [ada, eileen]),
        (("forget", "Eileen", "--yes"), "forgotten, with 2 photographs", [ada]),
        (("import", "all.npz"), "people.db: 2 photographs added, 1 were there already", [ada, eileen]),
    ):  # fmt: skip
        assert run("faces", *command) == (0, answer + "\n", "")
        assert rows(run("faces", "list")[1]) == listed


def test_json_of_every_command(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSTCORE_GALLERY", "env.db")

    def facts(*arguments: str) -> Any:
        code, out, err = run("faces", *arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    enrolled = facts("enroll", "Eileen", "eileen.png")
    assert (enrolled["gallery"], enrolled["added"], enrolled["known"], enrolled["failed"]) == ("env.db", 1, 0, [])
    photo = enrolled["photos"][0]["photo"]
    assert (photo["name"], photo["source"], len(photo["digest"])) == ("Eileen", "eileen.png", 64)
    assert set(photo["about"]) == {"box", "landmarks", "score", "quality"}
    assert facts("list")["people"] == [{"name": "Eileen", "photos": 1, "merged": [], "removed": False}]
    assert facts("list", "Eileen") == [photo]
    assert facts("remove", "Eileen") == {"name": "Eileen", "removed": True, "changed": True}
    assert facts("restore", "Eileen") == {"name": "Eileen", "removed": False, "changed": True}
    assert facts("rename", "Eileen", "E") == {"name": "E", "before": "Eileen"}
    assert facts("export", "x.npz") == {"output": "x.npz", "photos": 1}
    assert facts("import", "x.npz", "--gallery", "new.db") == {"file": "x.npz", "added": 1, "known": 0}
    assert facts("forget", "E", "--yes") == {"name": "E", "photos": 1}
    assert not (place / "people.db").exists()


def test_a_folder_of_people_lists_what_was_refused_and_goes_on_where_it_stopped(place: Path, run: Run) -> None:
    for person, pictures in (("Eileen", ["eileen.png", "broken.jpg"]), ("nobody", ["cat.jpg"]), ("pair", ["two.png"])):
        (place / "people" / person).mkdir(parents=True)
        for picture in pictures:
            shutil.copy(picture, place / "people" / person)
    (place / "people" / "Eileen" / "notes.txt").write_text("no picture")
    code, out, err = run("faces", "enroll", "people")
    assert (code, out) == (2, "people.db: 1 photograph of 1 person added, 4 refused\n")
    broken, notes, cat, two = err.splitlines()
    assert notes.startswith("error: [image] people/Eileen/notes.txt is not a picture")
    (place / "people" / "Eileen" / "notes.txt").unlink()
    assert broken.startswith("error: [image] people/Eileen/broken.jpg")
    assert cat.startswith("error: [enroll] people/nobody/cat.jpg: expects one face, found none")
    assert two.startswith("error: [enroll] people/pair/two.png: expects one face, found 2, from the largest: (")
    shutil.copy("mirrored.png", place / "people" / "Eileen" / "later.png")
    code, out, _ = run("faces", "enroll", "people")
    assert (code, out) == (2, "people.db: 1 photograph of 1 person added, 1 already there, 3 refused\n")
    assert run("faces", "list")[1] == "Eileen\t2\t\t\n"


def test_every_file_of_a_folder_is_tried_and_what_is_not_is_said(place: Path, run: Run) -> None:
    (place / "people" / "Eileen" / "older").mkdir(parents=True)
    shutil.copy("eileen.png", "people/Eileen/picture-without-a-suffix")
    shutil.copy("mirrored.png", "people/Eileen/mirrored.jfif")
    shutil.copy("eileen.png", "people/Eileen/.hidden.png")
    shutil.copy("eileen.png", "people/loose.png")
    code, out, err = run("faces", "enroll", "people")
    assert (code, out) == (2, "people.db: 2 photographs of 1 person added, 2 not tried\n")
    assert [line.split("; ")[0] for line in err.splitlines()] == [
        "error: [enroll] not tried: people/Eileen/older",
        "error: [enroll] not tried: people/loose.png",
    ]
    facts = json.loads(run("faces", "enroll", "people", "--json")[1])
    assert (facts["known"], facts["not_tried"]) == (2, ["people/Eileen/older", "people/loose.png"])


def test_a_folder_is_not_taken_for_a_name(place: Path, run: Run) -> None:
    for person, file in (("Eileen", "eileen.png"), ("other", "mirrored.png")):
        (place / "people" / person).mkdir(parents=True)
        shutil.copy(file, place / "people" / person)
    for arguments in (["people/Eileen", "people/other"], ["eileen.png", "mirrored.png"], ["people", "eileen.png"]):
        code, _, err = run("faces", "enroll", *arguments)
        assert (code, "expects a name before its pictures" in err) == (2, True)
    assert not (place / "people.db").exists()
    os.chdir("people")
    assert run("faces", "enroll", "Eileen", "Eileen/eileen.png")[0] == 0  # the pictures are those of that folder


def test_a_gallery_that_fails_in_the_middle_keeps_the_report(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll = Gallery.enroll

    def full(gallery: Gallery, name: str, path: Path, **options: Any) -> Any:
        if path.name == "mirrored.png":
            raise GalleryError("[gallery] people.db: the disk is full") from sqlite3.OperationalError("full")
        return enroll(gallery, name, path, **options)

    monkeypatch.setattr(Gallery, "enroll", full)
    files = ("cat.jpg", "eileen.png", "mirrored.png", "two.png")
    code, out, err = run("faces", "enroll", "Eileen", *files)
    words = "1 photograph of 1 person added, 1 refused, stopped by the gallery, 2 left"
    assert (code, out) == (2, f"people.db: {words}\n")
    assert "cat.jpg" in err
    assert err.endswith("error: [gallery] people.db: the disk is full\n")
    code, out, _ = run("faces", "enroll", "Eileen", *files, "--json")
    facts = json.loads(out)
    assert (code, facts["known"], facts["left"], facts["error"]) == (2, 1, 2, "[gallery] people.db: the disk is full")


def test_the_quality_gate_can_be_switched_off(place: Path, run: Run) -> None:
    code, out, err = run("faces", "enroll", "Eileen", "small.png")
    assert (code, out) == (2, "people.db: 0 photographs added, 1 refused\n")
    assert "small.png: the face is" in err
    assert "(the quality check can be switched off)" in err
    code, out, err = run("faces", "enroll", "Eileen", "small.png", "--no-check-quality")
    assert (code, out) == (0, "people.db: 1 photograph of 1 person added\n")
    assert err.startswith("warning: small.png: the face is ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list"], "people.db does not exist; nst faces enroll makes one, --gallery or NSTCORE_GALLERY names another"),
        (["remove", "x"], "people.db does not exist"),
        (["enroll", "eileen.png"], "expects a name and its pictures, or a folder with a folder a person"),
        (["enroll", "."], "expects a folder a person, with pictures in it, in ., got none"),
        (["enroll", "a\nb", "eileen.png"], "expects a name on one line"),
        (["enroll", "x", "absent.png"], "absent.png does not exist"),
        (["list", "--gallery", "cat.jpg"], "cat.jpg is not a gallery of nstcore"),
        (["list", "--gallery", "."], ". is a folder; give the name of a file in it"),
        (["import", "cat.jpg"], "cat.jpg is not a gallery's export"),
    ],
)
def test_bad_input_is_one_line(place: Path, run: Run, arguments: list[str], message: str) -> None:
    code, _, err = run("faces", *arguments)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: [")
    assert message in err


def test_a_file_object_is_known_by_its_bytes_and_an_array_by_its_pixels(place: Path) -> None:
    with Gallery("people.db") as gallery:
        first = gallery.enroll("Eileen", "eileen.png")
        with open("eileen.png", "rb") as file:
            file.read(7)  # a picture is read from its beginning, wherever the file stands
            again = gallery.enroll("Eileen", file)
        in_memory = gallery.enroll("Eileen", io.BytesIO((place / "eileen.png").read_bytes()))
        with subprocess.Popen(["cat", "eileen.png"], stdout=subprocess.PIPE) as pipe:  # can be read once only
            assert pipe.stdout is not None
            piped = gallery.enroll("Eileen", pipe.stdout)
        assert first.added
        for other in (again, in_memory, piped):
            assert (other.added, other.photo) == (False, first.photo)
        array = gallery.enroll("Eileen", load("eileen.png"))
        assert (array.added, array.photo.source) == (True, None)
        assert not gallery.enroll("Eileen", load("eileen.png")).added
        with open("mirrored.png", "rb") as file:
            assert gallery.enroll("Eileen", file).photo.source == "mirrored.png"


def test_a_removed_persons_pictures_are_refused_and_nobody_answers(place: Path, run: Run) -> None:
    run("faces", "enroll", "Eileen", "eileen.png")
    run("faces", "remove", "Eileen")
    code, out, err = run("faces", "enroll", "Eileen", "eileen.png")
    assert (code, out) == (2, "people.db: 0 photographs added, 1 refused\n")
    assert "'Eileen' has been removed; restore or forget them first" in err
    with Gallery("people.db") as gallery:
        (match,) = gallery.identify("eileen.png")
    assert (match.name, match.compared) == (None, "nobody: all who are enrolled have been removed")


def test_without_a_terminal_nobody_is_forgotten_unasked(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, picture in (("Eileen", "eileen.png"), ("E. C.", "mirrored.png")):
        run("faces", "enroll", name, picture)
    run("faces", "merge", "E. C.", "Eileen")
    code, _, err = run("faces", "forget", "Eileen")
    assert code == 2
    assert "expects --yes where nobody can be asked" in err
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text: bool(asked.append(text)))
    assert run("faces", "forget", "Eileen")[0] == 1
    assert asked == ["Delete Eileen, with E. C. merged into them, and 2 photographs from people.db for good?"]
    assert rows(run("faces", "list")[1]) == [["Eileen", "2", "", "E. C."]]


def test_a_refused_import_makes_no_gallery(place: Path, run: Run) -> None:
    for file in ("cat.jpg", "absent.npz"):
        assert run("faces", "import", file, "--gallery", "new.db")[0] == 2
        assert not (place / "new.db").exists()


def test_an_interrupt_keeps_what_is_enrolled(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    enroll, calls = Gallery.enroll, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return enroll(*arguments, **options)

    monkeypatch.setattr(Gallery, "enroll", interrupted)
    code, out, _ = run("faces", "enroll", "Eileen", "eileen.png", "mirrored.png")
    assert code == 130
    assert out == "people.db: 1 photograph of 1 person added, interrupted, 1 left; the same command goes on\n"
    assert run("faces", "list")[1] == "Eileen\t1\t\t\n"


def test_a_terminal_shows_a_table_and_names_as_they_are(place: Path, run: Run) -> None:
    """Brackets are markup to rich, and stay brackets."""
    run("faces", "enroll", "[red]Eileen[/red]", "eileen.png")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "nstcore.cli", "faces", "list"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    subprocess.run(command, stdout=slave, check=True, timeout=60, env=environment)
    os.close(slave)
    shown = os.read(master, 10_000).decode()
    os.close(master)
    assert "photographs" in shown
    assert "[red]Eileen[/red]" in shown


# ---- real photographs ----


@pytest.fixture(scope="module")
def enrolled(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """All 15 photographs of six people."""
    with Gallery(tmp_path_factory.mktemp("gallery") / "people.db") as gallery:
        for path in sorted((test_data / "faces/photos").glob("*/*")):
            assert gallery.enroll(path.parent.name, path).added
        yield gallery


@pytest.mark.data
def test_each_photograph_finds_its_person_without_itself(enrolled: Gallery, tmp_path: Path) -> None:
    """Leave one out: of those with another photograph, each is recognised at the default threshold, and nobody else."""
    enrolled.export(tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as file:
        encodings, facts = file["encodings"], json.loads(file["facts"].tobytes())
    names = [facts["people"][photo["person"]]["name"] for photo in facts["photos"]]
    assert len(names) == 15
    for left in range(15):
        with Gallery(tmp_path / f"{left}.db", encoder=enrolled.encoder) as gallery:
            rest = [i for i in range(15) if i != left]
            gallery.add_many([names[i] for i in rest], encodings[rest])
            found = gallery.search(encodings[left : left + 1], 6)[0]
            within = [hit.name for hit in found if hit.distance <= gallery.calibration.threshold]
            assert within == ([names[left]] if names.count(names[left]) > 1 else [])


@pytest.mark.data
def test_a_group_photograph_is_named_from_one_photograph_each(test_data: Path, tmp_path: Path) -> None:
    faces = test_data / "faces"
    with Gallery(tmp_path / "people.db") as gallery:
        for name in ("obama", "biden", "lacamoire"):
            gallery.enroll(name, faces / f"photos/{name}/2.jpg")
        for one_each in (False, True):
            matches = gallery.identify(faces / "groups/obama_and_biden.jpg", one_each=one_each)
            named = [match.name for match in matches if match.name]
            assert sorted(named) == ["biden", "obama"]
            assert all(match.compared.endswith("(1 photograph)") for match in matches)
        gallery.remove("biden")
        matches = gallery.identify(faces / "groups/obama_and_biden.jpg")
        assert [match.name for match in matches if match.name] == ["obama"]
        assert all(match.nearest != "biden" for match in matches)


@pytest.mark.data
def test_verify_by_name(enrolled: Gallery, test_data: Path) -> None:
    photos = test_data / "faces/photos"
    answer = enrolled.verify("obama", photos / "obama/3.jpg")
    assert (answer.same, answer.compared, answer.distance) == (
        True,
        "obama (4 photographs)",
        pytest.approx(0, abs=1e-3),
    )
    other = enrolled.verify("obama", photos / "leslie/1.jpg")
    assert (other.same, other.calibrated) == (False, enrolled.calibration.calibrated)
    assert other.margin == pytest.approx(other.threshold - other.distance)
    assert enrolled.verify("obama", photos / "leslie/1.jpg", threshold=5.0).same


@pytest.mark.data
def test_pictures_without_a_face_or_with_two(enrolled: Gallery, test_data: Path) -> None:
    before = len(enrolled)
    with pytest.raises(SeveralFacesError, match="expects one face, found 2") as caught:
        enrolled.enroll("pair", test_data / "faces/groups/harington_and_leslie.jpg")
    assert len(caught.value.faces) == 2
    with pytest.raises(NoFaceError):
        enrolled.enroll("painting", test_data / "images" / sorted(os.listdir(test_data / "images"))[0])
    assert len(enrolled) == before
    assert "pair" not in [person.name for person in enrolled.people()]


@pytest.mark.data
def test_nothing_but_the_facts_is_in_the_file(enrolled: Gallery, test_data: Path) -> None:
    """No folder of the machine, and far less than the pictures."""
    path = enrolled._store.path
    content = path.read_bytes()
    assert str(test_data).encode() not in content
    assert b"obama/" not in content
    assert len(content) < 150_000
