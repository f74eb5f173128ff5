"""`nst faces detect`: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nstcore.demo import picture_path
from nstcore.images import load, save

from .conftest import Run


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a portrait, a cat and a damaged file, which is the current one."""
    save(tmp_path / "face.jpg", load(picture_path("astronaut"))[30:230, 140:300])
    save(tmp_path / "cat.jpg", load(picture_path("chelsea"), size=120))
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "cat.jpg").read_bytes()[:400])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_line_for_each_face(shelf: Path, run: Run) -> None:
    code, out, err = run("faces", "detect", "face.jpg")
    assert (code, err) == (0, "")
    name, *numbers = out.rstrip("\n").split("\t")
    left, top, right, bottom, score = map(float, numbers)
    assert name == "face.jpg"
    assert 0 < left < right < 160
    assert 0 < top < bottom < 200
    assert score > 0.99


def test_json(shelf: Path, run: Run) -> None:
    code, out, _ = run("faces", "detect", "face.jpg", "cat.jpg", "--json")
    assert code == 1
    face, cat = json.loads(out)
    assert (face["file"], face["width"], face["height"], len(face["faces"])) == ("face.jpg", 160, 200, 1)
    assert cat["faces"] == []
    assert np.shape(face["faces"][0]["landmarks"]) == (5, 2)
    assert len(face["faces"][0]["box"]) == 4


def test_exit_codes(shelf: Path, run: Run) -> None:
    assert run("faces", "detect", "cat.jpg") == (1, "cat.jpg\t\t\t\t\t\n", "")
    code, out, err = run("faces", "detect", "bad.jpg", "cat.jpg", "face.jpg", "missing.jpg")
    assert code == 2
    assert [line.split("\t")[0] for line in out.splitlines()] == ["cat.jpg", "face.jpg"]
    assert re.fullmatch(r"error: .*bad\.jpg.*\nerror: .*missing\.jpg does not exist\n", err)
    code, out, _ = run("faces", "detect", "bad.jpg", "--json")
    assert code == 2
    assert "bad.jpg" in json.loads(out)[0]["error"]


def test_a_picture_with_boxes(shelf: Path, run: Run) -> None:
    before = (shelf / "face.jpg").read_bytes()
    code, _, err = run("faces", "detect", "face.jpg", "-o", "boxed.png")
    assert (code, err) == (0, "")
    with Image.open("boxed.png") as boxed:
        assert boxed.size == (160, 200)
        assert np.abs(np.asarray(boxed, float) - load("face.jpg") * 255).max() > 100
    assert (shelf / "face.jpg").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("face.jpg", "cat.jpg", "-o", "boxed.png"), "--output takes one picture, got 2"),
        (("face.jpg", "-o", "boxed.gif"), "suffix"),
        (("face.jpg", "-o", "none/boxed.png"), "none"),
        (("face.jpg", "-o", "face.jpg"), "face.jpg"),
        (("face.jpg", "--min-size", "2"), "min_size of at least 6 pixels, got 2"),
        (("face.jpg", "--max-pixels", "100"), "over the limit of 100 pixels"),
        ((), "IMG"),
    ],
)
def test_what_is_refused(shelf: Path, run: Run, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run("faces", "detect", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not list(shelf.glob("boxed*"))


def test_a_table_on_a_terminal(shelf: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, _ = run("faces", "detect", "face.jpg", "cat.jpg")
    assert code == 1
    assert re.search(r"face\.jpg +1 ", out)
    assert re.search(r"cat\.jpg +none", out)
