"""Animations: GIF and WebP by Pillow, MP4 by PyAV, written and read one frame at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nstcore import _decode
from nstcore.errors import ArgumentError, ImageError, NstError, OutputError
from nstcore.files import PathLike, atomic_write, check_output
from nstcore.style.gif import Timed, write_gif
from nstcore.style.settings import VIDEOS

Array = NDArray[Any]

ANIMATIONS = {".gif": 65_535, ".webp": 16_383, ".mp4": 8192}  # suffix -> longest side
USUAL = 0.04  # seconds of a frame that does not say how long it lasts
FASTEST, SLOWED = 0.02, 0.1  # seconds: a frame of a GIF that asks for fewer is shown by browsers for so many
CLOCK = 90_000  # ticks a second of an MP4


def check_animation(path: PathLike, inputs: Iterable[PathLike] = ()) -> Path:
    """The path of an animation that can be written here; `OutputError` for another one, or for one of the inputs.

    Raises `ArgumentError` without PyAV, where it is needed.
    """
    _suffix(path)
    return check_output(path, inputs=inputs)


def _suffix(path: PathLike) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in ANIMATIONS:
        known = ", ".join(ANIMATIONS)
        raise OutputError(f"[film] {path}: the suffix must be one of {known}; got {suffix or 'none'}")
    if suffix == ".mp4":
        _av("write")
    return suffix


def write_animation(path: PathLike, frame: Callable[[int], Timed], count: int) -> None:
    """Write frames 0 to `count` - 1, of one size, as GIF, WebP or MP4 by the path's suffix, whole or not at all.

    frame: gives uint8 (h, w, 3) and seconds. It is called in order, before that for some frames of a GIF, whose colours
    are chosen from them; none is kept. An MP4 has even sides: an odd one gets one more line.
    Raises `OutputError` for another suffix, for frames too large for the format, or when the place refuses.
    """
    suffix = _suffix(path)

    def checked(i: int) -> Timed:
        pixels, seconds = frame(i)
        if max(pixels.shape[:2]) > ANIMATIONS[suffix]:
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise OutputError(f"[film] {suffix} holds at most {ANIMATIONS[suffix]} pixels a side, got {size}")
        return np.ascontiguousarray(pixels), seconds

    writers = {".gif": write_gif, ".webp": _write_webp, ".mp4": _write_mp4}
    atomic_write(path, lambda stream: writers[suffix](stream, checked, count))


def _write_webp(stream: BinaryIO, frame: Callable[[int], Timed], count: int) -> None:
    """Through a picture whose frames are made when Pillow turns to them, or it would keep all of them.

    Without key frames, at which what is still would change, in a file that is not smaller.
    """
    from PIL import Image

    durations: list[int] = []  # each is read after its frame
    now, told = 0.0, 0

    class Frames(Image.Image):
        n_frames = count

        def seek(self, index: int) -> None:
            nonlocal now, told
            if index == len(durations):
                pixels, seconds = frame(index)
                picture = Image.fromarray(pixels)
                self.im, self._mode, self._size = picture.im, picture.mode, picture.size
                now += seconds
                durations.append(max(1, round(1000 * now) - told))
                told += durations[-1]

        def tell(self) -> int:
            return max(0, len(durations) - 1)

    animation = Frames()
    animation.seek(0)
    animation.save(stream, "WEBP", save_all=True, duration=durations, loop=0, quality=90, method=4, kmin=0, kmax=0)


def _write_mp4(stream: BinaryIO, frame: Callable[[int], Timed], count: int) -> None:
    av = _av("write")
    lasts: dict[int, int] = {}  # ticks, by when the picture is shown
    with av.open(stream, "w", format="mp4") as container:
        video: Any = None

        def put(picture: Any) -> None:
            """Say how long each picture lasts: the encoder does not, and the last one would be gone at once."""
            for packet in video.encode(picture):
                packet.duration = lasts.pop(packet.pts, 0)
                container.mux(packet)

        now = 0.0
        for i in range(count):
            pixels, seconds = frame(i)
            height, width = pixels.shape[:2]
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if video is None:
                video = container.add_stream("libx264", rate=Fraction(1 / seconds).limit_denominator(1001))
                video.height, video.width = pixels.shape[:2]
                video.pix_fmt, video.options = "yuv420p", {"crf": "16"}
                video.codec_context.time_base = Fraction(1, CLOCK)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = round(now * CLOCK), Fraction(1, CLOCK)
            now += seconds
            lasts[picture.pts] = round(now * CLOCK) - picture.pts
            put(picture)
        if video is not None:
            put(None)


def read_animation(path: PathLike, max_pixels: int) -> Iterator[Timed]:
    """The frames of a video (by PyAV) or of an animation (by Pillow), one at a time: uint8 (h, w, 3), and seconds.

    A video that says that it lies on its side is turned upright. A GIF's frame of under 20 ms lasts 100 ms, as in
    browsers.
    Raises `ImageError` for what is none, is damaged or too large, `ArgumentError` without PyAV.
    """
    if Path(path).suffix.lower() in VIDEOS:
        return _read_video(Path(path), max_pixels)
    return _read_pillow(Path(path), max_pixels)


def _read_video(path: Path, max_pixels: int) -> Iterator[Timed]:
    av = _av("read")
    if not os.path.isfile(path):
        raise ImageError(f"[clip] {path} does not exist")
    with _told(path), av.open(str(path)) as container:
        if not container.streams.video:
            raise ImageError(f"[clip] {path} has no pictures")
        video = container.streams.video[0]
        _check(path, video.height, video.width, max_pixels)
        usual = float(1 / video.average_rate) if video.average_rate else USUAL
        before: Any = None
        for frame in container.decode(video):
            if before is not None:
                yield _upright(before), _until(frame.time, before, usual)
            before = frame
        if before is not None:
            end = None if video.duration is None else float((video.start_time or 0) + video.duration) * video.time_base
            yield _upright(before), _until(end, before, usual)


def _until(time: float | None, frame: Any, usual: float) -> float:
    """For how many seconds a frame of a video is shown when the next one comes at `time`."""
    lasts = usual if time is None or frame.time is None else float(time - frame.time)
    return lasts if lasts > 0 else usual


def _upright(frame: Any) -> Array:
    """The pixels of a frame of a video, turned as it says, by the nearest quarters."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def _read_pillow(path: Path, max_pixels: int) -> Iterator[Timed]:
    from PIL import Image

    with (
        _decode.open_path(str(path)) as stream,
        _decode.opened(stream, str(path), max_pixels) as picture,
        _decode.damage_as_image_error(str(path), max_pixels),
    ):
        _check(path, picture.height, picture.width, max_pixels)
        for i in range(getattr(picture, "n_frames", 1)):
            picture.seek(i)
            shown = picture.convert("RGBA")
            white = Image.new("RGBA", shown.size, "white")
            pixels = np.asarray(Image.alpha_composite(white, shown).convert("RGB"))
            seconds = float(picture.info.get("duration") or 0) / 1000
            if picture.format == "GIF" and seconds < FASTEST:
                seconds = SLOWED
            yield pixels, seconds or USUAL


def _check(path: Path, height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise _decode.over_limit(f"{path} is {width}x{height} pixels", max_pixels)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """The dozen kinds of errors that decoders raise, as one."""
    try:
        yield
    except (NstError, MemoryError):
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"[clip] {path} is no video or damaged: {reason}") from error


def _av(what: str) -> Any:
    try:
        import av
    except ImportError:
        raise ArgumentError(f"[film] to {what} a video, install PyAV: pip install 'nstcore[film]'") from None
    if not hasattr(av.VideoFrame, "rotation"):
        raise ArgumentError(f"[film] to {what} a video, PyAV 14.2 is needed: pip install -U 'nstcore[film]'")
    return av
