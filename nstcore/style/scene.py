"""The pictures of a run at one size: photograph, paintings, the picture to start from, and masks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import _decode
from nstcore.backend.memory import give_back
from nstcore.errors import ArgumentError, ImageError
from nstcore.images import load, load_over_black, resize, resize_to
from nstcore.models.vgg import VGG
from nstcore.style import colors
from nstcore.style.settings import SMALLEST, Settings

Array = NDArray[Any]
SEEN = 1 / 255  # the least of a mask that is not black


@dataclass(frozen=True)
class Scene:
    """Everything that is looked at, at one size.

    photo: float32 (h, w, 3) in [0, 1]. paintings: likewise, of any size. start: (h, w, 3), or None.
    regions: one mask (h, w) in [0, 1] a painting, where its style goes; empty for one style everywhere.
    sources: one mask a painting, what of it counts, or None for all of it.
    decoded: pixels of the largest picture that was read for it.
    """

    photo: Array
    paintings: Sequence[Array]
    start: Array | None = None
    regions: Sequence[Array] = ()
    sources: Sequence[Array | None] = ()
    decoded: int = 0

    def at(self, size: int, style_scale: float) -> Scene:
        """The same, `size` pixels long, the paintings `style_scale` times as long."""
        if max(self.photo.shape[:2]) == size:
            photo = self.photo
        else:
            photo = resize(self.photo, size)
        height, width = photo.shape[:2]
        paintings = [resized(painting, max(SMALLEST, round(size * style_scale))) for painting in self.paintings]
        return Scene(
            photo,
            paintings,
            None if self.start is None else resize_to(self.start, height, width),
            [resize_to(mask, height, width) for mask in self.regions],
            [
                None if mask is None else resize_to(mask, painting.shape[0], painting.shape[1])
                for mask, painting in zip(self.sources, paintings, strict=bool(self.sources))
            ],
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures and masks."""
        arrays = (self.photo, *self.paintings, self.start, *self.regions, *self.sources)
        return sum(a.nbytes for a in arrays if a is not None)

    @property
    def everywhere(self) -> bool:
        """Whether every part of the photograph takes a style."""
        return not len(self.regions) or bool((np.max(self.regions, axis=0) >= SEEN).all())

    def digests(self) -> dict[str, str]:
        """A fingerprint of each picture, by its part in the run."""
        named = {"photograph": self.photo, "start": self.start}
        named |= {f"painting {i}": a for i, a in enumerate(self.paintings, 1)}
        named |= {f"region {i}": a for i, a in enumerate(self.regions, 1)}
        named |= {f"style mask {i}": a for i, a in enumerate(self.sources, 1)}
        return {name: digest(a) for name, a in named.items() if a is not None}


def digest(a: Array) -> str:
    """SHA-256 of an array's shape, type and bytes."""
    found = hashlib.sha256(f"{a.shape} {a.dtype.str}".encode())
    found.update(np.ascontiguousarray(a).data)
    return found.hexdigest()


def resized(picture: Array, size: int) -> Array:
    """The picture with a longer side of `size`."""
    return picture if max(picture.shape[:2]) == size else resize(picture, size)


def read_scene(
    content: Any,
    paintings: Sequence[Any],
    settings: Settings,
    start: Any = None,
    regions: Sequence[Any] | None = None,
    style_masks: Sequence[Any] | None = None,
    max_pixels: int = 100_000_000,
) -> Scene:
    """Read every picture at the final size; `ImageError` and `ArgumentError` for what does not fit together."""
    regions, style_masks = _one_each("region", regions, paintings), _one_each("style mask", style_masks, paintings)
    give_back()  # what earlier work left, which decoding cannot use
    photo = load(content, size=settings.size, max_pixels=max_pixels, min_side=SMALLEST)
    longer = max(SMALLEST, round(settings.size * settings.style_scale))
    shown = [load(painting, size=longer, max_pixels=max_pixels, min_side=SMALLEST) for painting in paintings]
    masks = [_mask(f"region {i}", mask, max_pixels, photo.shape) for i, mask in enumerate(regions, 1)]
    sources = [
        None if mask is None else _mask(f"style mask {i}", mask, max_pixels, painting.shape)
        for i, (mask, painting) in enumerate(zip(style_masks, shown, strict=bool(style_masks)), 1)
    ]
    begin = None if start is None else resize_to(load(start, max_pixels=max_pixels), photo.shape[0], photo.shape[1])
    read = [content, *paintings, start, *regions, *style_masks]
    return Scene(photo, shown, begin, masks, sources, max(_pixels(source, max_pixels) for source in read))


def _one_each(name: str, masks: Any, paintings: Sequence[Any]) -> list[Any]:
    """Masks as a list, one a painting or none at all."""
    if masks is None:
        return []
    if isinstance(masks, (str, bytes, os.PathLike)) or not isinstance(masks, Iterable):
        raise ArgumentError(f"[style] expects a list of masks, one a painting, got {masks!r}")
    each = list(masks)
    if len(each) != len(paintings):
        raise ArgumentError(f"[style] expects one {name} a painting, got {len(each)} for {len(paintings)} painting(s)")
    return each


def _pixels(source: Any, max_pixels: int) -> int:
    """How many a file has that is decoded; 0 for what is in memory already."""
    if not isinstance(source, (str, os.PathLike)):
        return 0
    with _decode.open_path(os.fspath(source)) as stream, _decode.opened(stream, str(source), max_pixels) as picture:
        return int(picture.width) * int(picture.height)


def _mask(name: str, source: Any, max_pixels: int, shape: tuple[int, ...]) -> Array:
    """A mask as brightness (h, w) in [0, 1], 0 where it is transparent; `ImageError` when nothing of it is white."""
    if isinstance(source, np.ndarray) and source.dtype == bool:
        source = source.astype(np.float32)
    bright = np.clip(colors.luminance(load_over_black(source, max_pixels=max_pixels)), 0, 1)
    if not bright.max() > 0:
        raise ImageError(f"[style] {name} is black everywhere: its style would be nowhere")
    larger = bright.shape[0] > shape[0] or bright.shape[1] > shape[1]
    return resize_to(bright, shape[0], shape[1]) if larger else bright


def check_sides(network: VGG, settings: Settings, scene: Scene) -> int:
    """The pixels across that the layers need; `ImageError` when a picture has fewer at its final size.

    A long and thin one may, once its longer side is `size`.
    """
    least = network.least_side([*settings.content_shares, *settings.style_shares])
    for name, picture in (("photograph", scene.photo), *(("painting", painting) for painting in scene.paintings)):
        height, width, _ = picture.shape
        if min(height, width) < least:
            raise ImageError(
                f"[style] the {name} has {width}x{height} pixels at size {settings.size}; "
                f"the layers need {least}x{least}: choose a larger size"
            )
    return least


def narrowest(scene: Scene, settings: Settings) -> tuple[int, int]:
    """Shape of the picture with the shortest shorter side, in units of the photograph's longer one."""
    sides = [(min(scene.photo.shape[:2]), max(scene.photo.shape[:2]))]
    for painting in scene.paintings:
        shorter, longer = sorted(painting.shape[:2])
        sides.append((round(1000 * settings.style_scale * shorter / longer), 1000))
    return min(sides, key=lambda side: side[0] / side[1])
