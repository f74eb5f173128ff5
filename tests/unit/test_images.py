"""Every kind of picture that a person may have, read as the same floats."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from nstcore import images
from nstcore.errors import ImageError

RED, GREEN, BLUE, WHITE = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)
LEVEL = 1 / 255


def colours(height=24, width=32):
    """A smooth picture in which every channel and direction differs, uint8 `(h, w, 3)`."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 250 * x / width, 250 * y / height
    return np.stack([red, green, (red + 2 * green) / 3], axis=-1).astype(np.uint8)


def encoded(picture, form, **options):
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    stream.seek(0)
    return stream


def unit(array):
    return np.asarray(array, np.float32) / 255


def with_chunk(png, name, data):
    """Insert a chunk behind the header chunk of a PNG."""
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return png[:33] + chunk + png[33:]


# --- sources and modes


@pytest.mark.parametrize("kind", ["str", "path", "file", "bytes", "pillow", "uint8", "float32", "float64"])
def test_every_source_gives_the_same_picture(tmp_path, kind):
    array = colours()
    path = tmp_path / "photo.png"
    Image.fromarray(array).save(path)
    with path.open("rb") as file, Image.open(path) as opened:
        source = {
            "str": str(path),
            "path": path,
            "file": file,
            "bytes": io.BytesIO(path.read_bytes()),
            "pillow": opened,
            "uint8": array,
            "float32": unit(array),
            "float64": array / 255,
        }[kind]
        result = images.load(source)
    assert result.dtype == np.float32
    assert result.shape == (24, 32, 3)
    np.testing.assert_array_equal(result, unit(array))


def test_result_is_a_new_array():
    array = np.full((4, 5, 3), 0.5, np.float32)
    result = images.load(array)
    result[:] = 0
    assert array.min() == 0.5


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 5), 0.2), ((4, 5, 1), 0.2), ((4, 5, 3), 0.2), ((4, 5, 4), 0.2 * 0.2 + 0.8)],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_of_every_shape(shape, expected, dtype):
    array = np.full(shape, 51 if dtype == np.uint8 else 0.2, dtype)
    result = images.load(array)
    assert result.shape == (4, 5, 3)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_png_is_read_exactly_and_grey_is_repeated():
    grey = colours()[:, :, 0]
    result = images.load(encoded(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(result, unit(grey)[:, :, None].repeat(3, axis=2))


def test_one_bit():
    bits = colours()[:, :, 0] > 100
    result = images.load(encoded(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(result[:, :, 1], bits.astype(np.float32))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_rgba_is_laid_over_white(form):
    array = np.dstack([colours(), np.linspace(0, 255, 32, dtype=np.uint8) * np.ones((24, 1), np.uint8)])
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    result = images.load(encoded(Image.fromarray(array), form, **options))
    opacity = unit(array[:, :, 3:])
    np.testing.assert_allclose(result, unit(array[:, :, :3]) * opacity + 1 - opacity, atol=0.51 * LEVEL)


def test_grey_with_alpha():
    array = np.zeros((4, 4, 2), np.uint8)
    array[:2, :, 1] = 255
    array[2, :, 1] = 51
    result = images.load(encoded(Image.fromarray(array, "LA"), "PNG"))
    np.testing.assert_allclose(result[:, 0, 0], [0, 0, 0.8, 1], atol=1e-6)


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_memory_only_modes_with_alpha(mode):
    straight = {"La": "LA", "RGBa": "RGBA", "PA": "PA"}[mode]
    if mode == "PA":
        picture = Image.new("P", (3, 3), 1)
        picture.putpalette([0, 0, 0, 255, 0, 0])
        picture = picture.convert("PA")
        picture.putalpha(51)
    else:
        picture = Image.new(straight, (3, 3), (255, 51) if mode == "La" else (255, 0, 0, 51)).convert(mode)
    expected = (1, 1, 1) if mode == "La" else (1, 0.8, 0.8)
    np.testing.assert_allclose(images.load(picture)[1, 1], expected, atol=2 * LEVEL)


def palette_picture():
    picture = Image.new("P", (3, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.putdata([0, 1, 2])
    return picture


@pytest.mark.parametrize(
    ("form", "transparency", "expected"),
    [
        ("PNG", None, [RED, GREEN, BLUE]),
        ("GIF", None, [RED, GREEN, BLUE]),
        ("PNG", 1, [RED, WHITE, BLUE]),
        ("GIF", 2, [RED, GREEN, WHITE]),
        ("PNG", bytes([255, 51, 0]), [RED, (0.8, 1, 0.8), WHITE]),
    ],
)
def test_palettes(form, transparency, expected):
    options = {} if transparency is None else {"transparency": transparency}
    result = images.load(encoded(palette_picture(), form, **options))
    np.testing.assert_allclose(result[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "dark", "light", "key"),
    [("L", 10, 200, 10), ("RGB", (9, 8, 7), (200, 200, 200), (9, 8, 7)), ("1", 0, 1, 0)],
)
def test_transparent_colour_key(mode, dark, light, key):
    picture = Image.new(mode, (2, 1), light)
    picture.putpixel((0, 0), dark)
    result = images.load(encoded(picture, "PNG", transparency=key))
    np.testing.assert_array_equal(result[0, 0], WHITE)
    assert result[0, 1].max() <= 1
    assert result[0, 1, 0] == pytest.approx(1 if mode == "1" else 200 * LEVEL)


def test_16_bit_transparent_key():
    picture = Image.fromarray(np.array([[1000, 65535, 30000]], np.uint16))
    stream = io.BytesIO(with_chunk(encoded(picture, "PNG").getvalue(), b"tRNS", struct.pack(">H", 1000)))
    np.testing.assert_allclose(images.load(stream)[0, :, 0], [1, 1, 30000 / 65535], rtol=1e-6)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_16_bit_tiff_keeps_all_bits(dtype, compression):
    levels = np.linspace(0, 65535, 600).reshape(20, 30).astype(dtype)
    result = images.load(encoded(Image.fromarray(levels), "TIFF", compression=compression))
    np.testing.assert_allclose(result[:, :, 2], levels / 65535, rtol=1e-6)


def test_16_bit_png_keeps_all_bits():
    levels = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    result = images.load(encoded(Image.fromarray(levels), "PNG"))
    assert result.max() == 1
    np.testing.assert_allclose(result[:, :, 0], levels / 65535, rtol=1e-6)
    assert np.unique(result).size == 600


def test_16_bit_pgm():
    levels = np.array([[0, 1, 300, 65535]], ">u2")
    result = images.load(io.BytesIO(b"P5 4 1 65535\n" + levels.tobytes()))
    np.testing.assert_allclose(result[0, :, 0], levels[0] / 65535, rtol=1e-6)


def test_integers_of_32_bits():
    picture = Image.fromarray(np.array([[0, 2**30, 2**31 - 1]], np.int32))
    signed = images.load(encoded(picture, "TIFF"))
    np.testing.assert_allclose(signed[0, :, 0], [0, 0.5, 1], rtol=1e-6)
    in_memory = images.load(Image.fromarray(np.array([[0, 65535]], np.int32)))
    np.testing.assert_array_equal(in_memory[0, :, 0], [0, 1])
    with pytest.raises(ImageError, match="grey levels must be from 0 to 65535, got 0 to 70000"):
        images.load(Image.fromarray(np.array([[0, 70000]], np.int32)))


def test_unsigned_32_bit_tiff():
    stream = encoded(Image.fromarray(np.array([[0, -1, -(2**31)]], np.int32)), "TIFF")
    # The tag of the sample format (339, SHORT, one value) turned from signed into unsigned.
    raw = stream.getvalue().replace(struct.pack("<HHIH", 339, 3, 1, 2), struct.pack("<HHIH", 339, 3, 1, 1))
    assert raw != stream.getvalue()
    np.testing.assert_allclose(images.load(io.BytesIO(raw))[0, :, 0], [0, 1, 0.5], rtol=1e-6)


def test_float_tiff():
    levels = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    result = images.load(encoded(Image.fromarray(levels), "TIFF"))
    np.testing.assert_array_equal(result[:, :, 0], levels)
    for bad, found in ((levels * 255, "0 to 255"), (np.where(levels > 0.5, np.float32(np.nan), levels), "NaN")):
        with pytest.raises(ImageError, match=f"grey levels must be from 0 to 1, got {found}$"):
            images.load(encoded(Image.fromarray(bad), "TIFF"))


def test_cmyk_jpeg_with_adobe_inversion():
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    stream = encoded(ink, "JPEG", quality=100)
    # Adobe's marker is there, and with it the convention that 255 means no ink.
    assert b"Adobe" in stream.getvalue()
    np.testing.assert_allclose(images.load(stream)[8, 8], (0, 1, 1), atol=4 * LEVEL)


@pytest.mark.parametrize(("ink", "expected"), [((0, 0, 0, 0), 1), ((0, 0, 0, 255), 0), ((255, 255, 255, 0), 0)])
def test_cmyk_tiff(ink, expected):
    result = images.load(encoded(Image.new("CMYK", (4, 4), ink), "TIFF"))
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_other_colour_modes(mode):
    picture = Image.fromarray(colours()).convert(mode)
    np.testing.assert_allclose(images.load(picture), unit(colours()), atol=8 * LEVEL)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame(form):
    frames = [Image.new("RGB", (8, 8), name) for name in ("red", "lime", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    stream = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_allclose(images.load(stream)[4, 4], RED, atol=1e-6)


# --- orientation and colour profiles


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("form", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("TIFF", "L"), ("PNG", "I;16")])
def test_exif_orientation(orientation, form, mode):
    if mode == "I;16":
        picture = Image.fromarray(np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80)
    else:
        picture = Image.fromarray(colours()).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, form, exif=exif).getvalue()
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    expected = upright / 65535 if mode == "I;16" else upright / 255
    result = images.load(io.BytesIO(data))
    assert result.shape[:2] == ((24, 32) if orientation <= 4 else (32, 24))
    np.testing.assert_allclose(result[:, :, 0], expected if expected.ndim == 2 else expected[:, :, 0], rtol=1e-6)


def test_orientation_six_is_a_quarter_turn_clockwise():
    picture = Image.new("RGB", (2, 1), "white")
    picture.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    result = images.load(encoded(picture, "PNG", exif=exif))
    np.testing.assert_array_equal(result[:, :, 0], [[0], [1]])


def test_unknown_orientation_and_damaged_exif_change_nothing():
    picture = Image.fromarray(colours())
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(images.load(encoded(picture, "PNG", exif=exif)), unit(colours()))
    damaged = encoded(picture, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff")
    np.testing.assert_array_equal(images.load(damaged), unit(colours()))


def s15(value):
    return struct.pack(">i", round(value * 65536))


def display_profile(columns, gamma):
    """A display profile written by hand: three XYZ primaries (D50) and one gamma (ICC.1:2001, 6.3, 6.5)."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": b"XYZ \0\0\0\0" + s15(0.9642) + s15(1) + s15(0.8249)}
    for letter, column in zip((b"r", b"g", b"b"), columns, strict=True):
        tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(s15, column))
        tags[letter + b"TRC"] = curve
    tags[b"desc"] = b"desc" + struct.pack(">II", 0, 5) + b"test\0" + bytes(78)
    tags[b"cprt"] = b"text\0\0\0\0none\0\0\0\0"
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = 128 + 4 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"", b"acsp")
    header += bytes(28) + s15(0.9642) + s15(1) + s15(0.8249)
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body


SRGB_COLUMNS = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142)]


def srgb_encode(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_profile_with_linear_light_is_converted():
    array = colours()
    stream = encoded(Image.fromarray(array), "PNG", icc_profile=display_profile(SRGB_COLUMNS, 1.0))
    np.testing.assert_allclose(images.load(stream), srgb_encode(array / 255), atol=1.5 * LEVEL)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_profile_with_exchanged_primaries_is_converted(form):
    red, green, blue = SRGB_COLUMNS
    picture = Image.new("RGB", (16, 16), (0, 255, 0))
    stream = encoded(picture, form, icc_profile=display_profile([green, red, blue], 2.2))
    np.testing.assert_allclose(images.load(stream)[8, 8], RED, atol=4 * LEVEL)


def test_srgb_profile_changes_nothing_and_opacity_survives():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    result = images.load(encoded(Image.fromarray(colours()), "PNG", icc_profile=profile))
    np.testing.assert_allclose(result, unit(colours()), atol=1.01 * LEVEL)
    half = Image.new("RGBA", (2, 2), (255, 0, 0, 51))
    np.testing.assert_allclose(
        images.load(encoded(half, "PNG", icc_profile=profile))[0, 0], (1, 0.8, 0.8), atol=1.01 * LEVEL
    )


def test_grey_picture_with_an_rgb_profile():
    stream = encoded(Image.new("L", (2, 2), 128), "PNG", icc_profile=display_profile(SRGB_COLUMNS, 1.0))
    np.testing.assert_allclose(images.load(stream), srgb_encode(np.float64(128 / 255)), atol=1.5 * LEVEL)


def test_lab_picture():
    lab = Image.new("LAB", (4, 4), (128, 128, 128))
    grey = images.load(lab)[0, 0]
    np.testing.assert_allclose(grey, grey[0], atol=2 * LEVEL)
    # L* = 50.2 is a luminance of 0.186 of white.
    assert float(grey[0]) == pytest.approx(float(srgb_encode(np.float64(0.186))), abs=3 * LEVEL)


@pytest.mark.parametrize("kind", ["noise", "cut", "wrong space"])
def test_broken_profile_is_ignored_with_a_warning(kind):
    profile = {
        "noise": b"this is no profile",
        "cut": display_profile(SRGB_COLUMNS, 1.0)[:200],
        "wrong space": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    }[kind]
    stream = encoded(Image.fromarray(colours()), "PNG", icc_profile=profile)
    with pytest.warns(UserWarning, match=r"^\[image\] .*colour profile is damaged or unfit and is ignored$"):
        result = images.load(stream)
    np.testing.assert_array_equal(result, unit(colours()))


def test_within_a_size_is_what_load_and_resize_give():
    """Larger pictures are shrunk to the same values; smaller ones stay as they are."""
    picture = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    for source in (picture, encoded(Image.fromarray(picture), "PNG")):
        np.testing.assert_array_equal(images.load_within(source, 20), images.resize(images.load(picture), 20))
    for size in (50, 80, None):
        np.testing.assert_array_equal(images.load_within(picture, size), images.load(picture))
    with pytest.raises(ImageError, match="1,499"):
        images.load_within(picture, 20, max_pixels=1499)
