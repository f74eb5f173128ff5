"""The frames of a clip, still parts of each painted from the one before, so that they do not flicker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, ImageError, OutputError
from nstcore.files import PathLike, check_output
from nstcore.images import load, to_bytes
from nstcore.models.vgg import VGG, vgg16
from nstcore.ops._op import whole
from nstcore.style import checkpoint
from nstcore.style.animation import ANIMATIONS, check_animation, read_animation, write_animation
from nstcore.style.film import folder_of
from nstcore.style.frames import FrameFolder
from nstcore.style.result import Progress, Result
from nstcore.style.scene import Scene, check_sides, narrowest, read_scene
from nstcore.style.settings import FRAME_STEPS, SMALLEST, STILL_WEIGHT, Settings, check_weight
from nstcore.style.still import Still, still_parts
from nstcore.style.transfer import as_list, paint, settings_of

Array = NDArray[Any]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}  # of frames in a folder
SECONDS = 0.04  # of a frame that does not say how long it lasts


@dataclass
class ClipResult:
    """frames: how many are done. output: the animation or folder, None when it is not whole.

    folder: where the frames are that are done, None once they are in an animation. stopped: "interrupted", or None.
    """

    frames: int
    output: Path | None
    folder: Path | None
    stopped: str | None = None
    seconds: list[float] = field(default_factory=list)


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
    names, or pictures as `transfer` takes them, one after another. output: .gif, .webp, .mp4, or a folder for frames.
    The first frame is painted as `transfer` does it, with these options. Each later one takes `frame_steps` at the
    final size. Where the photograph has not changed, it starts from the painted frame before and is held to it, by
    still_weight times the squared difference; elsewhere it starts from the photograph.
    callback: called after each step with the frame's number, from 0, and a `Progress`; Ctrl-C keeps the frames done.
    They are in `output`, or beside an animation in a folder (out.gif: out-frames) until it is whole. resume: go on
    there; the same pictures as without the interruption.
    A frame without a face is painted although `keep_face` is set.

    No more than two frames are in memory at a time. Raises what `transfer` raises; `OutputError` where frames of an
    earlier run are in the way.
    """
    settings = settings_of(options)
    many = as_list(styles)
    settings.blend_shares(len(many))
    steps = whole("style", "frame_steps", frame_steps)
    check_weight("still_weight", still_weight)
    if steps < 1:
        raise ArgumentError(f"[style] expects frame_steps as a whole number from 1, got {steps}")
    target = _Target(output, clip)
    network = net or vgg16(pooling=settings.pooling)
    network.check_layers([*settings.content_shares, *settings.style_shares])
    painter = _Painter(network, settings, many, (regions, style_masks), steps, float(still_weight), max_pixels)
    work = _Work(painter, target, resume, callback)
    try:
        for i, (frame, seconds) in enumerate(frames_of(clip, max_pixels)):
            if not work.frame(i, frame, seconds):
                return ClipResult(i, None, target.folder.path, "interrupted", work.seconds)
    except KeyboardInterrupt:
        return ClipResult(len(target.folder.numbers()), None, target.folder.path, "interrupted", work.seconds)
    if not work.seconds:
        raise ImageError(f"[clip] {clip} has no frames")
    return target.finish(work.seconds)


class _Target:
    """Where the frames go, and what becomes of them."""

    def __init__(self, output: PathLike, clip: Any) -> None:
        self.path = Path(output)
        self.animated, self.folder = is_animation(self.path), FrameFolder(frames_folder(self.path))
        if self.animated:
            check_animation(self.path)
            check_output(self.path, inputs=[clip] if isinstance(clip, (str, Path)) and Path(clip).is_file() else [])
        elif self.path.suffix:
            raise OutputError(
                f"[clip] {self.path}: expects {', '.join(ANIMATIONS)}, or a folder for frames; got {self.path.suffix}"
            )
        elif isinstance(clip, (str, Path)) and self.path.resolve() == Path(clip).resolve():
            raise OutputError(f"[clip] expects another folder for the painted frames than {clip}")

    def begin(self, made_with: dict[str, Any], resume: bool) -> None:
        """Check what is there, once the first frame says what the run is made with."""
        if resume:
            self.folder.check(made_with)
            return
        if self.folder.is_ours and self.folder.numbers():
            raise OutputError(
                f"[clip] {self.folder.path} has frames of an earlier run: go on with resume, or move them away"
            )
        self.folder.start(made_with)

    def finish(self, seconds: list[float]) -> ClipResult:
        if not self.animated:
            return ClipResult(len(seconds), self.path, self.path, None, seconds)
        timed = ((to_bytes(self.folder.read(i + 1)), shown) for i, shown in enumerate(seconds))
        write_animation(self.path, timed, len(seconds))
        self.folder.remove()
        return ClipResult(len(seconds), self.path, None, None, seconds)


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

    def read(self, frame: Any) -> Array:
        """The photograph, in the size of the run; `ImageError` when its shape is not the first one's."""
        if self.scene is None:
            self.scene = read_scene(frame, self.styles, self.settings, None, *self.masks, max_pixels=self.max_pixels)
            check_sides(self.network, self.settings, self.scene)
            return self.scene.photo
        photo = load(frame, size=self.settings.size, max_pixels=self.max_pixels, min_side=SMALLEST)
        if photo.shape != self.scene.photo.shape:
            (h, w, _), (height, width, _) = photo.shape, self.scene.photo.shape
            raise ImageError(f"[clip] expects frames of one shape: {width}x{height} at first, then {w}x{h}")
        return photo

    def made_with(self) -> dict[str, Any]:
        """What a folder of frames has to be made with, to go on."""
        assert self.scene is not None
        facts = checkpoint.identity(self.network, self.scene, self.settings)
        flat = {"version": facts["version"], **facts["settings"], "network": facts["network"], **facts["pictures"]}
        return {**flat, "frame_steps": self.steps, "still_weight": self.still_weight}

    def paint(
        self, photo: Array, before: tuple[Array, Array] | None, callback: Callable[[Progress], None] | None
    ) -> Result:
        """before: the photograph and the painted picture before; None for the first one."""
        assert self.scene is not None
        if before is None:
            settings, scene = self.settings, self.scene
            given = settings.levels(narrowest(scene, settings), check_sides(self.network, settings, scene))
            return paint(self.network, scene, settings, given, callback)
        settings = replace(self.settings, steps=self.steps, start_size=max(self.settings.size, SMALLEST))
        still = still_parts(before[0], photo)
        start = photo + still[:, :, None] * (before[1] - photo)
        scene = replace(self.scene, photo=photo, start=start)
        after = Still(still, self.still_weight, self.scene.photo)
        return paint(self.network, scene, settings, settings.levels(), callback, after=after)


class _Work:
    """The clip on its way: the photograph before, and the frames that are done."""

    def __init__(
        self, painter: _Painter, target: _Target, resume: bool, callback: Callable[[int, Progress], None] | None
    ) -> None:
        self.painter, self.target, self.resume, self.callback = painter, target, resume, callback
        self.seconds: list[float] = []
        self._photo: Array | None = None

    def frame(self, index: int, source: Any, seconds: float) -> bool:
        """Paint frame `index`, unless it is done; False when it was interrupted."""
        photo, folder = self.painter.read(source), self.target.folder
        if index == 0:
            self.target.begin(self.painter.made_with(), self.resume)
        if not folder.file(index + 1).exists():
            before = None if self._photo is None else (self._photo, folder.read(index))
            callback = self.callback
            result = self.painter.paint(
                photo, before, None if callback is None else lambda progress: callback(index, progress)
            )
            if result.stopped == "interrupted":
                return False
            folder.write(index + 1, result.image)
        self._photo = photo
        self.seconds.append(seconds)
        return True


def is_animation(output: Path) -> bool:
    """Whether frames are put together there at the end."""
    return output.suffix.lower() in ANIMATIONS


def frames_folder(output: Path) -> Path:
    """Where the painted frames are until then, or for good."""
    return folder_of(output) if is_animation(output) else output


def frames_of(clip: Any, max_pixels: int) -> Iterator[tuple[Any, float]]:
    """The frames of a clip, one at a time, as `nstcore.images.load` takes them, and how long each is shown."""
    if isinstance(clip, (str, Path)):
        if not Path(clip).is_dir():
            yield from read_animation(clip, max_pixels)
            return
        paths = sorted(p for p in Path(clip).iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if not paths:
            raise ImageError(f"[clip] {clip} is a folder without pictures")
        yield from ((path, SECONDS) for path in paths)
        return
    if isinstance(clip, np.ndarray) and clip.ndim != 4:
        raise ArgumentError(f"[clip] expects frames (n, h, w, 3), got {clip.shape}")
    if not isinstance(clip, Iterable):
        raise ArgumentError(f"[clip] expects a file, a folder, or several pictures, got {type(clip).__name__}")
    yield from ((frame, SECONDS) for frame in clip)
