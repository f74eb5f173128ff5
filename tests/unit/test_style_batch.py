"""Several photographs in one call: the rest is done when one fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from nstcore.cli import main
from nstcore.demo import picture_path
from nstcore.images import load, save

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
        (["photos"], "at least one painting"),
        (["photos", "painting.png", "-o", "one.png"], "a folder as -o for several photographs, got one.png"),
        (["photos", "painting.png", "-o", "painting.png"], "a folder as -o"),
        (["photos", "painting.png", "--plot", "p.png"], "--plot is for one photograph, got 3"),
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
