"""The frames of a clip: still parts do not flicker, and what is done stays."""

from __future__ import annotations

import os
import signal
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
from nstcore.errors import ArgumentError, CheckpointError, ImageError, OutputError
from nstcore.images import load, save, to_bytes
from nstcore.style import Progress, transfer, transfer_clip
from nstcore.style.animation import read_animation, write_animation
from nstcore.style.frames import FrameFolder
from nstcore.style.still import StillTerm, flicker, still_parts

Array = NDArray[Any]
OPTIONS: dict[str, Any] = {
    "size": 48, "start_size": 48, "steps": 6, "frame_steps": 4, "content_layers": ["conv2_2"],
    "style_layers": ["conv1_1", "conv3_1"],
}  # fmt: skip
COUNT = 3


@pytest.fixture(scope="module")
def net() -> models.VGG:
    return models.vgg16()


@pytest.fixture(scope="module")
def photos() -> list[Array]:
    """A bright square goes over a photograph, under the noise of a camera."""
    photo, rng = load(picture_path("rocket"), size=48), np.random.default_rng(0)
    frames = []
    for i in range(COUNT):
        frame = photo + rng.normal(0, 1 / 255, photo.shape)
        frame[8:16, 6 * i : 6 * i + 8] = (0.9, 0.5, 0.1)
        frames.append(np.clip(frame, 0, 1).astype(np.float32))
    return frames


@pytest.fixture(scope="module")
def painting() -> Array:
    return paint("swirl", 40, 48)


def painted(folder: Path, count: int = COUNT) -> list[Array]:
    return [FrameFolder(folder).read(i + 1) for i in range(count)]


def test_still_parts_are_those_without_a_change(photos: list[Array]) -> None:
    still = still_parts(photos[0], photos[1])
    assert still.shape == photos[0].shape[:2]
    assert np.all(still[8:16, :14] == 0)
    assert np.all(still[24:] == 1)
    assert np.all((still >= 0) & (still <= 1))


def test_the_gradient_of_the_temporal_term() -> None:
    rng = np.random.default_rng(0)
    before, still, pixels = rng.random((5, 7, 3)), rng.random((5, 7)), rng.random((1, 5, 7, 3))
    term, grad = StillTerm(before, still, 3.0), np.zeros_like(pixels)
    assert term.add(pixels, grad) == pytest.approx(np.sum(still[:, :, None] * (pixels[0] - before) ** 2) / 105)
    step = 1e-6 * rng.normal(size=pixels.shape)
    slope = 3.0 * (term.add(pixels + step, None) - term.add(pixels - step, None)) / 2
    assert slope == pytest.approx(float(np.sum(grad * step)), rel=1e-6)


def test_still_parts_flicker_less(net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path) -> None:
    """With the layers of the defaults, for whose costs the default weight is meant."""
    options: dict[str, Any] = {"net": net, "size": 48, "start_size": 48, "steps": 20, "frame_steps": 15}
    alone = [transfer(p, painting, **{k: v for k, v in options.items() if k != "frame_steps"}).image for p in photos]
    transfer_clip(photos, painting, tmp_path / "without", still_weight=0, **options)
    transfer_clip(photos, painting, tmp_path / "with", **options)
    changes = [flicker(f, photos) for f in (alone, painted(tmp_path / "without"), painted(tmp_path / "with"))]
    assert changes[2] < 0.5 * changes[1]
    assert changes[2] < 0.5 * changes[0]
    np.testing.assert_allclose(painted(tmp_path / "with")[0], alone[0], atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("colors", ["luminance", "match"])
def test_in_the_colours_of_the_clip(
    net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path, colors: str
) -> None:
    transfer_clip(photos[:2], painting, tmp_path / "out", net=net, colors=colors, **OPTIONS)
    frames = painted(tmp_path / "out", 2)
    assert flicker(frames, photos[:2]) < 0.03
    assert np.abs(frames[0] - photos[0]).mean() > 0.01


@pytest.mark.parametrize("stop", [(0, 3), (1, 2), (2, 4)])
def test_what_is_done_stays_and_is_gone_on_with(
    net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path, stop: tuple[int, int]
) -> None:
    def interrupt(frame: int, progress: Progress) -> None:
        if (frame, progress.row.step) == stop:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"net": net, **OPTIONS}
    transfer_clip(photos, painting, tmp_path / "whole.gif", **options)
    out = tmp_path / "out.gif"
    part = transfer_clip(photos, painting, out, callback=interrupt, **options)
    assert (part.stopped, part.frames, part.output) == ("interrupted", stop[0], None)
    assert not out.exists()
    if stop[0]:
        with pytest.raises(OutputError, match="out-frames has frames of an earlier run"):
            transfer_clip(photos, painting, out, **options)
        with pytest.raises(CheckpointError, match="was made with frame_steps 4, got 5"):
            transfer_clip(photos, painting, out, resume=True, **{**options, "frame_steps": 5})
    seen: list[int] = []
    rest = transfer_clip(photos, painting, out, resume=True, callback=lambda frame, _: seen.append(frame), **options)
    assert (rest.stopped, rest.frames, rest.output) == (None, COUNT, out)
    assert set(seen) == set(range(stop[0], COUNT))
    assert out.read_bytes() == (tmp_path / "whole.gif").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gif", "whole.gif"]


def test_frames_are_read_one_at_a_time(net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path) -> None:
    """A frame is asked for when the one before it has been painted."""

    def frames() -> Iterator[Array]:
        for i, photo in enumerate(photos):
            assert FrameFolder(tmp_path / "out").numbers() == list(range(1, i + 1))
            yield photo

    found = transfer_clip(frames(), painting, tmp_path / "out", net=net, **{**OPTIONS, "frame_steps": 1, "steps": 1})
    assert found.frames == COUNT


def test_the_time_of_a_clip_stays(net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path) -> None:
    write_animation(tmp_path / "a.gif", ((to_bytes(p), s) for p, s in zip(photos, (0.1, 0.3, 0.2), strict=True)), COUNT)
    transfer_clip(
        tmp_path / "a.gif", painting, tmp_path / "b.gif", net=net, **{**OPTIONS, "frame_steps": 1, "steps": 1}
    )
    assert [s for _, s in read_animation(tmp_path / "b.gif", 10**6)] == pytest.approx([0.1, 0.3, 0.2])


def test_what_means_nothing(net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path) -> None:
    options: dict[str, Any] = {"net": net, **OPTIONS}
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=r"expects \.gif, \.webp, \.mp4, or a folder for frames; got \.png"):
        transfer_clip(photos, painting, tmp_path / "a.png", **options)
    with pytest.raises(ImageError, match="frames of one shape: 48x32 at first, then 48x48"):
        transfer_clip([photos[0], np.full((48, 48, 3), 0.5)], painting, out, **{**options, "steps": 1})
    with pytest.raises(ArgumentError, match="frame_steps as a whole number from 1, got 0"):
        transfer_clip(photos, painting, tmp_path / "b", **{**options, "frame_steps": 0})
    with pytest.raises(ArgumentError, match="still_weight as a number from 0"):
        transfer_clip(photos, painting, tmp_path / "b", still_weight=-1, **options)
    with pytest.raises(ImageError, match="no frames"):
        transfer_clip([], painting, tmp_path / "b", **options)
    with pytest.raises(ArgumentError, match="a file, a folder, or several pictures, got int"):
        transfer_clip(3, painting, tmp_path / "b", **options)
    with pytest.raises(CheckpointError, match="is no folder of frames"):
        transfer_clip(photos, painting, tmp_path / "c", resume=True, **options)
    (tmp_path / "mine").mkdir()
    save(tmp_path / "mine" / "a.png", photos[0])
    with pytest.raises(OutputError, match="another folder for the painted frames"):
        transfer_clip(tmp_path / "mine", painting, tmp_path / "mine", **options)
    with pytest.raises(OutputError, match="is no folder of frames"):
        transfer_clip(photos, painting, tmp_path / "mine", **options)


def test_the_command_paints_a_clip_and_goes_on(
    photos: list[Array], painting: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    for i, photo in enumerate(photos):
        save(tmp_path / "clip" / f"{i}.png", photo)
    save(tmp_path / "painting.png", painting)
    quick = ["--size", "32", "--steps", "2", "--frame-steps", "2", "--style-layers", "conv1_1"]
    command = ["style", "clip", "painting.png", "--clip", *quick, "--content-layers", "conv2_2", "-o", "out.mp4"]
    written, count = FrameFolder.write, 0

    def interrupted(self: FrameFolder, number: int, picture: Array) -> None:
        nonlocal count
        written(self, number, picture)
        count += 1
        if count == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(FrameFolder, "write", interrupted)
        assert main(command) == 130
    assert "give the same command with --resume out-frames" in capsys.readouterr().out
    assert main([*command, "--resume", "elsewhere"]) == 2
    assert "the frames of out.mp4 are in out-frames, got elsewhere" in capsys.readouterr().err
    assert main([*command, "--resume", "out-frames"]) == 0
    assert "out.mp4: 3 frames" in capsys.readouterr().out
    assert len(list(read_animation("out.mp4", 10**6))) == COUNT
    assert main([*command, "--plot", "a.png"]) == 2
    assert "--plot is not for --clip" in capsys.readouterr().err
    assert main(["style", "out.mp4", "painting.png"]) == 2
    assert "out.mp4 is a video: --clip paints its frames" in capsys.readouterr().err
