"""The frames of a clip, still parts of each painted from the one before, so that they do not flicker."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, CheckpointError, ImageError, OutputError
from nstcore.files import PathLike
from nstcore.images import load, to_bytes
from nstcore.models.vgg import VGG
from nstcore.ops._op import whole
from nstcore.style import checkpoint
from nstcore.style.animation import ANIMATIONS, check_animation, read_animation, write_animation
from nstcore.style.film import folder_of
from nstcore.style.frames import FrameFolder, Owner, files_among, flat
from nstcore.style.result import Progress, Result
from nstcore.style.scene import Scene, check_sides, digest, narrowest, read_scene
from nstcore.style.settings import FRAME_STEPS, SMALLEST, STILL_WEIGHT, Settings, check_weight
from nstcore.style.still import Still, still_parts
from nstcore.style.transfer import as_list, network_of, paint, portrait_of, settings_of

Array = NDArray[Any]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}  # of frames in a folder
SECONDS = 0.04  # of a frame that does not say how long it lasts


@dataclass
class ClipResult:
    """frames: how many are done. output: the animation or folder, None when it is not whole.

    folder: where the frames are that are done; None once they are in an animation, or where there are none.
    stopped: "interrupted", or None. with_faces: in how many of the frames painted by this call a face was kept.
    """

    frames: int
    output: Path | None
    folder: Path | None
    stopped: str | None = None
    seconds: list[float] = field(default_factory=list)
    with_faces: int = 0


def transfer_clip(
    clip: Any,
    styles: Any,
    output: PathLike,
    *,
    net: VGG | None = None,
    callback: Callable[[int, Progress], None] | None = None,
    regions: Sequence[Any] | None = None,
    style_masks: Sequence[Any] | None = None,
    frame_steps: int = FRAME_STEPS,
    still_weight: float = STILL_WEIGHT,
    resume: bool = False,
    max_pixels: int = 100_000_000,
    **options: Any,
) -> ClipResult:
    """Paint every frame of a clip in the style of `styles`.

    clip: an animation (.gif, .webp), a video (.mp4 and others; needs PyAV), a folder of frames in the order of their
    names (frame2 before frame10), or pictures as `transfer` takes them, one after another.
    output: .gif, .webp, .mp4, or a folder for frames.
    The first frame is painted as `transfer` does it, with these options. Each later one takes `frame_steps` at the
    final size. Where the photograph has not changed, it starts from the painted frame before and is held to it, by
    still_weight times the squared difference; elsewhere it starts from the photograph.
    callback: called after each step with the frame's number, from 0, and a `Progress`; Ctrl-C keeps the frames done.
    They are in `output`, or beside an animation in a folder (out.gif: out-frames) until it is whole. resume: go on
    there, with the same clip and options; the same pictures as without the interruption.
    With `keep_face` the faces of each frame are kept; one without a face is painted all the same.

    No more than two frames are in memory at a time. Raises what `transfer` raises; `OutputError` where the output is
    one of the inputs, or frames of another run are in the way; `CheckpointError` where a frame that is done was painted
    from another one.
    """
    settings = settings_of(options)
    many = as_list(styles)
    settings.blend_shares(len(many))
    steps = whole("style", "frame_steps", frame_steps)
    check_weight("still_weight", still_weight)
    if steps < 1:
        raise ArgumentError(f"[style] expects frame_steps as a whole number from 1, got {steps}")
    target = _Target(output, files_among(clip, many, regions, style_masks))
    network = network_of(net, settings)
    painter = _Painter(network, settings, many, (regions, style_masks), steps, float(still_weight), max_pixels)
    work = _Work(painter, target, resume, callback)
    try:
        for i, (frame, seconds) in enumerate(frames_of(clip, max_pixels)):
            if not work.frame(i, frame, seconds):
                return target.interrupted(work)
        if not work.seconds:
            raise ImageError(f"[clip] {clip} has no frames")
        return target.finish(work)
    except KeyboardInterrupt:
        return target.interrupted(work)
    except Exception as error:
        target.folder.discard()
        if not work.seconds or not isinstance(error, (ImageError, OutputError)):
            raise
        where, done = target.folder.path, len(work.seconds)
        what = "frame is" if done == 1 else "frames are"
        more = f"{done} {what} done, in {where}: --resume {where} (in Python: resume=True) goes on after them"
        raise type(error)(f"{error}; {more}") from error


class _Target:
    """Where the frames go, and what becomes of them. inputs: files and folders that are read."""

    def __init__(self, output: PathLike, inputs: list[Path]) -> None:
        self.path = Path(output)
        self.animated = is_animation(self.path)
        owner = Owner("clip", self.path.name if self.animated else "")
        self.folder = FrameFolder(frames_folder(self.path), owner)
        self.folder.refuse_inputs(inputs)
        if self.animated:
            within = (path for folder in inputs if os.path.isdir(folder) for path in folder.iterdir())
            check_animation(self.path, [*(path for path in inputs if os.path.isfile(path)), *within])
        elif self.path.suffix:
            raise OutputError(
                f"[clip] {self.path}: expects {', '.join(ANIMATIONS)}, or a folder for frames; got {self.path.suffix}"
            )

    def begin(self, made_with: dict[str, Any], resume: bool) -> None:
        """Check what is there, once the first frame says what the run is made with."""
        if resume:
            self.folder.check(made_with)
            return
        if self.folder.has_own:
            path = self.folder.path
            raise OutputError(
                f"[clip] {path} has frames of an earlier run: go on with --resume {path} (in Python: resume=True), "
                "or move them away"
            )
        self.folder.start(made_with)

    def interrupted(self, work: _Work) -> ClipResult:
        """What is done stays; where that is nothing, nothing does."""
        done = len(self.folder.numbers()) if self.folder.has_own else 0
        self.folder.discard()
        return ClipResult(done, None, self.folder.path if done else None, "interrupted", work.seconds, work.with_faces)

    def finish(self, work: _Work) -> ClipResult:
        seconds = work.seconds
        more = [number for number in self.folder.numbers() if number > len(seconds)]
        if more:
            raise CheckpointError(
                f"[resume] {self.folder.path} has frame {more[-1]}, of a longer clip; this one ends at {len(seconds)}"
            )
        if not self.animated:
            return ClipResult(len(seconds), self.path, self.path, None, seconds, work.with_faces)
        write_animation(self.path, lambda i: (to_bytes(self.folder.read(i + 1)), seconds[i]), len(seconds))
        self.folder.remove()
        return ClipResult(len(seconds), self.path, None, None, seconds, work.with_faces)


@dataclass
class _Painter:
    """Paints one frame, from the one before."""

    network: VGG
    settings: Settings
    styles: list[Any]
    masks: tuple[Sequence[Any] | None, Sequence[Any] | None]
    steps: int
    still_weight: float
    max_pixels: int
    scene: Scene | None = None  # of the first frame; later ones keep its paintings, in its colours
    portrait: Callable[[], Array] | None = None  # gives the frame that was read last, for its faces

    def read(self, frame: Any, number: int) -> Array:
        """The photograph, in the size of the run; `ImageError` when its shape is not the first one's."""
        self.portrait = portrait_of(frame, self.max_pixels)
        if self.scene is None:
            self.scene = read_scene(frame, self.styles, self.settings, None, *self.masks, max_pixels=self.max_pixels)
            check_sides(self.network, self.settings, self.scene)
            return self.scene.photo
        photo = load(frame, size=self.settings.size, max_pixels=self.max_pixels, min_side=SMALLEST)
        if photo.shape != self.scene.photo.shape:
            (h, w, _), (height, width, _) = photo.shape, self.scene.photo.shape
            named = f" ({frame})" if isinstance(frame, (str, Path)) else ""
            raise ImageError(
                f"[clip] expects frames of one shape: {width}x{height} at first, then {w}x{h} in frame {number}{named}"
            )
        return photo

    def made_with(self) -> dict[str, Any]:
        """What a folder of frames has to be made with, to go on."""
        assert self.scene is not None
        facts = flat(checkpoint.identity(self.network, self.scene, self.settings))
        return {**facts, "frame_steps": self.steps, "still_weight": self.still_weight}

    def paint(
        self, photo: Array, before: tuple[Array, Array] | None, callback: Callable[[Progress], None] | None
    ) -> Result:
        """before: the photograph and the painted picture before; None for the first one."""
        assert self.scene is not None
        if before is None:
            settings, scene = self.settings, self.scene
            given = settings.levels(narrowest(scene, settings), check_sides(self.network, settings, scene))
            nothing = Still(np.zeros(photo.shape[:2], np.float32), 0.0, photo)  # of a clip: it need not have a face
            return paint(self.network, scene, settings, given, callback, after=nothing, portrait=self.portrait)
        settings = replace(self.settings, steps=self.steps, start_size=max(self.settings.size, SMALLEST))
        still = still_parts(before[0], photo)
        start = photo + still[:, :, None] * (before[1] - photo)
        scene = replace(self.scene, photo=photo, start=start)
        after = Still(still, self.still_weight, self.scene.photo)
        return paint(self.network, scene, settings, settings.levels(), callback, after=after, portrait=self.portrait)


class _Work:
    """The clip on its way: the photograph before, and the frames that are done."""

    def __init__(
        self, painter: _Painter, target: _Target, resume: bool, callback: Callable[[int, Progress], None] | None
    ) -> None:
        self.painter, self.target, self.resume, self.callback = painter, target, resume, callback
        self.seconds: list[float] = []
        self.with_faces = 0
        self._photo: Array | None = None
        self._made_of = ""  # a fingerprint of all photographs so far: each picture comes of those before as well

    def frame(self, index: int, source: Any, seconds: float) -> bool:
        """Paint frame `index`, unless it is done; False when it was interrupted."""
        number, folder = index + 1, self.target.folder
        photo = self.painter.read(source, number)
        self._made_of = hashlib.sha256(f"{self._made_of} {digest(photo)}".encode()).hexdigest()
        if index == 0:
            self.target.begin(self.painter.made_with(), self.resume)
        if folder.file(number).exists():
            self._check(number)
        elif not self._paint(photo, index):
            return False
        self._photo = photo
        self.seconds.append(seconds)
        return True

    def _paint(self, photo: Array, index: int) -> bool:
        folder, callback = self.target.folder, self.callback
        before = None if self._photo is None else (self._photo, folder.read(index))
        result = self.painter.paint(
            photo, before, None if callback is None else lambda progress: callback(index, progress)
        )
        if result.stopped == "interrupted":
            return False
        folder.write(index + 1, result.image, self._made_of)
        self.with_faces += bool(result.faces)
        return True

    def _check(self, number: int) -> None:
        """Raise `CheckpointError` when a picture that is there does not come of the clip so far."""
        if self.target.folder.made_of(number) != self._made_of:
            raise CheckpointError(
                f"[resume] frame {number} of the clip is not what {self.target.folder.file(number)} was painted from; "
                "go on with the same clip, or move the pictures from this one on away"
            )


def is_animation(output: Path) -> bool:
    """Whether frames are put together there at the end."""
    return output.suffix.lower() in ANIMATIONS


def frames_folder(output: Path) -> Path:
    """Where the painted frames are until then, or for good."""
    return folder_of(output) if is_animation(output) else output


def frames_of(clip: Any, max_pixels: int) -> Iterator[tuple[Any, float]]:
    """The frames of a clip, one at a time, as `nstcore.images.load` takes them, and how long each is shown."""
    if isinstance(clip, (str, Path)):
        if not os.path.isdir(clip):
            yield from read_animation(clip, max_pixels)
            return
        found = (p for p in Path(clip).iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        paths = sorted(found, key=lambda path: in_order(path.name))
        if not paths:
            raise ImageError(f"[clip] {clip} is a folder without pictures")
        yield from ((path, SECONDS) for path in paths)
        return
    if isinstance(clip, np.ndarray) and clip.ndim != 4:
        raise ArgumentError(f"[clip] expects frames (n, h, w, 3), got {clip.shape}")
    if not isinstance(clip, Iterable):
        raise ArgumentError(f"[clip] expects a file, a folder, or several pictures, got {type(clip).__name__}")
    yield from ((frame, SECONDS) for frame in clip)


def in_order(name: str) -> tuple[list[Any], str]:
    """What names are sorted by so that numbers in them count: frame2 before frame10.

    >>> sorted(["frame10.png", "frame2.png", "frame1.png"], key=in_order)
    ['frame1.png', 'frame2.png', 'frame10.png']
    """
    parts = re.split("([0-9]+)", name)  # text and numbers by turns, text first
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
