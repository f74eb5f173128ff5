"""A small painter of style pictures: everything in them is computed, nothing is copied.

swirl    oil on canvas, a turning night sky in blue and yellow
autumn   oil on canvas, short thick dabs of red, orange and gold
mosaic   tesserae of coloured glass in dark grout
woodcut  carved lines in indigo and vermilion on warm paper
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nstcore.demo import _brush, _scenes
from nstcore.demo._brush import Floats, Layer
from nstcore.demo._mosaic import mosaic
from nstcore.demo._woodcut import woodcut
from nstcore.errors import ArgumentError

_SWIRL_LAYERS = (
    Layer(width=30, length=110, cover=2.2, jitter=0.1),
    Layer(width=15, length=62, cover=2.0, jitter=0.16),
    Layer(width=8, length=40, cover=1.7, jitter=0.2),
    Layer(width=5, length=26, cover=0.6, jitter=0.26),
)
_AUTUMN_LAYERS = (
    Layer(width=34, length=70, cover=2.2, jitter=0.08, wobble=0.3),
    Layer(width=19, length=34, cover=1.9, jitter=0.12, wobble=0.3),
    Layer(width=12, length=22, cover=1.7, jitter=0.14, wobble=0.25),
    Layer(width=7, length=14, cover=0.6, jitter=0.18, wobble=0.3),
)


def paint(name: str, height: int, width: int, seed: int = 0) -> Floats:
    """Paint a style picture; the same name, size and seed give the same picture.

    Args:
        name: one of `PAINTINGS`.
        height, width: in pixels, at least 16; strokes scale with the shorter one.
        seed: another seed places strokes, stars, stones and trees differently.

    Returns:
        float32 `(height, width, 3)`, RGB in [0, 1].

    Raises:
        ArgumentError: an unknown name (the message lists the known ones), size or seed.

    Example:
        >>> paint("swirl", 32, 48).shape
        (32, 48, 3)
    """
    if name not in _PAINTERS:
        raise ArgumentError(f"[paint] expects one of {', '.join(PAINTINGS)}, got {name!r}")
    for option, value, least in (("height", height, 16), ("width", width, 16), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise ArgumentError(f"[paint] {option} must be a whole number of at least {least}, got {value!r}")
    return _PAINTERS[name](height, width, np.random.default_rng(seed))


def _swirl(height: int, width: int, rng: np.random.Generator) -> Floats:
    return _brush.paint_scene(_scenes.night(height, width, rng), _SWIRL_LAYERS, rng)


def _autumn(height: int, width: int, rng: np.random.Generator) -> Floats:
    return _brush.paint_scene(_scenes.autumn(height, width, rng), _AUTUMN_LAYERS, rng)


_PAINTERS: dict[str, Callable[[int, int, np.random.Generator], Floats]] = {
    "swirl": _swirl,
    "autumn": _autumn,
    "mosaic": mosaic,
    "woodcut": woodcut,
}
PAINTINGS = tuple(_PAINTERS)
