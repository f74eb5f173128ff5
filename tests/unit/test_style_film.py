"""A film of a run, and animations written and read one frame at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nstcore import models
from nstcore.cli import main
from nstcore.demo import picture_path
from nstcore.demo.painter import paint
from nstcore.errors import ArgumentError, ImageError, OutputError
from nstcore.images import load, resize_to, save
from nstcore.style import Progress, transfer
from nstcore.style.animation import ANIMATIONS, read_animation, write_animation
from nstcore.style.film import LAST, SECONDS
from nstcore.style.frames import FrameFolder

Array = NDArray[Any]
OPTIONS: dict[str, Any] = {
    "size": 48, "start_size": 24, "steps": 6, "content_layers": ["conv2_2"], "style_layers": ["conv1_1"],
}  # fmt: skip
PIXELS = 10**6


@pytest.fixture(scope="module")
def net() -> models.VGG:
    return models.vgg16()


@pytest.fixture(scope="module")
def photo() -> Array:
    return load(picture_path("chelsea"), size=48)


@pytest.fixture(scope="module")
def painting() -> Array:
    return paint("swirl", 40, 48)


def moving(count: int) -> Iterator[tuple[Array, float]]:
    """Smooth pictures of few colours, that go to the right."""
    across = np.linspace(0, 3, 64)
    for i in range(count):
        bright = np.broadcast_to(127 + 100 * np.sin(across + i), (48, 64))
        yield np.repeat(np.rint(bright).astype(np.uint8)[:, :, None], 3, 2), 0.1


@pytest.mark.parametrize("suffix", sorted(ANIMATIONS))
def test_an_animation_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_animation(path, moving(5), 5)
    found = list(read_animation(path, PIXELS))
    assert [seconds for _, seconds in found] == pytest.approx([0.1] * 5, abs=1e-3)
    for (pixels, _), (expected, _) in zip(found, moving(5), strict=True):
        assert np.abs(pixels.astype(int) - expected).mean() < 4


def test_frames_are_taken_one_at_a_time(tmp_path: Path) -> None:
    """However many there are, none is kept: the frame before the last one is gone when the next is made."""
    import weakref

    for suffix in sorted(ANIMATIONS):
        alive: list[Any] = []
        most = 0

        def watched(alive: list[Any] = alive) -> Iterator[tuple[Array, float]]:
            nonlocal most
            for pixels, seconds in moving(12):
                kept = pixels.copy()
                alive.append(weakref.ref(kept))
                del pixels
                yield kept, seconds
                del kept
                most = max(most, sum(ref() is not None for ref in alive))

        write_animation(tmp_path / f"a{suffix}", watched(), 12)
        assert len(alive) == 12
        assert most <= 3


def test_an_mp4_of_odd_sides(tmp_path: Path) -> None:
    write_animation(tmp_path / "a.mp4", ((np.full((31, 33, 3), 90, np.uint8), 0.04) for _ in range(2)), 2)
    shapes = [pixels.shape for pixels, _ in read_animation(tmp_path / "a.mp4", PIXELS)]
    assert shapes == [(32, 34, 3)] * 2


def test_what_is_no_animation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"suffix must be one of \.gif, \.webp, \.mp4; got \.avi"):
        write_animation(tmp_path / "a.avi", moving(1), 1)
    for name in ("a.mp4", "a.gif"):
        with pytest.raises(ImageError, match="does not exist"):
            list(read_animation(tmp_path / name, PIXELS))
        (tmp_path / name).write_text("no animation")
        with pytest.raises(ImageError, match=r"a\.\w+ is no animation or damaged"):
            list(read_animation(tmp_path / name, PIXELS))
    write_animation(tmp_path / "b.gif", moving(2), 2)
    with pytest.raises(ImageError, match="64x48 pixels, over the limit of 1,000"):
        list(read_animation(tmp_path / "b.gif", 1000))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ArgumentError, match=r"to write a video, install PyAV: pip install 'nstcore\[film\]'"):
        write_animation(tmp_path / "c.mp4", moving(1), 1)
    with pytest.raises(ArgumentError, match="to read a video, install PyAV"):
        list(read_animation(tmp_path / "c.mp4", PIXELS))


def test_a_film_shows_the_start_every_few_steps_and_the_end(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path
) -> None:
    """Pictures of smaller sizes are enlarged, and nothing else stays in the folder."""
    shown: dict[int, Array] = {}

    def keep(progress: Progress) -> None:
        shown[progress.row.step] = progress.image

    path = tmp_path / "run.gif"
    result = transfer(photo, painting, net=net, film=path, film_every=4, callback=keep, **OPTIONS)
    assert [p.name for p in tmp_path.iterdir()] == ["run.gif"]
    frames = list(read_animation(path, PIXELS))
    assert [seconds for _, seconds in frames] == pytest.approx([SECONDS] * 4 + [LAST])
    expected = [load(photo, size=24), shown[4], shown[8], shown[12], result.image]
    assert len(result.history) == 13
    assert shown[4].shape[1] == 24
    for (pixels, _), picture in zip(frames, expected, strict=True):
        assert pixels.shape == result.image.shape
        assert np.abs(pixels / 255 - resize_to(picture, *result.image.shape[:2])).mean() < 0.03


def test_a_film_goes_on_with_its_run(net: models.VGG, photo: Array, painting: Array, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.row.step == 7:
            raise KeyboardInterrupt

    options = {"net": net, "film_every": 2, **OPTIONS}
    transfer(photo, painting, film=tmp_path / "whole.gif", **options)
    film, saved = tmp_path / "run.gif", tmp_path / "run.npz"
    transfer(photo, painting, film=film, checkpoint=saved, callback=stop, **options)
    assert FrameFolder(tmp_path / "run-frames").numbers() == [0, 2, 4, 6]
    assert len(list(read_animation(film, PIXELS))) == 5
    transfer(photo, painting, film=film, resume=saved, **options)
    assert film.read_bytes() == (tmp_path / "whole.gif").read_bytes()
    assert not (tmp_path / "run-frames").exists()


@pytest.mark.parametrize(
    ("film", "every", "words"),
    [
        ("run.png", None, r"suffix must be one of \.gif"),
        ("no/run.gif", None, "does not exist"),
        ("run.gif", 0, "expects film_every from 1 "),
        ("run.gif", 2.5, "film_every"),
    ],
)
def test_what_a_film_cannot_be(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, film: str, every: Any, words: str
) -> None:
    with pytest.raises((OutputError, ArgumentError), match=words):
        transfer(photo, painting, net=net, film=tmp_path / film, film_every=every, **OPTIONS)


def test_a_film_has_bounds(net: models.VGG, photo: Array, painting: Array, tmp_path: Path) -> None:
    options = {**OPTIONS, "steps": 5000, "start_size": 48}
    with pytest.raises(ArgumentError, match=r"film_every from 5 for 5000 steps, .* at most 1000 pictures; got 4"):
        transfer(photo, painting, net=net, film=tmp_path / "run.gif", film_every=4, **options)


def test_a_folder_of_something_else_is_left_alone(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path
) -> None:
    (tmp_path / "run-frames").mkdir()
    (tmp_path / "run-frames" / "000001.png").write_text("mine")
    with pytest.raises(OutputError, match="run-frames exists and is no folder of frames"):
        transfer(photo, painting, net=net, film=tmp_path / "run.gif", **OPTIONS)
    assert (tmp_path / "run-frames" / "000001.png").read_text() == "mine"


def test_the_command_films(photo: Array, painting: Array, tmp_path: Path, capsys: Any) -> None:
    for name, picture in (("a.png", photo), ("b.png", painting)):
        save(tmp_path / name, picture)
    quick = ["--size", "32", "--steps", "3", "--style-layers", "conv1_1", "--content-layers", "conv2_2"]
    out, film = tmp_path / "out.png", tmp_path / "run.mp4"
    arguments = ["style", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "-o", str(out), "--film", str(film), *quick]
    assert main(arguments) == 0
    assert len(list(read_animation(film, PIXELS))) == 4
    assert main([*arguments[:-10], "--film", str(out), *quick]) == 2
    assert "different files for -o" in capsys.readouterr().err
