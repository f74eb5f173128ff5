"""Several photographs in one call: the rest is done when one fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstcore.cli import main
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, OutputError
from nstcore.images import load, save, to_bytes
from nstcore.style import Progress, transfer, transfer_folder

QUICK = ["--size", "32", "--steps", "1", "--style-layers", "conv1_1", "--content-layers", "conv2_2"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.png", "a.png"):
        save(tmp_path / "photos" / name, load(picture_path("chelsea"), size=40))
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    save(tmp_path / "painting.png", load(picture_path("coffee"), size=40))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("content", ["photos", "photos/*g"])
def test_every_photograph_is_painted(place: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["style", content, "painting.png", "-o", "painted", *QUICK]) == 0
    assert sorted(path.name for path in (place / "painted").iterdir()) == ["a-jpg.png", "a-png.png", "b.png"]
    assert load(place / "painted" / "b.png").shape[1] == 32
    assert "3 of 3 photographs painted into painted" in capsys.readouterr().out


def test_failures_are_listed_and_the_rest_is_done(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "photos" / "a.jpg").write_text("damaged")
    assert main(["style", "photos", "painting.png", *QUICK]) == 1
    assert sorted(path.name for path in (place / "styled").iterdir()) == ["a-png.png", "b.png"]
    captured = capsys.readouterr()
    assert "failed: photos/a.jpg: " in captured.err
    assert "2 of 3 photographs painted" in captured.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["empty", "painting.png"], "empty is a folder without pictures"),
        (["none*.jpg", "painting.png"], r"got nothing for none*.jpg"),
        (["photos", "none.png"], "none.png"),
        (["photos"], "at least one painting"),
        (["photos", "painting.png", "-o", "one.png"], "a folder for several photographs, got one.png"),
        (["photos", "painting.png", "-o", "painting.png"], "a folder for several photographs, got painting.png"),
        (["photos", "painting.png", "--plot", "p.png"], "--plot is for one photograph, not for a folder"),
        (["photos", "painting.png", "--save-every", "3"], "--save-every is for one photograph"),
    ],
)
def test_what_means_nothing_is_refused(
    place: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "empty").mkdir()
    before = sorted(place.rglob("*"))
    assert main(["style", *arguments, *QUICK]) == 2
    assert words in capsys.readouterr().err
    assert sorted(place.rglob("*")) == before


def test_a_summary_as_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "photos" / "a.jpg").write_text("damaged")
    assert main(["style", "photos", "painting.png", "-o", "painted", "--json", *QUICK]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["painted"] == {"photos/a.png": "painted/a-png.png", "photos/b.png": "painted/b.png"}
    assert list(told["failures"]) == ["photos/a.jpg"]
    assert told["stopped"] is None


OPTIONS: dict[str, Any] = {"size": 32, "steps": 2, "style_layers": ["conv1_1"], "content_layers": ["conv2_2"]}


def test_python_paints_as_transfer_does(place: Path) -> None:
    steps: list[tuple[Path, int]] = []
    done: list[tuple[Path, Path, int]] = []
    found = transfer_folder(
        [Path("photos/b.png"), "photos/a.jpg"], "painting.png", "painted",
        callback=lambda photo, progress: steps.append((photo, progress.row.step)),
        done=lambda photo, picture, result: done.append((photo, picture, len(result.history))), **OPTIONS,
    )  # fmt: skip
    b, a = Path("photos/b.png"), Path("photos/a.jpg")
    assert steps == [(b, 1), (b, 2), (a, 1), (a, 2)]
    assert done == [(b, Path("painted/b.png"), 2), (a, Path("painted/a.png"), 2)]
    assert (found.folder, found.failures, found.stopped) == (Path("painted"), {}, None)
    assert found.painted == {b: Path("painted/b.png"), a: Path("painted/a.png")}
    np.testing.assert_array_equal(
        to_bytes(load("painted/b.png")), to_bytes(transfer(b, "painting.png", **OPTIONS).image)
    )


def test_no_picture_takes_the_place_of_another(place: Path) -> None:
    (place / "more").mkdir()
    save("more/a.jpg", load("photos/b.png"))
    save("photos/a-jpg.png", load("photos/b.png"))
    photos = ["photos/a-jpg.png", "photos/a.jpg", "more/a.jpg"]
    found = transfer_folder(photos, "painting.png", "painted", **{**OPTIONS, "steps": 1})
    assert [path.name for path in found.painted.values()] == ["a-jpg.png", "a-jpg-2.png", "a-jpg-2-2.png"]


def test_a_photograph_is_not_painted_over(place: Path) -> None:
    before = (place / "photos" / "b.png").read_bytes()
    with pytest.raises(OutputError, match=r"photos/b\.png is an input; choose another folder"):
        transfer_folder("photos/b*", "painting.png", "photos", **OPTIONS)
    assert (place / "photos" / "b.png").read_bytes() == before


def test_an_interruption_keeps_what_is_done(place: Path) -> None:
    def stop(photo: Path, progress: Progress) -> None:
        if photo.name == "a.png":
            raise KeyboardInterrupt

    found = transfer_folder("photos", "painting.png", "painted", callback=stop, **OPTIONS)
    assert found.stopped == "interrupted"
    assert list(found.painted) == [Path("photos/a.jpg")]
    assert sorted(path.name for path in (place / "painted").iterdir()) == ["a-jpg.png"]


@pytest.mark.parametrize("name", ["a-jpg.png", "painting.png", "mask.png"])
def test_no_input_at_all_is_painted_over(place: Path, name: str) -> None:
    """Also one that is another photograph's turn, the painting, or a mask."""
    (place / "photos" / name).write_bytes((place / "photos" / "b.png").read_bytes())
    before = {path: path.read_bytes() for path in (place / "photos").iterdir()}
    photos = ["photos/a.jpg", "photos/a.png"] if name == "a-jpg.png" else [f"more/{name}"]
    (place / "more").mkdir()
    save(f"more/{name}", load("photos/b.png"))
    inputs = {"regions": ["photos/mask.png"]} if name == "mask.png" else {}
    painting = "photos/a-jpg.png" if name == "a-jpg.png" else "photos/painting.png"
    painting = "painting.png" if name == "mask.png" else painting
    with pytest.raises(OutputError, match="is an input"):
        transfer_folder(photos, painting, "photos", **OPTIONS, **inputs)
    assert {path: path.read_bytes() for path in (place / "photos").iterdir()} == before


def test_one_that_diverges_fails(place: Path) -> None:
    wild = {**OPTIONS, "optimizer": "adam", "learning_rate": 1e12, "steps": 4}
    found = transfer_folder("photos/b.png", "painting.png", "painted", **wild)
    assert "not finite" in found.failures[Path("photos/b.png")]
    assert not list((place / "painted").iterdir())


@pytest.mark.parametrize(
    ("photos", "options", "words"),
    [
        ("photos", {"checkpoint": "run.npz"}, "checkpoint is for one photograph"),
        ("photos", {"film_every": 3}, "film_every is for one photograph"),
        ("photos", {"sise": 3}, "no option 'sise'"),
        ([], {}, "expects photographs, got none"),
    ],
)
def test_python_refuses(place: Path, photos: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        transfer_folder(photos, "painting.png", "painted", **options)
