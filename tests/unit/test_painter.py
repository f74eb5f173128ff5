"""The painter: repeatable, in range, and with the texture that a style picture needs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nstcore.demo import _brush, _mosaic, painter
from nstcore.demo._scenes import palette, ramp
from nstcore.demo.painter import PAINTINGS, paint
from nstcore.errors import ArgumentError


@pytest.fixture(scope="module")
def paintings():
    return {name: paint(name, 256, 256) for name in PAINTINGS}


def blocks(plane, side):
    """`(h, w)` cut into squares: `(count, side * side)`."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    cut = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return cut.swapaxes(1, 2).reshape(-1, side * side)


def test_there_are_several():
    assert len(PAINTINGS) >= 3
    assert {"swirl", "mosaic"} <= set(PAINTINGS)


@pytest.mark.parametrize("name", PAINTINGS)
def test_picture_is_valid(paintings, name):
    picture = paintings[name]
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.float32
    assert np.isfinite(picture).all()
    assert picture.min() >= 0
    assert picture.max() <= 1


@pytest.mark.parametrize("name", PAINTINGS)
def test_same_seed_same_picture(paintings, name):
    np.testing.assert_array_equal(paint(name, 256, 256, seed=0), paintings[name])


@pytest.mark.parametrize("name", PAINTINGS)
def test_another_seed_another_picture(paintings, name):
    assert np.abs(paint(name, 256, 256, seed=1) - paintings[name]).mean() > 0.05


@pytest.mark.parametrize("name", PAINTINGS)
def test_no_flat_areas(paintings, name):
    """Every square of a sixteenth of the side has contrast; most have a lot."""
    contrast = blocks(paintings[name].mean(axis=2), 16).std(axis=1)
    assert contrast.min() > 0.01
    assert np.median(contrast) > 0.05


@pytest.mark.parametrize("name", PAINTINGS)
def test_palette_is_strong(paintings, name):
    picture = paintings[name]
    saturation = picture.max(axis=2) - picture.min(axis=2)
    assert saturation.mean() > 0.15
    assert picture.mean(axis=2).std() > 0.12


def colour_histogram(picture):
    counts, _ = np.histogramdd(picture.reshape(-1, 3), bins=(6, 6, 6), range=[(0, 1)] * 3)
    return counts / counts.sum()


def test_paintings_differ_in_colour_from_each_other(paintings):
    histograms = [colour_histogram(paintings[name]) for name in PAINTINGS]
    for i, one in enumerate(histograms):
        for other in histograms[:i]:
            assert np.abs(one - other).sum() / 2 > 0.3  # total variation distance


def orientation_strength(picture):
    """Coherence of the structure tensor over squares: 1 where all edges of a square run one way."""
    down, across = np.gradient(picture.mean(axis=2))
    sums = [blocks(product, 16).sum(axis=1) for product in (across * across, down * down, across * down)]
    xx, yy, xy = sums
    return np.hypot(xx - yy, 2 * xy) / (xx + yy)


def test_strokes_have_a_direction_and_stones_have_not(paintings):
    strength = {name: np.median(orientation_strength(paintings[name])) for name in PAINTINGS}
    # Noise of single pixels has 0.08 by this measure.
    assert strength["mosaic"] < 0.2 < strength["swirl"]
    assert strength["woodcut"] > 0.6


def test_strokes_follow_the_field():
    """On a scene of one colour and one direction the edges lie across that direction."""
    for degrees in (0, 30, 90, 135):
        angle = np.full((128, 128), np.deg2rad(degrees), np.float32)
        scene = _brush.Scene(angle, np.full((128, 128, 3), 0.5, np.float32))
        layers = (_brush.Layer(width=24, length=120, cover=2, jitter=0.2, wobble=0.02),)
        picture = _brush.paint_scene(scene, layers, np.random.default_rng(0)).mean(axis=2)
        down, across = np.gradient(picture)
        normal = np.arctan2(2 * (across * down).sum(), (across**2 - down**2).sum()) / 2
        along = np.rad2deg(normal) + 90
        assert abs((along - degrees + 90) % 180 - 90) < 12


def test_stones_are_of_about_equal_size():
    rng = np.random.default_rng(0)
    scene = _mosaic._rosettes(192, 256, rng)
    seeds = _mosaic._set_stones(scene, 12.0, rng)
    y, x = np.mgrid[0:192, 0:256]
    places = np.stack([y, x], axis=-1).reshape(-1, 2).astype(float)
    cells = _mosaic._nearest_stones(places, seeds, _mosaic._at(scene.angle, seeds), 12.0)
    area = np.bincount(cells.owner, minlength=len(seeds))
    assert area.min() > 0.3 * 144
    assert area.max() < 2.5 * 144
    assert (cells.second >= cells.own).all()


@pytest.mark.parametrize("name", PAINTINGS)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 90), (90, 17), (61, 47)])
def test_any_size(name, height, width):
    picture = paint(name, height, width)
    assert picture.shape == (height, width, 3)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.02


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"\[paint\] expects one of swirl, .*, got 'Mona Lisa'"):
        paint("Mona Lisa", 64, 64)
    for bad in ({"height": 15}, {"width": 0}, {"width": 64.0}, {"seed": -1}, {"height": True}):
        with pytest.raises(ArgumentError, match=f"{next(iter(bad))} must be a whole number of at least"):
            paint("swirl", **{"height": 64, "width": 64, **bad})


def test_ramp_mixes_neighbours():
    colours = palette(0x000000, 0xFF0000, 0xFFFFFF)
    np.testing.assert_allclose(
        ramp(np.array([-1, 0, 0.25, 0.5, 1, 2], np.float32), colours),
        [[0, 0, 0], [0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]],
    )


def test_noise_is_smooth_and_centred():
    hills = _brush.noise(np.random.default_rng(0), 200, 300, 20, 3)
    assert hills.shape == (200, 300)
    assert abs(hills.mean()) < 0.15
    assert np.abs(np.diff(hills, axis=0)).max() < 0.5
    assert hills.std() > 0.2


def test_names_are_those_of_the_docstring():
    for name in PAINTINGS:
        assert re.search(rf"^\s*{name}  ", painter.__doc__, re.MULTILINE)
