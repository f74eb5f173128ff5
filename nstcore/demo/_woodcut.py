"""A woodcut: carved lines that follow the land, printed in indigo over blocks of colour on warm paper."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nstcore.demo._brush import Floats, noise
from nstcore.demo._scenes import blend, grid, palette

_LINE = 9.5  # from one carved line to the next, in 512ths of the picture's shorter side


def woodcut(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Print a sun over hills and a sea of waves; returns float32 `(height, width, 3)` in [0, 1]."""
    phase, tone, block = _design(height, width, rng)
    side = min(height, width)
    # The knife swells and lifts along each cut; the wood breaks out at its edges.
    swell = noise(rng, height, width, side / 14, 2) * np.float32(0.2)
    chip = noise(rng, height, width, max(side / 130, 2), 2) * np.float32(0.13)
    ridge = np.float32(0.5) + np.float32(0.5) * np.cos(2 * np.pi * phase)
    # A pixel is inked where the ridge between two cuts is high enough; `steep` softens it to about a pixel.
    steep = np.float32(_LINE * side / 512 / 2.6)
    ink = np.clip((ridge - tone + swell + chip) * steep + np.float32(0.5), 0, 1)
    ink *= np.clip(np.float32(1.02) - _wear(height, width, rng), 0, 1)
    return _print(block, ink, rng)


def _design(height: int, width: int, rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """For each pixel the phase of the lines, the lightness in [0, 1] and the number of its colour block."""
    x, y = grid(height, width)
    right, bottom = float(x.max()), float(y.max())
    lines = 512 / _LINE
    warp = noise(rng, height, width, min(height, width) / 3, 2) * np.float32(0.02)
    dx = x - np.float32(right * rng.uniform(0.6, 0.74))
    dy = y - np.float32(bottom * rng.uniform(0.2, 0.27))
    distance = np.hypot(dx, dy)
    # Sky: lines bow around the sun and straighten far away.
    bow = y + np.float32(0.1) * np.exp(-((dx / np.float32(0.35)) ** 2)) * np.tanh(dy * 9)
    phase = (bow + warp + np.float32(0.012) * np.sin(14 * x)) * lines
    tone = np.float32(0.35) + np.float32(0.5) * np.exp(-distance / np.float32(0.4))
    block = np.where(tone > 0.57, 1, 0)
    halo = distance < 0.24
    rays = np.arctan2(dy, dx) * np.float32(44 / (2 * np.pi))
    phase, tone = np.where(halo, rays, phase), np.where(halo, np.float32(0.95) - distance * 2, tone)
    sun = distance < 0.125
    phase, tone = np.where(sun, distance * lines, phase), np.where(sun, np.float32(0.78), tone)
    block = np.where(sun, 2, block)
    for i, level in enumerate((0.46, 0.56, 0.66)):
        shift = rng.uniform(0, 6, 3)
        ridge = bottom * level + np.float32(0.07 - 0.012 * i) * np.sin((3.2 + i) * x + shift[0])
        ridge = ridge + np.float32(0.025) * np.sin(9 * x + shift[1]) + np.float32(0.3) * warp
        depth = y - ridge
        on_hill = depth > 0
        lean = (1, -1, 0.6)[i]
        hatch = (depth + lean * np.float32(0.45) * x + np.float32(0.03) * np.sin(12 * x + shift[2])) * lines
        shade = np.float32(0.25 + 0.08 * i) + np.float32(2.6) * depth
        shade = np.where(depth < 0.012, np.float32(-1), shade)  # a solid contour
        phase, tone = np.where(on_hill, hatch, phase), np.where(on_hill, shade, tone)
        block = np.where(on_hill, 3 + i, block)
    shore = bottom * np.float32(0.77) + np.float32(0.025) * np.sin(5 * x)
    at_sea = y > shore
    arcs, foam = _waves(x, y - shore, rng)
    phase, tone = np.where(at_sea, arcs, phase), np.where(at_sea, foam, tone)
    block = np.where(at_sea, np.where(foam > 0.8, 1, 6), block)
    return phase.astype(np.float32), np.clip(tone, -1, 0.97).astype(np.float32), block.astype(np.intp)


def _waves(x: Floats, depth: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Overlapping scales of concentric arcs, larger towards the viewer: phase and lightness."""
    row_height = np.float32(0.06)
    nearest = np.full(x.shape, np.inf, np.float32)
    row = np.floor(depth / row_height)
    for ahead in (1, 0):  # the row in front hides the one behind
        centre_row = row + ahead
        offset = (centre_row % 2) * np.float32(0.5)
        swing = np.float32(0.12) * np.sin(centre_row * 2.1 + x * 3)
        across = ((x / (2 * row_height) + offset + swing) % 1 - np.float32(0.5)) * 2 * row_height
        radius = np.hypot(across, (centre_row + 1) * row_height - depth)
        nearest = np.where(radius < row_height * np.float32(1.12), np.minimum(nearest, radius), nearest)
    covered = np.isfinite(nearest)
    radius = np.where(covered, nearest, 0) / row_height
    phase = radius * np.float32(3.4) + np.float32(rng.uniform(0, 0.2))
    foam = np.where(radius > 0.88, np.float32(0.9), np.float32(0.25) + np.float32(0.45) * radius)
    return phase.astype(np.float32), np.where(covered, foam, np.float32(0.15)).astype(np.float32)


def _wear(height: int, width: int, rng: np.random.Generator) -> Floats:
    """How much ink the wood's grain kept back, `(height, width)` from 0 up: long thin streaks and specks."""
    side = min(height, width)
    streaks = noise(rng, height, max(width // 12, 2), max(side / 180, 1.5), 2)
    streaks = streaks[:, np.minimum(np.arange(width) // 12, streaks.shape[1] - 1)]
    specks = noise(rng, height, width, max(side / 200, 1.5), 1)
    wear: Floats = np.clip(np.float32(0.3) * streaks, 0, 0.3) + np.clip(specks - np.float32(0.55), 0, 1)
    return wear


def _print(block: NDArray[np.intp], ink: Floats, rng: np.random.Generator) -> Floats:
    """Paper, then the colour blocks a little out of register, then the ink."""
    height, width = ink.shape
    fibre = noise(rng, height, width, 6, 3) * np.float32(0.03) + rng.standard_normal(
        ink.shape, np.float32
    ) * np.float32(0.012)
    paper = palette(0xF2E4C6)[0] * (1 + fibre)[..., None]
    tints = palette(0xBFD0C4, 0xF2DDA6, 0xD8432B, 0xE2A24A, 0xC9692F, 0x8FA05A, 0x5C9AA6)
    slip = max(1, round(min(height, width) / 256))
    printed = tints[np.roll(block, (slip, -slip), axis=(0, 1))]
    mottle = np.float32(0.86) + np.float32(0.16) * noise(rng, height, width, max(min(height, width) / 60, 3), 3)
    picture = blend(paper, printed * (1 + fibre)[..., None], mottle - _wear(height, width, rng))
    indigo = palette(0x17224A)[0] * (1 + 4 * fibre)[..., None]
    result: Floats = np.clip(blend(picture, indigo, ink * np.float32(0.96)), 0, 1).astype(np.float32)
    return result
