"""Oil paint on canvas: layers of bristle strokes along a direction field, lit from the side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_PROFILES, _BRISTLES = 48, 40


@dataclass(frozen=True)
class Scene:
    """What is to be painted: for each pixel a stroke direction and a colour.

    angle is `(h, w)` in radians (0 along x, pi/2 down), colour `(h, w, 3)` in [0, 1].
    """

    angle: Floats
    colour: Floats


@dataclass(frozen=True)
class Layer:
    """One pass over the canvas with one brush; lengths are in 512ths of the picture's shorter side."""

    width: float
    length: float
    cover: float  # painted area over canvas area
    jitter: float  # standard deviation of a stroke's colour
    wobble: float = 0.1  # standard deviation of its angle in radians


def noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3) -> Floats:
    """Smooth random hills `(height, width)`, about in [-1, 1], the largest `cell` pixels wide."""
    from PIL import Image

    total, weight = np.zeros((height, width), np.float32), 1.0
    for _ in range(octaves):
        rows, columns = int(height / cell) + 3, int(width / cell) + 3
        grid = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
        box = (0.5, 0.5, 0.5 + width / cell, 0.5 + height / cell)
        hills = np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC, box=box))
        total += np.float32(weight) * hills
        cell, weight = max(cell / 2, 1.0), weight / 2
    return total


def paint_scene(scene: Scene, layers: tuple[Layer, ...], rng: np.random.Generator) -> Floats:
    """Paint the scene from the coarsest layer to the finest and light the relief.

    Returns:
        float32 `(h, w, 3)` in [0, 1].
    """
    height, width = scene.angle.shape
    unit = min(height, width) / 512
    picture = scene.colour * np.float32(0.55)
    relief = np.zeros((height, width), np.float32)
    profiles = _bristle_profiles(rng)
    for layer in layers:
        _paint_layer(picture, relief, scene, layer, unit, profiles, rng)
    return _lit(picture, relief + _weave(height, width, rng))


def _bristle_profiles(rng: np.random.Generator) -> Floats:
    """Cross-sections of brushes `(profiles, bristles)`: paint height from -1 (a gap) to 1 (a ridge)."""
    raw = rng.normal(size=(_PROFILES, _BRISTLES + 4))
    smooth = (raw[:, :-2] + 2 * raw[:, 1:-1] + raw[:, 2:]) / 4
    return np.clip(1.3 * smooth[:, 1:-1], -1, 1).astype(np.float32)


def _paint_layer(
    picture: Floats,
    relief: Floats,
    scene: Scene,
    layer: Layer,
    unit: float,
    profiles: Floats,
    rng: np.random.Generator,
) -> None:
    """One brush over the whole canvas, in a random order of places that cover it evenly."""
    height, width = scene.angle.shape
    long, wide = max(layer.length * unit, 3.0), max(layer.width * unit, 1.2)
    x, y = _scattered(rng, height, width, np.sqrt(long * wide / layer.cover))
    count = x.size
    rows, columns = y.astype(int), x.astype(int)
    angle = scene.angle[rows, columns] + rng.normal(0, layer.wobble, count)
    lengths, widths = long * rng.uniform(0.6, 1.3, count), wide * rng.uniform(0.7, 1.25, count)
    bend = _bend(scene.angle, x, y, angle, lengths)
    shade = rng.normal(0, layer.jitter, (count, 1)) + rng.normal(0, layer.jitter / 2, (count, 3))
    shade = np.clip(shade, -0.32, 0.4)  # no stroke falls out of the palette
    colour = np.clip(scene.colour[rows, columns] * (1 + shade) + shade / 4, 0, 1).astype(np.float32)
    brush = rng.integers(0, _PROFILES, count)
    for i in range(count):
        _stroke(
            picture,
            relief,
            x[i],
            y[i],
            angle[i],
            bend[i],
            lengths[i],
            widths[i],
            colour[i],
            profiles[brush[i]],
        )


def _scattered(
    rng: np.random.Generator, height: int, width: int, step: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places x, y: one at random in each cell of a grid, shuffled."""
    rows, columns = max(1, round(height / step)), max(1, round(width / step))
    y, x = np.divmod(rng.permutation(rows * columns), columns)
    y = (y + rng.random(y.size)) * height / rows
    x = (x + rng.random(x.size)) * width / columns
    return np.minimum(x, width - 1), np.minimum(y, height - 1)


def _bend(
    field: Floats,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    angle: NDArray[np.float64],
    lengths: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Curvature of the field along each stroke, in radians a pixel, held to a third of a turn a stroke."""
    reach = lengths / 4

    def ahead(sign: int) -> Floats:
        rows = np.clip(y + sign * reach * np.sin(angle), 0, field.shape[0] - 1).astype(int)
        columns = np.clip(x + sign * reach * np.cos(angle), 0, field.shape[1] - 1).astype(int)
        return np.asarray(field[rows, columns])

    # A direction is the same turned by pi: the difference is taken modulo pi.
    turn = (ahead(1) - ahead(-1) + np.pi / 2) % np.pi - np.pi / 2
    return np.asarray(np.clip(turn, -1.0, 1.0) / (2 * reach))


def _stroke(
    picture: Floats,
    relief: Floats,
    x: float,
    y: float,
    angle: float,
    bend: float,
    length: float,
    width: float,
    colour: Floats,
    profile: Floats,
) -> None:
    """Lay one stroke: an arc with ragged ends, whose bristles leave ridges, gaps and streaks of tone."""
    reach = int(length / 2 + width) + 1
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    bottom, right = min(int(y) + reach, relief.shape[0]), min(int(x) + reach, relief.shape[1])
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
    dx = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = dx * cosine + dy * sine
    across = dy * cosine - dx * sine - np.float32(bend / 2) * along * along
    place = across / np.float32(width) + np.float32(0.5)  # 0 to 1 over the brush
    bristle = profile[np.clip(place * _BRISTLES, 0, _BRISTLES - 1).astype(np.intp)]
    # Dry bristles stop earlier; the brush lands firmly and lifts off thinly.
    travelled = along / np.float32(length) + np.float32(0.5)
    ends = np.minimum(travelled * 9 + bristle, (1 - travelled) * 4 + bristle * np.float32(1.5))
    sides = (np.float32(0.5) - np.abs(place - np.float32(0.5))) * np.float32(width) + bristle * np.float32(0.7)
    opacity = np.clip(np.minimum(sides, ends), 0, 1) * np.float32(0.94)
    window = np.s_[top:bottom, left:right]
    tone = 1 + np.float32(0.13) * bristle - np.float32(0.12) * (travelled - np.float32(0.5))
    opacity_of_colour = opacity[:, :, None]
    picture[window] += opacity_of_colour * (tone[:, :, None] * colour - picture[window])
    ridge = np.float32(0.55) * bristle + np.clip(sides, 0, 2) * np.float32(0.4)
    relief[window] += opacity * (ridge * np.float32(min(width, 9.0) / 9) - np.float32(0.8) * relief[window])


def _weave(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Relief of the canvas: over-and-under threads of 3.6 pixels, slightly uneven."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    uneven = noise(rng, height, width, 24, 2)
    warp = np.sin((x + uneven) * np.float32(2 * np.pi / 3.6))
    weft = np.sin((y + uneven) * np.float32(2 * np.pi / 3.6))
    fibre = rng.standard_normal((height, width), np.float32)
    return np.asarray(np.float32(0.07) * (warp * weft + np.float32(0.5) * fibre))


def _lit(picture: Floats, relief: Floats) -> Floats:
    """Diffuse light from the upper left and a faint gloss on the ridges that face it."""
    slope_y, slope_x = np.gradient(relief)
    facing = np.clip(-0.75 * (slope_x + slope_y), -0.6, 0.9)[:, :, None].astype(np.float32)
    gloss = np.float32(0.16) * np.clip(facing, 0, None) ** 2
    lit: Floats = np.clip(picture * (1 + np.float32(0.42) * facing) + gloss, 0, 1).astype(np.float32)
    return lit
