"""Animations: GIF and WebP by Pillow, MP4 by PyAV, written and read one frame at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, ImageError, OutputError
from nstcore.files import PathLike, atomic_write
from nstcore.style.settings import VIDEOS

Array = NDArray[Any]
Timed = tuple[Array, float]  # uint8 (h, w, 3), and for how many seconds it is shown

ANIMATIONS = {".gif": 65_535, ".webp": 16_383, ".mp4": 8192}  # suffix -> longest side
SHORTEST = 0.02  # seconds of a frame of a GIF: browsers show shorter ones for a tenth of a second
CLOCK = 90_000  # ticks a second of an MP4


def check_animation(path: PathLike) -> str:
    """The suffix of an animation that can be written here; `OutputError` for another one, or without PyAV."""
    suffix = Path(path).suffix.lower()
    if suffix not in ANIMATIONS:
        known = ", ".join(ANIMATIONS)
        raise OutputError(f"[film] {path}: the suffix must be one of {known}; got {suffix or 'none'}")
    if suffix == ".mp4":
        _av("write")
    return suffix


def write_animation(path: PathLike, frames: Iterable[Timed], count: int) -> None:
    """Write `count` frames of one size as GIF, WebP or MP4 by the path's suffix, whole or not at all.

    frames: uint8 (h, w, 3) and seconds, taken one at a time: none is kept. An MP4 has even sides: an odd one gets one
    more line.
    Raises `OutputError` as `check_animation` does, for frames too large for the format, or when the place refuses.
    """
    suffix = check_animation(path)

    def checked() -> Iterator[Timed]:
        for pixels, seconds in frames:
            if max(pixels.shape[:2]) > ANIMATIONS[suffix]:
                size = f"{pixels.shape[1]}x{pixels.shape[0]}"
                raise OutputError(f"[film] {suffix} holds at most {ANIMATIONS[suffix]} pixels a side, got {size}")
            yield np.ascontiguousarray(pixels), seconds

    writers: dict[str, Callable[[BinaryIO, Iterator[Timed], int], None]] = {
        ".gif": _write_gif, ".webp": _write_webp, ".mp4": _write_mp4,
    }  # fmt: skip
    atomic_write(path, lambda stream: writers[suffix](stream, checked(), count))


def _write_gif(stream: BinaryIO, frames: Iterator[Timed], _: int) -> None:
    """Each frame with a palette of its own. Pillow's own writer would keep all of them until the end."""
    from PIL import GifImagePlugin, Image

    for i, (pixels, seconds) in enumerate(frames):
        frame = Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)
        if i == 0:
            width, height = (side.to_bytes(2, "little") for side in frame.size)
            stream.write(b"GIF89a" + width + height + b"\x00\x00\x00")
            stream.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # again and again
        shown = max(SHORTEST, seconds)
        for block in GifImagePlugin.getdata(frame, duration=round(100 * shown) * 10, include_color_table=True):
            stream.write(block)
    stream.write(b"\x3b")


def _write_webp(stream: BinaryIO, frames: Iterator[Timed], count: int) -> None:
    """Through a picture whose frames are made when Pillow turns to them, or it would keep all of them."""
    from PIL import Image

    durations: list[int] = []  # each is read after its frame

    class Frames(Image.Image):
        n_frames = count

        def seek(self, frame: int) -> None:
            if frame == len(durations):
                pixels, seconds = next(frames)
                picture = Image.fromarray(pixels)
                self.im, self._mode, self._size = picture.im, picture.mode, picture.size
                durations.append(max(1, round(1000 * seconds)))

        def tell(self) -> int:
            return max(0, len(durations) - 1)

    animation = Frames()
    animation.seek(0)
    animation.save(stream, format="WEBP", save_all=True, duration=durations, loop=0, quality=90, method=4)


def _write_mp4(stream: BinaryIO, frames: Iterator[Timed], _: int) -> None:
    av = _av("write")
    with av.open(stream, "w", format="mp4") as container:
        video: Any = None
        now = 0.0
        for pixels, seconds in frames:
            height, width = pixels.shape[:2]
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if video is None:
                video = container.add_stream("libx264", rate=Fraction(1 / seconds).limit_denominator(1001))
                video.height, video.width = pixels.shape[:2]
                video.pix_fmt, video.options = "yuv420p", {"crf": "16"}
                video.codec_context.time_base = Fraction(1, CLOCK)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(now * CLOCK), Fraction(1, CLOCK)
            now += seconds
            container.mux(video.encode(frame))
        if video is not None:
            container.mux(video.encode())


def read_animation(path: PathLike, max_pixels: int) -> Iterator[Timed]:
    """The frames of a video (by PyAV) or of an animation (by Pillow), one at a time: uint8 (h, w, 3), and seconds.

    Raises `ImageError` for what is none, is damaged or too large, `ArgumentError` without PyAV.
    """
    if Path(path).suffix.lower() in VIDEOS:
        return _read_video(Path(path), max_pixels)
    return _read_pillow(Path(path), max_pixels)


def _read_video(path: Path, max_pixels: int) -> Iterator[Timed]:
    av = _av("read")
    if not path.is_file():
        raise ImageError(f"[clip] {path} does not exist")
    with _told(path), av.open(str(path)) as container:
        if not container.streams.video:
            raise ImageError(f"[clip] {path} has no pictures")
        video = container.streams.video[0]
        _check(path, video.height, video.width, max_pixels)
        usual = float(1 / video.average_rate) if video.average_rate else 0.04
        before: Any = None
        for frame in container.decode(video):
            if before is not None:
                lasts = frame.time - before.time if None not in (frame.time, before.time) else usual
                yield before.to_ndarray(format="rgb24"), lasts if lasts > 0 else usual
            before = frame
        if before is not None:
            yield before.to_ndarray(format="rgb24"), usual


def _read_pillow(path: Path, max_pixels: int) -> Iterator[Timed]:
    from PIL import Image

    if not path.is_file():
        raise ImageError(f"[clip] {path} does not exist")
    with _told(path), Image.open(path) as picture:
        _check(path, picture.height, picture.width, max_pixels)
        for i in range(getattr(picture, "n_frames", 1)):
            picture.seek(i)
            shown = picture.convert("RGBA")
            white = Image.new("RGBA", shown.size, "white")
            pixels = np.asarray(Image.alpha_composite(white, shown).convert("RGB"))
            yield pixels, max(SHORTEST, float(picture.info.get("duration", 40) or 40) / 1000)


def _check(path: Path, height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise ImageError(f"[clip] {path} is {width}x{height} pixels, over the limit of {max_pixels:,}")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What decoders raise, as one error."""
    try:
        yield
    except (ImageError, MemoryError, GeneratorExit):
        raise
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"[clip] {path} is no animation or damaged: {reason}") from error


def _av(what: str) -> Any:
    try:
        import av
    except ImportError:
        raise ArgumentError(f"[film] to {what} a video, install PyAV: pip install 'nstcore[film]'") from None
    return av
