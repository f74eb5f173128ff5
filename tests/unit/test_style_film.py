"""A film of a run, and animations written and read one frame at a time."""

from __future__ import annotations

import struct
import sys
import types
from collections.abc import Callable
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
from nstcore.style import Progress, transfer, transfer_clip
from nstcore.style.animation import ANIMATIONS, read_animation, write_animation
from nstcore.style.film import LAST, SECONDS
from nstcore.style.frames import FrameFolder
from nstcore.style.run import Run

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


def moving(i: int, seconds: float = 0.1) -> tuple[Array, float]:
    """A smooth picture of few colours, that goes to the right."""
    bright = np.broadcast_to(127 + 100 * np.sin(np.linspace(0, 3, 64) + i), (48, 64))
    return np.repeat(np.rint(bright).astype(np.uint8)[:, :, None], 3, 2), seconds


@pytest.mark.parametrize("suffix", sorted(ANIMATIONS))
def test_an_animation_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_animation(path, moving, 5)
    found = list(read_animation(path, PIXELS))
    assert [seconds for _, seconds in found] == pytest.approx([0.1] * 5, abs=1e-3)
    for i, (pixels, _) in enumerate(found):
        assert np.abs(pixels.astype(int) - moving(i)[0]).mean() < 4


def test_frames_are_taken_one_at_a_time(tmp_path: Path) -> None:
    """However many there are, none is kept: the frame before the last one is gone when the next is made."""
    import weakref

    for suffix in sorted(ANIMATIONS):
        alive: list[Any] = []
        most = 0

        def watched(i: int, alive: list[Any] = alive) -> tuple[Array, float]:
            nonlocal most
            most = max(most, sum(ref() is not None for ref in alive))
            pixels, seconds = moving(i)
            alive.append(weakref.ref(pixels))
            return pixels, seconds

        write_animation(tmp_path / f"a{suffix}", watched, 12)
        assert len(alive) == (24 if suffix == ".gif" else 12)
        assert most <= 3


def test_an_mp4_of_odd_sides(tmp_path: Path) -> None:
    write_animation(tmp_path / "a.mp4", lambda _: (np.full((31, 33, 3), 90, np.uint8), 0.04), 2)
    shapes = [pixels.shape for pixels, _ in read_animation(tmp_path / "a.mp4", PIXELS)]
    assert shapes == [(32, 34, 3)] * 2


def still_noise(i: int) -> tuple[Array, float]:
    """A still photograph with many colours, under the noise of a camera."""
    photo, rng = 255 * load(picture_path("chelsea"), size=64), np.random.default_rng(i)
    return np.uint8(np.clip(np.rint(photo + rng.normal(0, 0.5, photo.shape)), 0, 255)), 0.1


def test_what_is_still_in_a_gif_does_not_flicker(tmp_path: Path) -> None:
    """With a palette for each frame the change is three times that of the frames."""
    write_animation(tmp_path / "a.gif", still_noise, 4)
    found = [pixels.astype(int) for pixels, _ in read_animation(tmp_path / "a.gif", PIXELS)]
    changes = [np.abs(found[i] - found[i - 1]).mean() for i in range(1, 4)]
    given = [np.abs(still_noise(i)[0].astype(int) - still_noise(i - 1)[0]).mean() for i in range(1, 4)]
    assert max(changes) < 0.2 < min(given)
    assert max(np.abs(found[i] - still_noise(i)[0]).mean() for i in range(4)) < 4


def test_what_is_still_in_a_webp_does_not_change(tmp_path: Path) -> None:
    """While something moves in a corner; key frames, one in five, would change all the rest."""

    def frame(i: int) -> tuple[Array, float]:
        pixels = still_noise(0)[0].copy()
        pixels[:16, i : i + 8] = 200
        return pixels, 0.1

    write_animation(tmp_path / "a.webp", frame, 12)
    found = [pixels[32:].astype(int) for pixels, _ in read_animation(tmp_path / "a.webp", PIXELS)]
    assert len(found) == 12
    assert max(np.abs(found[i] - found[i - 1]).mean() for i in range(1, 12)) < 0.1


def test_a_slow_change_arrives_in_a_gif(tmp_path: Path) -> None:
    """One level a frame is not taken for noise for ever, though each step is as small."""
    write_animation(tmp_path / "a.gif", lambda i: (np.full((8, 8, 3), 100 + i, np.uint8), 0.1), 20)
    levels = [int(pixels[0, 0, 0]) for pixels, _ in read_animation(tmp_path / "a.gif", PIXELS)]
    assert np.abs(np.array(levels) - (100 + np.arange(20))).max() <= 6  # 2, and what Pillow rounds to


@pytest.mark.parametrize("suffix", sorted(ANIMATIONS))
@pytest.mark.parametrize(("rate", "count"), [(30, 6), (60, 13), (24, 24), (100, 9)])
def test_an_animation_lasts_as_long_as_its_frames(tmp_path: Path, suffix: str, rate: int, count: int) -> None:
    """Whatever unit the format counts in; a GIF leaves out frames, since browsers show those under 20 ms for 100."""
    write_animation(tmp_path / f"a{suffix}", lambda i: moving(i, 1 / rate), count)
    found = list(read_animation(tmp_path / f"a{suffix}", PIXELS))
    assert sum(seconds for _, seconds in found) == pytest.approx(count / rate, abs=0.011)
    assert len(found) == count or (suffix == ".gif" and rate > 50)
    assert np.abs(found[-1][0].astype(int) - moving(count - 1)[0]).mean() < 4
    if suffix == ".gif":
        assert min(seconds for _, seconds in found) >= 0.02


@pytest.mark.parametrize("suffix", sorted(ANIMATIONS))
def test_the_last_picture_is_shown_as_long_as_it_should(tmp_path: Path, suffix: str) -> None:
    write_animation(tmp_path / f"a{suffix}", lambda i: moving(i, LAST if i == 6 else SECONDS), 7)
    found = [seconds for _, seconds in read_animation(tmp_path / f"a{suffix}", PIXELS)]
    assert found == pytest.approx([SECONDS] * 6 + [LAST], abs=1e-3)


def test_a_gif_s_frame_of_no_time_lasts_as_in_browsers(tmp_path: Path) -> None:
    from PIL import Image

    pictures = [Image.fromarray(moving(i)[0]) for i in range(2)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=0)
    assert [seconds for _, seconds in read_animation(tmp_path / "a.gif", PIXELS)] == [0.1, 0.1]


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)])
def test_a_video_on_its_side_is_turned_upright(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    """As phones write it: the pixels as the sensor has them, and a matrix in the header of the track."""
    path = tmp_path / "a.mp4"
    bright = np.zeros((32, 64, 3), np.uint8)
    bright[:16, :32] = 255  # the corner at the top left
    write_animation(path, lambda _: (bright, 0.1), 2)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # a header of version 0: its matrix is nine numbers, of 16.16 bits
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    for pixels, _ in read_animation(path, PIXELS):
        assert np.abs(pixels.astype(int) - np.rot90(bright, turns)).mean() < 4


def test_a_damaged_gif_is_one_line(tmp_path: Path) -> None:
    """Whatever byte is wrong: decoders raise a dozen kinds of errors."""
    write_animation(tmp_path / "a.gif", moving, 3)
    content, rng, told = (tmp_path / "a.gif").read_bytes(), np.random.default_rng(0), []
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(6, len(content), 8):
            damaged[place] = rng.integers(256)
        (tmp_path / "b.gif").write_bytes(bytes(damaged))
        try:
            assert all(pixels.shape[2] == 3 for pixels, _ in read_animation(tmp_path / "b.gif", PIXELS))
        except ImageError as error:
            told.append(str(error))
    assert len(told) > 20
    assert all("b.gif" in words and "\n" not in words for words in told)
    last = content.rindex(b"\x21\xf9\x04")  # where Pillow looks beyond the end of a block, then of the file
    for damaged in (content[: last + 2] + b"\x01" + content[last + 3 :], content[: last + 18]):
        (tmp_path / "b.gif").write_bytes(damaged)
        with pytest.raises(ImageError, match=r"b\.gif is damaged"):
            list(read_animation(tmp_path / "b.gif", PIXELS))
    (tmp_path / "c.gif").write_bytes(content[:6] + b"\xff\xff\xff\xff" + content[10:])
    with pytest.raises(ImageError, match=r"c\.gif has 4,294,836,225 pixels, over the limit of 1,000,000 pixels"):
        list(read_animation(tmp_path / "c.gif", PIXELS))


def test_what_is_no_animation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"suffix must be one of \.gif, \.webp, \.mp4; got \.avi"):
        write_animation(tmp_path / "a.avi", moving, 1)
    for name in ("a.mp4", "a.gif"):
        with pytest.raises(ImageError, match="does not exist"):
            list(read_animation(tmp_path / name, PIXELS))
        (tmp_path / name).write_text("no animation")
        with pytest.raises(ImageError, match=r"a\.mp4 is no video or damaged|a\.gif is not a picture of a known kind"):
            list(read_animation(tmp_path / name, PIXELS))
    write_animation(tmp_path / "b.gif", moving, 2)
    with pytest.raises(ImageError, match="over the limit of 1,000 pixels; raise it with --max-pixels"):
        list(read_animation(tmp_path / "b.gif", 1000))
    old = types.SimpleNamespace(VideoFrame=object)
    monkeypatch.setitem(sys.modules, "av", old)
    with pytest.raises(ArgumentError, match=r"to write a video, PyAV 14\.2 is needed: pip install -U"):
        write_animation(tmp_path / "c.mp4", moving, 1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ArgumentError, match=r"to write a video, install PyAV: pip install 'nstcore\[film\]'"):
        write_animation(tmp_path / "c.mp4", moving, 1)
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


def test_a_film_is_not_written_over_what_the_run_reads(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path
) -> None:
    save(tmp_path / "x.webp", painting)
    before = (tmp_path / "x.webp").read_bytes()
    given: list[dict[str, Any]] = [
        {"styles": tmp_path / "x.webp"},
        {"styles": [painting], "regions": [tmp_path / "x.webp"]},
        {"styles": [painting], "style_masks": [str(tmp_path / "x.webp")]},
        {"styles": painting, "start": tmp_path / "x.webp"},
    ]
    for pictures in given:
        with pytest.raises(OutputError, match=r"x\.webp is the input .*x\.webp; choose another name"):
            transfer(photo, net=net, film=tmp_path / "x.webp", **pictures, **OPTIONS)
    assert (tmp_path / "x.webp").read_bytes() == before
    folder = FrameFolder(tmp_path / "run-frames")
    folder.start()
    folder.write(4, painting)
    with pytest.raises(OutputError, match=r"run-frames is the folder of the input .*000004\.png"):
        transfer(photo, folder.file(4), net=net, film=tmp_path / "run.gif", **OPTIONS)
    assert folder.numbers() == [4]


def test_frames_of_another_run_are_refused_and_kept(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.row.step == 7:
            raise KeyboardInterrupt

    def again(film: str, **changed: Any) -> None:
        transfer(photo, painting, film=tmp_path / film, **{"net": net, "film_every": 2, **OPTIONS, **changed})

    saved, folder = tmp_path / "run.npz", FrameFolder(tmp_path / "run-frames")
    again("run.gif", checkpoint=saved, callback=stop)
    kept = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(OutputError, match=r"run-frames has the frames of the film run\.gif; move it away"):
        again("run.mp4")
    with pytest.raises(OutputError, match=r"another run of the film run\.gif, made with steps 6, got 8; move it away"):
        again("run.gif", steps=8)
    with pytest.raises(OutputError, match=r"another run of the film run\.gif, made with film_every 2, got 3"):
        again("run.gif", film_every=3, resume=saved)
    with pytest.raises(OutputError, match=r"another run of the film run\.gif, made with another photograph"):
        transfer(photo * 0.9, painting, film=tmp_path / "run.gif", net=net, film_every=2, **OPTIONS)
    with pytest.raises(OutputError, match=r"run-frames has the frames of the film run\.gif; move it away"):
        transfer_clip([photo], painting, tmp_path / "run.webp", net=net, **OPTIONS)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == kept
    again("run.gif")
    assert not folder.path.exists()


def test_a_film_that_stops_before_its_first_step_leaves_nothing(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_objective", fails)
        with pytest.raises(MemoryError):
            transfer(photo, painting, net=net, film=tmp_path / "run.gif", checkpoint=tmp_path / "run.npz", **OPTIONS)
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(FrameFolder, "write", fails)
        with pytest.raises(MemoryError):
            transfer(photo, painting, net=net, film=tmp_path / "run.gif", **OPTIONS)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError):
        transfer(photo, painting, net=net, film=tmp_path / "run.gif", callback=lambda _: 1 / 0, **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_film_that_is_interrupted_can_go_on(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path
) -> None:
    """Also where it is not saved again: the checkpoint that it goes on from is still there."""

    def stop(at: int) -> Callable[[Progress], None]:
        def after_step(progress: Progress) -> None:
            if progress.row.step == at:
                raise KeyboardInterrupt

        return after_step

    options: dict[str, Any] = {"net": net, "film_every": 2, **OPTIONS}
    film, saved = tmp_path / "run.gif", tmp_path / "run.npz"
    transfer(photo, painting, film=film, checkpoint=saved, callback=stop(5), **options)
    transfer(photo, painting, film=film, resume=saved, callback=stop(9), **options)
    transfer(photo, painting, film=film, resume=saved, **options)
    transfer(photo, painting, film=tmp_path / "whole.gif", **options)
    assert film.read_bytes() == (tmp_path / "whole.gif").read_bytes()


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
