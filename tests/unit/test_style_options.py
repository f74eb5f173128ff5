"""What ``nst style`` is told: options without effect, sizes of memory, and what is asked of an animation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nstcore.cli import main
from nstcore.demo import picture_path
from nstcore.images import load, save

QUICK = ["--size", "32", "--steps", "1", "--style-layers", "conv1_1", "--content-layers", "conv2_2"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save(tmp_path / "photo.png", load(picture_path("chelsea"), size=40))
    save(tmp_path / "painting.png", load(picture_path("coffee"), size=40))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--film-every", "3"], "--film-every is without effect unless --film is given"),
        (["--checkpoint-every", "3"], "--checkpoint-every is without effect unless --checkpoint or --resume is given"),
        (["--face-weight", "3"], "--face-weight is without effect unless --keep-face is given"),
        (["--frame-steps", "3"], "--frame-steps is without effect unless --clip is given"),
        (["--start", "painting.png", "--init", "noise"], "expects --start or --init, got both"),
        (["--memory", "lots"], "expects --memory as normal, low, or a size such as 1G or 800M; got 'lots'"),
        (["--memory", "nan"], "a size such as 1G"),
        (["--memory", "-1G"], "a size such as 1G"),
        (["--memory", "1K"], "need at least"),
        (["--plan", "--region", "none.png"], "none.png does not exist"),
    ],
)
def test_what_means_nothing_is_refused(
    place: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(place.rglob("*"))
    assert main(["style", "photo.png", "painting.png", *QUICK, *options]) == 2
    assert words in capsys.readouterr().err
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("memory", ["2G", "2GB", "2 GiB", "2.0g", "2048m", "2147483648", "low", "normal"])
def test_sizes_of_memory(place: Path, memory: str) -> None:
    assert main(["style", "photo.png", "painting.png", *QUICK, "--memory", memory]) == 0
    assert load("out.png").shape[1] == 32


def test_an_animation_without_clip_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.fromarray(np.full((40, 40, 3), level, np.uint8)) for level in (0, 120, 250)]
    frames[0].save("moves.gif", save_all=True, append_images=frames[1:])
    assert main(["style", "moves.gif", "painting.png", *QUICK]) == 0
    assert "moves.gif has 3 frames, of which the first is painted; --clip paints all" in capsys.readouterr().err


def test_the_picture_is_written_though_the_film_cannot_be(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nstcore.errors import OutputError

    def full(*_: object) -> None:
        raise OutputError("[film] run.gif cannot be written: No space left on device")

    monkeypatch.setattr("nstcore.style.film.write_animation", full)
    assert main(["style", "photo.png", "painting.png", *QUICK, "--film", "run.gif"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert load("out.png").shape[1] == 32


@pytest.mark.parametrize("name", ["x" * 300, "photo.png/inside.jpg", "locked/photo.png"])
def test_a_place_that_cannot_be(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["style", name, "painting.png", *QUICK]) == 2
    assert capsys.readouterr().err.startswith("error: [image] ")
