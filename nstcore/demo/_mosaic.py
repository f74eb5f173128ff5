"""A mosaic: tesserae set along rings and waves, each a cell of an oriented Voronoi diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nstcore.demo._brush import Floats, Scene, noise
from nstcore.demo._scenes import blend, grid, palette, ramp

_TESSERA = 15.0  # side of a stone in 512ths of the picture's shorter side
_NEIGHBOURS = 9
_CHUNK = 100_000  # places looked up at a time, which bounds the memory


@dataclass(frozen=True)
class _Cells:
    """For each place its stone, the distances of that and the next stone, and where on the stone it is."""

    owner: NDArray[np.intp]
    own: Floats
    second: Floats
    u: Floats
    v: Floats


def mosaic(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Paint rosettes of coloured glass on gold; returns float32 `(height, width, 3)` in [0, 1]."""
    scene = _rosettes(height, width, rng)
    side = max(_TESSERA * min(height, width) / 512, 4.0)
    seeds = _set_stones(scene, side, rng)
    y, x = np.mgrid[0:height, 0:width]
    # A crooked look-up makes the edges of the stones uneven.
    crooked = np.float32(0.05 * side) * np.stack([noise(rng, height, width, side / 2.5, 2) for _ in range(2)])
    places = np.stack([y + crooked[0], x + crooked[1]], axis=-1).reshape(-1, 2)
    cells = _nearest_stones(places, seeds, _at(scene.angle, seeds), side)
    return _glaze(scene, seeds, cells, (height, width), rng)


def _rosettes(height: int, width: int, rng: np.random.Generator) -> Scene:
    """Overlapping rosettes of petals and rings over waving bands."""
    x, y = grid(height, width)
    right, bottom = float(x.max()), float(y.max())
    hills = noise(rng, height, width, min(height, width) / 2, 2)
    wave = y + np.float32(0.06) * np.sin(6 * x) + np.float32(0.03) * hills
    bands = palette(0xE2B13C, 0xC98A22, 0x7A1F1D, 0xE9D9A6, 0x1E5F74, 0xE2B13C)
    colour = bands[np.floor(wave * 11).astype(int) % len(bands)]
    angle = np.arctan(np.float32(0.36) * np.cos(6 * x))
    rings = palette(0xF4E3A1, 0xD9A22B, 0x8E1B1F, 0x0F3D6B, 0x1B8A8F, 0x9ED0B5, 0x14284F, 0xE8DCC0, 0xA5301F)
    places = [(0.2, 0.82, 0.3), (0.86, 0.78, 0.33), (0.12, 0.2, 0.26), (0.56, 0.4, 0.42)]
    for place_x, place_y, radius in places:
        dx = x - np.float32((place_x + rng.uniform(-0.03, 0.03)) * right)
        dy = y - np.float32((place_y + rng.uniform(-0.03, 0.03)) * bottom)
        around, distance = np.arctan2(dy, dx), np.hypot(dx, dy) / radius
        petals = int(rng.integers(6, 10))
        scalloped = distance * (1 + np.float32(0.16) * np.abs(np.cos(petals * around / 2)) * (distance < 0.8))
        ring = np.clip((scalloped * len(rings)).astype(int), 0, len(rings) - 1)
        turned = np.roll(rings, int(rng.integers(0, 3)), axis=0)
        alternate = np.cos(petals * around) > 0
        paint = np.where(alternate[..., None] & (ring % 3 == 1)[..., None], palette(0xC9442B), turned[ring])
        inside = distance < 1
        colour = np.where(inside[..., None], paint, colour)
        angle = np.where(inside, around + np.float32(np.pi / 2), angle)
    return Scene(angle.astype(np.float32), colour.astype(np.float32))


def _at(field: Floats, seeds: NDArray[np.float64]) -> Floats:
    """The field's values at places (y, x)."""
    rows = np.clip(seeds[:, 0], 0, field.shape[0] - 1).astype(np.intp)
    return field[rows, np.clip(seeds[:, 1], 0, field.shape[1] - 1).astype(np.intp)]


def _set_stones(scene: Scene, side: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres (y, x) of stones of about equal size: a shaken grid, relaxed towards the cells' centroids."""
    height, width = scene.angle.shape
    rows, columns = max(2, round(height / side)), max(2, round(width / side))
    index = np.indices((rows, columns)).reshape(2, -1).T
    cell = np.array([height / rows, width / columns])
    seeds: NDArray[np.float64] = (index + rng.uniform(0.1, 0.9, index.shape)) * cell
    step = max(1, int(side / 7))
    y, x = np.mgrid[0:height:step, 0:width:step]
    places = np.stack([y, x], axis=-1).reshape(-1, 2).astype(np.float64)
    for _ in range(6):
        owner = _nearest_stones(places, seeds, _at(scene.angle, seeds), side).owner
        count = np.bincount(owner, minlength=len(seeds))
        for axis in (0, 1):
            sums = np.bincount(owner, places[:, axis], len(seeds))
            seeds[:, axis] = np.where(count > 0, sums / np.maximum(count, 1), seeds[:, axis])
    return seeds


def _nearest_stones(places: NDArray[np.float64], seeds: NDArray[np.float64], angle: Floats, side: float) -> _Cells:
    """Cells under the p-norm with p = 4, whose unit circle is a rounded square, turned with each stone."""
    from scipy.spatial import cKDTree

    tree, count = cKDTree(seeds), min(_NEIGHBOURS, len(seeds))
    turned = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    parts = []
    for start in range(0, len(places), _CHUNK):
        here = places[start : start + _CHUNK]
        near = np.asarray(tree.query(here, k=count)[1], dtype=np.intp)
        offset = ((here[:, None, :] - seeds[near]) / side).astype(np.float32)
        cosine, sine = turned[near, 0], turned[near, 1]
        u = offset[..., 1] * cosine + offset[..., 0] * sine
        v = offset[..., 0] * cosine - offset[..., 1] * sine
        distance = np.sqrt(np.sqrt(np.square(u * u) + np.square(v * v)))
        rows = np.arange(len(here))
        first = distance.argmin(axis=1)
        own = distance[rows, first]
        distance[rows, first] = np.inf
        parts.append((near[rows, first], own, distance.min(axis=1), u[rows, first], v[rows, first]))
    return _Cells(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _glaze(
    scene: Scene,
    seeds: NDArray[np.float64],
    cells: _Cells,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> Floats:
    """Colour, bevel and tilt the stones and fill the joints."""
    count = len(seeds)
    stone = _at(scene.colour, seeds) * (1 + rng.normal(0, 0.13, (count, 1)) + rng.normal(0, 0.05, (count, 3)))
    tilt = rng.normal(0, 0.26, (count, 2)).astype(np.float32)
    joint = ((cells.second - cells.own) / 2).reshape(shape)  # about the distance to the edge, in stones
    slope = (tilt[cells.owner, 0] * cells.u + tilt[cells.owner, 1] * cells.v).reshape(shape)
    veins = noise(rng, *shape, 7.0 * min(shape) / 512 + 2, 2) * np.float32(0.09)
    grain = rng.standard_normal(shape, np.float32) * np.float32(0.025)
    colour = stone[cells.owner].reshape(*shape, 3) * (1 + slope + veins + grain)[..., None]
    relief = np.clip((joint - np.float32(0.07)) * 5, 0, 1) * np.float32(_TESSERA * min(shape) / 512 / 8)
    down, across = np.gradient(relief)
    facing = np.clip(-(down + across), -0.9, 0.9)[..., None]
    glint = np.clip(slope - np.float32(0.11), 0, 1)[..., None] * np.float32(1.3)
    colour = colour * (1 + np.float32(0.42) * facing) + np.float32(0.1) * np.clip(facing, 0, 1) + glint
    sand = np.float32(0.5) + np.float32(0.4) * noise(rng, *shape, 4, 2) + 6 * grain
    grout = ramp(sand, palette(0x17120F, 0x3A3029, 0x5A4C40))
    edge = (joint - np.float32(0.06)) * 22 + 4 * veins
    painted: Floats = np.clip(blend(grout, colour, edge), 0, 1).astype(np.float32)
    return painted
