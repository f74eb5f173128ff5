"""Compositions for the brush: where each colour lies and which way the strokes run."""

from __future__ import annotations

import numpy as np

from nstcore.demo._brush import Floats, Scene, noise


def palette(*codes: int) -> Floats:
    """Colours written as 0xRRGGBB, as an array `(n, 3)` in [0, 1]."""
    channels = [[code >> 16 & 255, code >> 8 & 255, code & 255] for code in codes]
    return np.asarray(np.array(channels, np.float32) / np.float32(255))


def ramp(values: Floats, colours: Floats) -> Floats:
    """Mix neighbouring colours: a value of 0 is the first of them, 1 the last."""
    place = np.clip(values, 0, 1) * (len(colours) - 1)
    lower = np.minimum(place.astype(np.intp), len(colours) - 2)
    part = (place - lower)[..., None].astype(np.float32)
    mixed: Floats = colours[lower] * (1 - part) + colours[lower + 1] * part
    return mixed


def grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Coordinates x, y of the pixels, where the shorter side runs from 0 to 1."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(min(height, width))
    return x, y


def blend(under: Floats, over: Floats, opacity: Floats) -> Floats:
    """Lay one colour map over another."""
    mixed: Floats = under + np.clip(opacity, 0, 1)[..., None] * (over - under)
    return mixed


def night(height: int, width: int, rng: np.random.Generator) -> Scene:
    """A night sky that turns in whirls around stars and a moon, over dark hills."""
    x, y = grid(height, width)
    right, bottom = float(x.max()), float(y.max())
    drift = noise(rng, height, width, min(height, width) / 2, 2)
    flow_x = np.ones_like(x)
    flow_y = np.float32(0.5) * np.sin(5 * x + 2 * drift) + np.float32(0.2) * drift
    sky = palette(0x0B1440, 0x14307E, 0x1F52AE, 0x3F82C8, 0x8FBFDD, 0xE3EBD2)
    tone = np.float32(0.3) + np.float32(0.17) * drift + np.float32(0.13) * np.sin(26 * y + 6 * flow_y + 3 * drift)
    for place_x, place_y, radius, sense in _whirls(right, bottom, rng):
        dx, dy = x - place_x, y - place_y
        distance = np.hypot(dx, dy) / radius
        pull = 4 * np.exp(-((distance / 0.85) ** 2))
        # Inward as well as around, so that strokes make spirals and not rings.
        flow_x += pull * (-sense * dy - np.float32(0.25) * dx) / radius
        flow_y += pull * (sense * dx - np.float32(0.25) * dy) / radius
        spiral = np.sin(9 * distance + 2 * sense * np.arctan2(dy, dx))
        tone += np.exp(-(distance**2)) * (np.float32(0.24) + np.float32(0.34) * spiral)
    colour = ramp(tone, sky)
    for place_x, place_y, radius in _stars(right, bottom, rng):
        dx, dy = x - place_x, y - place_y
        distance = np.hypot(dx, dy) / radius
        pull = 7 * np.exp(-((distance / 1.1) ** 2))
        flow_x, flow_y = flow_x - pull * dy / radius, flow_y + pull * dx / radius
        rings = distance * np.float32(0.75) + np.float32(0.1) * np.sin(14 * distance)
        glow = ramp(rings, palette(0xFFF6C9, 0xFBD24B, 0xF0A823, 0xE9DC8A, 0x9CC6C0, 0x3F82C8))
        colour = blend(colour, glow, np.float32(1.5) - distance * np.float32(1.05))
    ridge = bottom * np.float32(0.8) - np.float32(0.07) * np.sin(4.1 * x + 1) - np.float32(0.035) * np.sin(11 * x)
    depth = (y - ridge) / np.float32(0.2)
    folds = np.float32(0.45) + np.float32(0.35) * np.sin(34 * (y - ridge) + 5 * drift + 6 * x)
    land = ramp(folds, palette(0x07122B, 0x0F2F4E, 0x1D5560, 0x3C7F6A, 0xA9A95B))
    on_land = depth > 0
    slope = np.gradient(ridge, axis=1) * min(height, width)
    angle = np.where(on_land, np.arctan(slope) + np.float32(0.5) * drift, np.arctan2(flow_y, flow_x))
    return Scene(angle.astype(np.float32), blend(colour, land, depth * 12))


def _whirls(right: float, bottom: float, rng: np.random.Generator) -> list[tuple[float, float, float, int]]:
    """Centre, radius and sense of the sky's whirls: two large ones and smaller company."""
    shift = rng.uniform(-0.04, 0.04, (5, 2))
    places = [
        (0.42, 0.36, 0.2, 1),
        (0.62, 0.5, 0.13, -1),
        (0.12, 0.56, 0.12, 1),
        (0.9, 0.6, 0.12, 1),
        (0.2, 0.1, 0.1, -1),
    ]
    return [
        (right * (px + dx), bottom * (py + dy), radius, sense)
        for (px, py, radius, sense), (dx, dy) in zip(places, shift.tolist(), strict=True)
    ]


def _stars(right: float, bottom: float, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centre and radius of a moon and of stars spread along the upper sky."""
    stars = [(0.86 * right, 0.15 * bottom, 0.13)]
    count = max(6, round(8 * right / bottom))
    for i in range(count):
        px = right * (i + rng.uniform(0.25, 0.75)) / count
        highest = 0.06 if px < 0.66 * right else 0.36  # below the moon
        stars.append((px, bottom * rng.uniform(highest, 0.62), rng.uniform(0.035, 0.06)))
    return stars


def autumn(height: int, width: int, rng: np.random.Generator) -> Scene:
    """Trees in autumn leaves over water that mirrors them."""
    x, y = grid(height, width)
    right, bottom = float(x.max()), float(y.max())
    shore = bottom * np.float32(0.63) + np.float32(0.012) * np.sin(9 * x)
    on_water = y > shore
    # Under the shore the picture above it comes back, upside down and shaken sideways.
    mirrored = np.where(on_water, 2 * shore - y, y)
    shake = np.where(on_water, np.float32(0.012) * np.sin(60 * y + 3 * np.sin(8 * x)), 0)
    rows = np.clip(mirrored / bottom * (height - 1), 0, height - 1).astype(np.intp)
    columns = np.clip((x + shake) / right * (width - 1), 0, width - 1).astype(np.intp)
    side = min(height, width)
    hills = noise(rng, height, width, side / 3.5, 3)
    leaves = noise(rng, height, width, side / 11, 3)
    sky = ramp(
        y / bottom * np.float32(1.5) + np.float32(0.12) * hills,
        palette(0x5FA3B8, 0xA8CFC4, 0xF3E2B0, 0xF6C98A),
    )
    foliage = ramp(
        np.float32(0.5) + np.float32(0.5) * leaves,
        palette(0x4A1030, 0x9C1F23, 0xD8391B, 0xF0801A, 0xF9B51F, 0xFBE36B, 0x7F9A2E),
    )
    crown = bottom * (np.float32(0.2) + np.float32(0.16) * noise(rng, height, width, side / 4, 2)[:1])
    above = blend(sky, foliage, (y - crown) * 14 + 2 * leaves)
    undergrowth = ramp(np.float32(0.5) + np.float32(0.5) * hills, palette(0x1D2A3F, 0x3E2C4F, 0x5E3A2A, 0x2F4A3A))
    above = blend(above, undergrowth, (y - bottom * np.float32(0.53)) * 14 + leaves)
    angle = np.float32(-0.9) + np.float32(1.1) * leaves + np.float32(0.5) * hills
    for place in np.linspace(0.05, 0.95, max(5, round(7 * right / bottom))) + rng.uniform(-0.03, 0.03):
        lean, half = rng.uniform(-0.12, 0.12), rng.uniform(0.008, 0.017)
        offset = x - place * right - lean * (y - bottom * np.float32(0.4)) - np.float32(0.01) * np.sin(9 * y)
        trunk = (half * (np.float32(0.5) + y / bottom) - np.abs(offset)) * 160
        trunk = np.minimum(trunk, (y - crown) * 20 - 1)
        bark = ramp(offset / half / 2 + np.float32(0.5), palette(0xD9C7B0, 0x6B4A5A, 0x241834))
        above = blend(above, bark, trunk)
        angle = np.where(trunk > 0, np.float32(np.pi / 2 - lean), angle)
    mirror = above[rows, columns] * palette(0xC4CFE6)[0] + np.float32(0.03)
    bands = np.sin(75 * np.sqrt(np.maximum(y - shore, 0)) + 5 * hills)
    gleam = np.broadcast_to(palette(0x8DB9CF), mirror.shape)
    mirror = blend(mirror, gleam, np.float32(0.75) * bands - np.float32(0.25))
    colour = np.where(on_water[..., None], mirror, above)
    angle = np.where(on_water, np.float32(0.1) * hills, angle)
    return Scene(angle.astype(np.float32), np.clip(colour, 0, 1).astype(np.float32))
