"""Pictures resized, batched for the models, and written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from nstcore import images
from nstcore.errors import ArgumentError, DTypeError, ImageError, OutputError, ShapeError

LEVEL = 1 / 255


def colours(height=24, width=32):
    """A smooth picture in which every channel and direction differs, uint8 `(h, w, 3)`."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 250 * x / width, 250 * y / height
    return np.stack([red, green, (red + 2 * green) / 3], axis=-1).astype(np.uint8)


def unit(array):
    return np.asarray(array, np.float32) / 255


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((40, 60), 30, (20, 30)), ((60, 40), 30, (30, 20)), ((5, 7), 70, (50, 70)), ((3, 1000), 10, (1, 10))],
)
def test_size_is_the_longer_side(shape, size, expected):
    array = np.random.default_rng(0).random((*shape, 3), np.float32)
    assert images.resize(array, size).shape == (*expected, 3)
    assert images.load(array, size=size).shape == (*expected, 3)
    np.testing.assert_array_equal(images.load(array, size=size), images.resize(array, size))


def test_grey_and_many_channels_resize():
    grey = np.random.default_rng(0).random((8, 9))
    assert images.resize_to(grey, 3, 4).shape == (3, 4)
    assert images.resize_to(grey[:, :, None].repeat(5, axis=2), 3, 4).shape == (3, 4, 5)
    np.testing.assert_array_equal(images.load(grey, size=4)[:, :, 0], images.resize(grey, 4))


@settings(max_examples=30, deadline=None)
@given(
    image=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=12),
        elements=st.floats(0, 1, width=32),
    ),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
def test_resized_stays_in_range(image, height, width):
    result = images.resize_to(image, height, width)
    assert result.shape == (height, width, *image.shape[2:])
    assert result.dtype == np.float32
    assert result.min() >= 0
    assert result.max() <= 1


def test_resize_keeps_constants_and_float_precision():
    flat = np.full((50, 70, 3), 0.123456, np.float32)
    np.testing.assert_allclose(images.resize_to(flat, 13, 200), 0.123456, rtol=1e-6)
    ramp = np.linspace(0.4, 0.401, 400, dtype=np.float32)[None, :, None].repeat(3, axis=2).repeat(8, axis=0)
    assert np.unique(images.resize(ramp, 100)).size > 50  # all within a quarter of one 8-bit level


def test_shrinking_does_not_alias():
    """Stripes above the new Nyquist frequency must become their mean, not other stripes."""
    x = np.arange(600)
    stripes = np.broadcast_to(0.5 + 0.5 * np.sin(2 * np.pi * x / 2.7), (60, 600)).astype(np.float32)
    small = images.resize_to(stripes, 10, 100)
    np.testing.assert_allclose(small[:, 5:-5], 0.5, atol=0.02)


def test_resize_to_the_same_size_is_a_copy():
    array = np.random.default_rng(0).random((6, 7, 3), np.float32)
    result = images.resize_to(array, 6, 7)
    np.testing.assert_array_equal(result, array)
    assert not np.shares_memory(result, array)


# --- batches


def test_as_images():
    array = np.random.default_rng(0).random((4, 5, 3))
    assert images.as_images(array).dtype == np.float64
    assert images.as_images(array).shape == (1, 4, 5, 3)
    assert np.shares_memory(images.as_images(array), array)
    assert images.as_images(array.astype(np.float16)).dtype == np.float32
    batch = images.as_images(np.full((2, 4, 5, 3), 255, np.uint8))
    assert batch.dtype == np.float32
    assert batch.min() == 1 == batch.max()
    for bad in (np.zeros((4, 5)), np.zeros((4, 5, 4)), np.zeros((0, 4, 5, 3)), np.zeros((1, 1, 4, 5, 3))):
        with pytest.raises(ShapeError):
            images.as_images(bad)
    for bad in (array + 1, array - 1, np.full((2, 2, 3), np.nan), np.full((2, 2, 3), np.inf)):
        with pytest.raises(ImageError):
            images.as_images(bad)
    with pytest.raises(DTypeError):
        images.as_images(np.zeros((2, 2, 3), np.int64))


# --- writing


def test_png_round_trip_rounds_to_the_nearest_level(tmp_path):
    path = tmp_path / "out.png"
    images.save(path, np.array([[0.0, 0.4 * LEVEL, 0.6 * LEVEL, 0.999, 1.0]]))
    np.testing.assert_allclose(images.load(path)[0, :, 0] * 255, [0, 0, 1, 255, 255], atol=1e-4)
    array = colours()
    for source in (array, unit(array), array / 255):
        images.save(path, source)
        np.testing.assert_array_equal(images.load(path), unit(array))
    with Image.open(path) as written:
        assert written.info["srgb"] == 0


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_formats_stay_close(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    images.save(path, unit(colours(64, 64)))
    result = images.load(path)
    assert np.abs(result - unit(colours(64, 64))).mean() < 2 * LEVEL
    images.save(path, unit(colours(64, 64))[:, :, 0])
    assert images.load(path).shape == (64, 64, 3)


def test_jpeg_keeps_the_colour_of_every_pixel(tmp_path):
    stripes = np.zeros((32, 32, 3))
    stripes[:, ::2, 0] = 1
    stripes[:, 1::2, 2] = 1
    images.save(tmp_path / "out.jpg", stripes, quality=100)
    result = images.load(tmp_path / "out.jpg")
    assert result[:, ::2, 0].min() > 0.9
    assert result[:, 1::2, 0].max() < 0.1


def test_quality_matters_and_is_checked(tmp_path):
    noise = np.random.default_rng(0).random((64, 64, 3))
    images.save(tmp_path / "low.jpg", noise, quality=20)
    images.save(tmp_path / "high.jpg", noise, quality=95)
    assert (tmp_path / "low.jpg").stat().st_size < (tmp_path / "high.jpg").stat().st_size / 2
    for bad in (0, 101, 50.5, True):
        with pytest.raises(ArgumentError, match="quality must be a whole number from 1 to 100"):
            images.save(tmp_path / "x.jpg", noise, quality=bad)


@pytest.mark.parametrize("name", ["out.gif", "out", "out.png.txt"])
def test_unknown_suffix(tmp_path, name):
    for call in (images.check_suffix, lambda path: images.save(path, np.zeros((2, 2, 3)))):
        with pytest.raises(OutputError, match=r"must be one of \.jpg, \.jpeg, \.png, \.webp; got"):
            call(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_picture_larger_than_the_format(tmp_path):
    with pytest.raises(OutputError, match="WEBP holds at most 16383 pixels a side, got 16384x1"):
        images.save(tmp_path / "x.webp", np.zeros((1, 16384, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    images.save(path, np.zeros((2, 2, 3)))
    before = path.read_bytes()

    def fail(self, stream, **options):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        images.save(path, np.ones((2, 2, 3)))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


def test_saving_is_reproducible(tmp_path):
    for suffix in ("png", "jpg", "webp"):
        for name in ("a", "b"):
            images.save(tmp_path / f"{name}.{suffix}", colours())
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
