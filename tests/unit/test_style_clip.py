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
from nstcore.style.clip import frames_of
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


@pytest.mark.parametrize(
    ("name", "stop"),
    [("out.gif", (0, 3)), ("out.gif", (1, 2)), ("out.gif", (2, 4)), ("out.webp", (2, 1)), ("out.mp4", (1, 1))],
)
def test_what_is_done_stays_and_is_gone_on_with(
    net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path, name: str, stop: tuple[int, int]
) -> None:
    def interrupt(frame: int, progress: Progress) -> None:
        if (frame, progress.row.step) == stop:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"net": net, **OPTIONS}
    out = tmp_path / name
    whole = out.with_stem("whole")
    transfer_clip(photos, painting, whole, **options)
    part = transfer_clip(photos, painting, out, callback=interrupt, **options)
    assert (part.stopped, part.frames, part.output) == ("interrupted", stop[0], None)
    assert not out.exists()
    if stop[0]:
        with pytest.raises(OutputError, match="out-frames has frames of an earlier run"):
            transfer_clip(photos, painting, out, **options)
        with pytest.raises(CheckpointError, match="was made with frame_steps 4, got 5"):
            transfer_clip(photos, painting, out, resume=True, **{**options, "frame_steps": 5})
    else:
        assert (part.folder, list(tmp_path.iterdir())) == (None, [whole])
    seen: list[int] = []
    rest = transfer_clip(
        photos, painting, out, resume=stop[0] > 0, callback=lambda frame, _: seen.append(frame), **options
    )
    assert (rest.stopped, rest.frames, rest.output) == (None, COUNT, out)
    assert set(seen) == set(range(stop[0], COUNT))
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == [out, whole]


def interrupted(photos: list[Array], painting: Any, out: Path, after: int = 2, **options: Any) -> None:
    """Paint the first `after` frames of a clip."""

    def stop(frame: int, _: Progress) -> None:
        if frame == after:
            raise KeyboardInterrupt

    assert transfer_clip(photos, painting, out, callback=stop, **options).frames == after


def test_a_folder_of_frames_goes_on_byte_for_byte(
    net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"net": net, **OPTIONS}
    transfer_clip(photos, painting, tmp_path / "whole", **options)
    interrupted(photos, painting, tmp_path / "out", **options)
    transfer_clip(photos, painting, tmp_path / "out", resume=True, **options)
    found = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("out", "whole")]
    assert found[0] == found[1]


def test_only_the_clip_that_was_begun_goes_on(
    net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path
) -> None:
    """Not one whose later frames are others, nor a shorter one, nor one with fewer masks."""
    out, mask = tmp_path / "out.gif", np.ones((8, 8))
    options: dict[str, Any] = {"net": net, "regions": [mask], **OPTIONS}
    interrupted(photos, painting, out, **options)
    folder = FrameFolder(tmp_path / "out-frames")
    kept = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(CheckpointError, match=r"frame 2 of the clip is not what .*000002\.png was painted from"):
        transfer_clip([photos[0], photos[2], photos[2]], painting, out, resume=True, **options)
    with pytest.raises(CheckpointError, match="has frame 2, of a longer clip; this one ends at 1"):
        transfer_clip(photos[:1], painting, out, resume=True, **options)
    with pytest.raises(CheckpointError, match="was made with another region 1"):
        transfer_clip(photos, painting, out, resume=True, **{**options, "regions": None})
    with pytest.raises(CheckpointError, match=r"was made with another photograph$"):
        transfer_clip(photos[1:], painting, out, resume=True, **options)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == kept
    folder.file(1).unlink()  # and is painted again
    transfer_clip(photos, painting, tmp_path / "whole.gif", **options)
    transfer_clip(photos, painting, out, resume=True, **options)
    assert out.read_bytes() == (tmp_path / "whole.gif").read_bytes()


def test_frames_of_another_output_are_refused_and_kept(
    net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"net": net, **OPTIONS}
    interrupted(photos, painting, tmp_path / "out.gif", **options)
    folder = FrameFolder(tmp_path / "out-frames")
    kept = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    words = r"out-frames has the frames of the clip out\.gif"
    with pytest.raises(OutputError, match=words):
        transfer(photos[0], painting, net=net, film=tmp_path / "out.gif", size=48, start_size=48, steps=2)
    for other in ("out.webp", "out-frames"):
        with pytest.raises(OutputError, match=words):
            transfer_clip(photos, painting, tmp_path / other, **options)
        with pytest.raises(CheckpointError, match=words + ", not of (the clip out.webp|a clip)$"):
            transfer_clip(photos, painting, tmp_path / other, resume=True, **options)
    with pytest.raises(OutputError, match=r"out-frames is the folder of the input .*000001\.png"):
        transfer_clip(photos, folder.file(1), tmp_path / "out.gif", resume=True, **options)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == kept


def test_a_clip_is_not_written_over_what_it_reads(
    net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"net": net, **OPTIONS}
    (tmp_path / "clip").mkdir()
    save(tmp_path / "clip" / "x.webp", painting)
    (tmp_path / "link.webp").symlink_to(tmp_path / "clip" / "x.webp")
    x, before = tmp_path / "clip" / "x.webp", (tmp_path / "clip" / "x.webp").read_bytes()
    given: list[dict[str, Any]] = [
        {"clip": photos, "styles": x},
        {"clip": photos, "styles": [painting], "regions": [str(x)]},
        {"clip": photos, "styles": [painting], "style_masks": [x]},
        {"clip": [photos[0], x], "styles": painting},
        {"clip": x, "styles": painting},
        {"clip": x.parent, "styles": painting},
    ]
    for pictures in given:
        for output in (x, tmp_path / "link.webp"):
            with pytest.raises(OutputError, match=r"is the input .*x\.webp; choose another name"):
                transfer_clip(output=output, **pictures, **options)
        with pytest.raises(OutputError, match=r"clip is the folder of the input .*clip"):
            transfer_clip(output=x.parent, **pictures, **options)
    assert x.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "link.webp"]


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path, photos: list[Array]) -> None:
    names = ["a2.png", "a10.png", "a010.png", "10.png", "9.png", "b1.png", "b1-2.png", "a.png"]
    for name in names:
        save(tmp_path / name, photos[0])
    found = [path.name for (path, _) in frames_of(tmp_path, 10**6)]
    assert found == ["9.png", "10.png", "a2.png", "a010.png", "a10.png", "a.png", "b1-2.png", "b1.png"]


def test_a_clip_that_is_damaged_later_says_how_to_go_on(
    net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"net": net, **OPTIONS}
    write_animation(tmp_path / "clip.gif", lambda i: (to_bytes(photos[i]), 0.1), COUNT)
    content = (tmp_path / "clip.gif").read_bytes()
    (tmp_path / "clip.gif").write_bytes(content[:-300])
    with pytest.raises(
        ImageError,
        match=r"clip\.gif is damaged or cut off: .*; 2 frames are done, in (.*out-frames): --resume \1 .* goes on",
    ):
        transfer_clip(tmp_path / "clip.gif", painting, tmp_path / "out.gif", **options)
    (tmp_path / "clip.gif").write_bytes(content)
    seen: list[int] = []
    transfer_clip(
        tmp_path / "clip.gif",
        painting,
        tmp_path / "out.gif",
        resume=True,
        callback=lambda i, _: seen.append(i),
        **options,
    )
    assert set(seen) == {2}
    (tmp_path / "mixed").mkdir()
    save(tmp_path / "mixed" / "a1.png", photos[0])
    save(tmp_path / "mixed" / "a2.png", photos[0].swapaxes(0, 1))
    with pytest.raises(ImageError, match=r"then 32x48 in frame 2 \(.*a2\.png\); 1 frames? (is|are) done"):
        transfer_clip(tmp_path / "mixed", painting, tmp_path / "mixed.gif", **options)


def test_a_refused_clip_leaves_nothing(net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path) -> None:
    for output in ("out.gif", "out"):
        with pytest.raises(ArgumentError, match="memory"):
            transfer_clip(photos, painting, tmp_path / output, net=net, memory=1, **OPTIONS)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(ArgumentError, match="memory"):
        transfer_clip(photos, painting, tmp_path / "out", net=net, memory=1, **OPTIONS)
    assert [list(path.iterdir()) for path in tmp_path.iterdir()] == [[]]


def test_faces_are_kept_from_the_frame_on_that_has_one(net: models.VGG, painting: Array, tmp_path: Path) -> None:
    """The first one need not have one."""
    portrait = load(picture_path("astronaut"), size=192)[:128, 32:160]
    rows: dict[int, set[str]] = {}

    def seen(frame: int, progress: Progress) -> None:
        rows.setdefault(frame, set()).update(progress.row.extra)

    options: dict[str, Any] = {"net": net, **OPTIONS, "size": 128, "start_size": 128, "steps": 2, "frame_steps": 1}
    empty = np.full_like(portrait, 0.4)
    found = transfer_clip([empty, portrait], painting, tmp_path / "out", keep_face=True, callback=seen, **options)
    assert found.with_faces == 1
    assert rows == {0: set(), 1: {"faces", "still"}}
    del options["frame_steps"]
    alone = transfer(empty, painting, **options).image
    np.testing.assert_allclose(painted(tmp_path / "out", 1)[0], alone, atol=0.5 / 255 + 1e-6)


def test_frames_are_read_one_at_a_time(net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path) -> None:
    """A frame is asked for when the one before it has been painted."""

    def frames() -> Iterator[Array]:
        for i, photo in enumerate(photos):
            assert FrameFolder(tmp_path / "out").numbers() == list(range(1, i + 1))
            yield photo

    found = transfer_clip(frames(), painting, tmp_path / "out", net=net, **{**OPTIONS, "frame_steps": 1, "steps": 1})
    assert found.frames == COUNT


def test_the_time_of_a_clip_stays(net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path) -> None:
    write_animation(tmp_path / "a.gif", lambda i: (to_bytes(photos[i]), (0.1, 0.3, 0.2)[i]), COUNT)
    transfer_clip(
        tmp_path / "a.gif", painting, tmp_path / "b.gif", net=net, **{**OPTIONS, "frame_steps": 1, "steps": 1}
    )
    assert [s for _, s in read_animation(tmp_path / "b.gif", 10**6)] == pytest.approx([0.1, 0.3, 0.2])


def test_what_means_nothing(net: models.VGG, photos: list[Array], painting: Array, tmp_path: Path) -> None:
    options: dict[str, Any] = {"net": net, **OPTIONS}
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=r"expects \.gif, \.webp, \.mp4, or a folder for frames; got \.png"):
        transfer_clip(photos, painting, tmp_path / "a.png", **options)
    with pytest.raises(ImageError, match="frames of one shape: 48x32 at first, then 48x48 in frame 2"):
        transfer_clip([photos[0], np.full((48, 48, 3), 0.5)], painting, out, **{**options, "steps": 1})
    with pytest.raises(ArgumentError, match="frame_steps as a whole number from 1, got 0"):
        transfer_clip(photos, painting, tmp_path / "b", **{**options, "frame_steps": 0})
    with pytest.raises(ArgumentError, match="still_weight as a number from 0"):
        transfer_clip(photos, painting, tmp_path / "b", still_weight=-1, **options)
    with pytest.raises(ImageError, match="no frames"):
        transfer_clip([], painting, tmp_path / "b", **options)
    with pytest.raises(ArgumentError, match="a file, a folder, or several pictures, got int"):
        transfer_clip(3, painting, tmp_path / "b", **options)
    with pytest.raises(OutputError, match=r"cannot make the folder .*c: No such file"):
        transfer_clip(photos, painting, tmp_path / "nowhere" / "c", **options)
    with pytest.raises(CheckpointError, match="is no folder of frames"):
        transfer_clip(photos, painting, tmp_path / "c", resume=True, **options)
    (tmp_path / "mine").mkdir()
    save(tmp_path / "mine" / "a.png", photos[0])
    with pytest.raises(OutputError, match=r"mine is the folder of the input .*mine; choose another name"):
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

    def interrupted(self: FrameFolder, *given: Any) -> None:
        nonlocal count
        written(self, *given)
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
    assert main([*command, "--keep-face"]) == 0
    assert "a face was found and kept in 0 frames" in capsys.readouterr().out
    assert main([*command, "--plot", "a.png"]) == 2
    assert "--plot is not for --clip" in capsys.readouterr().err
    assert main(["style", "out.mp4", "painting.png"]) == 2
    assert "out.mp4 is a video: --clip paints its frames" in capsys.readouterr().err
