"""The pictures of a run at one size: photograph, paintings, the picture to start from, and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, ImageError
from nstcore.images import load, resize, resize_to
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
    """

    photo: Array
    paintings: Sequence[Array]
    start: Array | None = None
    regions: Sequence[Array] = ()
    sources: Sequence[Array | None] = ()

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
    if regions is not None and len(regions) != len(paintings):
        raise ArgumentError(
            f"[style] expects one region a painting, got {len(regions)} for {len(paintings)} painting(s)"
        )
    if style_masks is not None and len(style_masks) != len(paintings):
        raise ArgumentError(
            f"[style] expects one style mask a painting, got {len(style_masks)} for {len(paintings)} painting(s)"
        )
    photo = load(content, size=settings.size, max_pixels=max_pixels, min_side=SMALLEST)
    longer = max(SMALLEST, round(settings.size * settings.style_scale))
    return Scene(
        photo,
        [load(painting, size=longer, max_pixels=max_pixels, min_side=SMALLEST) for painting in paintings],
        None if start is None else resize_to(load(start, max_pixels=max_pixels), photo.shape[0], photo.shape[1]),
        [_mask(f"region {i}", mask, max_pixels) for i, mask in enumerate(regions or (), 1)],
        [
            None if mask is None else _mask(f"style mask {i}", mask, max_pixels)
            for i, mask in enumerate(style_masks or (), 1)
        ],
    )


def _mask(name: str, source: Any, max_pixels: int) -> Array:
    """A mask as brightness (h, w) in [0, 1]; `ImageError` when nothing of it is white."""
    bright = np.clip(colors.luminance(load(source, max_pixels=max_pixels)), 0, 1)
    if not bright.max() > 0:
        raise ImageError(f"[style] {name} is black everywhere: its style would be nowhere")
    return bright


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
