"""What ``nst style`` is told: options without effect, sizes of memory, and what is asked of an animation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nstcore.images import load

from .conftest import QUICK, Run


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
def test_what_means_nothing_is_refused(place: Path, run: Run, options: list[str], words: str) -> None:
    before = sorted(place.rglob("*"))
    code, _, told = run("style", "photo.jpg", "painting.png", *QUICK, *options)
    assert code == 2
    assert words in told
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("memory", ["2G", "2GB", "2 GiB", "2.0g", "2048m", "2147483648", "low", "normal"])
def test_sizes_of_memory(place: Path, run: Run, memory: str) -> None:
    assert run("style", "photo.jpg", "painting.png", *QUICK, "--memory", memory)[0] == 0
    assert load("out.png").shape[1] == 32


def test_an_animation_without_clip_is_told(place: Path, run: Run) -> None:
    frames = [Image.fromarray(np.full((40, 40, 3), level, np.uint8)) for level in (0, 120, 250)]
    frames[0].save("moves.gif", save_all=True, append_images=frames[1:])
    code, _, told = run("style", "moves.gif", "painting.png", *QUICK)
    assert code == 0
    assert "moves.gif has 3 frames, of which the first is painted; --clip paints all" in told


def test_the_picture_is_written_though_the_film_cannot_be(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nstcore.errors import OutputError

    def full(*_: object) -> None:
        raise OutputError("[film] run.gif cannot be written: No space left on device")

    monkeypatch.setattr("nstcore.style.film.write_animation", full)
    code, _, told = run("style", "photo.jpg", "painting.png", *QUICK, "--film", "run.gif")
    assert code == 2
    assert "No space left" in told
    assert load("out.png").shape[1] == 32


@pytest.mark.parametrize("name", ["x" * 300, "photo.jpg/inside.jpg", "locked/photo.jpg"])
def test_a_place_that_cannot_be(place: Path, run: Run, name: str) -> None:
    code, _, told = run("style", name, "painting.png", *QUICK)
    assert code == 2
    assert told.startswith("error: [image] ")
