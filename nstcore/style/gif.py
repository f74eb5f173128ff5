"""Writing a GIF: one palette for the whole animation, so that what is still does not flicker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Timed = tuple[Array, float]  # uint8 (h, w, 3), and for how many seconds it is shown

SHORTEST = 2  # hundredths of a second: browsers show a frame of fewer for a tenth of a second
LONGEST = 65_535  # hundredths that the format can say
SAMPLED_FRAMES, SAMPLED_PIXELS = 64, 1 << 18  # that the palette is made from
STEADY = 2  # levels of 255 that a pixel may change by without taking another colour of the palette


def write_gif(stream: BinaryIO, frame: Callable[[int], Timed], count: int) -> None:
    """Write frames 0 to count - 1, of one size; two are in memory at a time. `frame` is asked for some of them twice.

    Pillow's own writer would keep all of them, and give each a palette of its own.
    """
    from PIL import GifImagePlugin, Image

    palette = _palette(frame, count)
    colours = bytes(palette.getpalette() or ()).ljust(768, b"\0")
    colour_of = _Steady(palette)
    for i, (pixels, hundredths) in enumerate(_timed(frame, count)):
        if i == 0:
            width, height = (side.to_bytes(2, "little") for side in pixels.shape[1::-1])
            stream.write(b"GIF89a" + width + height + b"\xf7\x00\x00" + colours)
            stream.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # again and again
        picture = Image.fromarray(colour_of(pixels))
        for block in GifImagePlugin.getdata(picture, duration=10 * hundredths, include_color_table=False):
            stream.write(block)
    stream.write(b"\x3b")


def _timed(frame: Callable[[int], Timed], count: int) -> Iterator[tuple[Array, int]]:
    """Frames, and hundredths of a second such that the whole lasts as long as it should.

    One that would be shown too shortly is left out, and the next one is shown earlier; the last one stays.
    """
    now, told = 0.0, 0
    for i in range(count):
        pixels, seconds = frame(i)
        now += seconds
        hundredths = round(100 * now) - told
        if i == count - 1:
            hundredths = max(SHORTEST, hundredths)
        if hundredths >= SHORTEST:
            told += hundredths
            yield pixels, min(LONGEST, hundredths)


def _palette(frame: Callable[[int], Timed], count: int) -> Any:
    """A Pillow image with the 256 colours that pixels from all over the animation are nearest to."""
    from PIL import Image

    chosen = sorted({round(place) for place in np.linspace(0, count - 1, min(count, SAMPLED_FRAMES))})
    seen = []
    for i in chosen:
        pixels = frame(i)[0].reshape(-1, 3)
        seen.append(
            pixels[np.linspace(0, len(pixels) - 1, min(len(pixels), SAMPLED_PIXELS // len(chosen))).astype(int)]
        )
    sample = Image.fromarray(np.concatenate(seen)[None])
    return sample.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)


class _Steady:
    """The nearest colour of a palette for each pixel; a pixel that hardly changes keeps its colour.

    No dither: on painted pictures it was further from the picture, pixel by pixel and on average around each, and it
    would move with what it covers.
    """

    def __init__(self, palette: Any) -> None:
        self._palette = palette
        self._indices: Array | None = None
        self._pixels: Array  # which the indices were chosen for

    def __call__(self, pixels: Array) -> Array:
        """uint8 (h, w, 3) to uint8 (h, w)."""
        from PIL import Image

        indices = np.asarray(Image.fromarray(pixels).quantize(palette=self._palette, dither=Image.Dither.NONE))
        if self._indices is not None:
            changed = np.abs(pixels.astype(np.int16) - self._pixels).max(2) > STEADY
            indices = np.where(changed, indices, self._indices)
            pixels = np.where(changed[:, :, None], pixels, self._pixels)
        self._indices, self._pixels = indices, pixels
        return indices
