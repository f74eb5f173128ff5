"""Pictures that must be refused: too large, too small, damaged, or not pictures."""

from __future__ import annotations

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nstcore import images
from nstcore.errors import ArgumentError, DTypeError, ImageError, ShapeError


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


def header_only_png(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("side", [10_001, 12_000, 14_200, 50_000])
def test_huge_picture_is_refused_from_its_header(tmp_path, side):
    path = tmp_path / "huge.png"
    path.write_bytes(header_only_png(side, side))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError) as caught:
        images.load(path)
    message = str(caught.value)
    assert f"{side * side:,} pixels" in message or f"{side}x{side} pixels" in message
    for part in ("huge.png", "limit of 100,000,000 pixels", "--max-pixels", "max_pixels="):
        assert part in message
    assert "\n" not in message
    assert before == Image.MAX_IMAGE_PIXELS


def test_limit_is_exact_and_can_be_moved():
    stream = encoded(Image.fromarray(colours()), "PNG")
    assert images.load(stream, max_pixels=24 * 32).shape == (24, 32, 3)
    for limit in (24 * 32 - 1, 24 * 16, 10, 1):
        with pytest.raises(ImageError, match=rf"(768|32x24) pixels, over the limit of {limit} pixels"):
            images.load(stream, max_pixels=limit)
        with pytest.raises(ImageError, match=rf"32x24 pixels, over the limit of {limit} pixels"):
            images.load(colours(), max_pixels=limit)


def test_pillow_limit_neither_hinders_nor_is_changed(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for form in ("PNG", "GIF", "TIFF", "WEBP"):
        assert images.load(encoded(Image.fromarray(colours()), form)).shape == (24, 32, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="over the limit"):
        images.load(encoded(Image.fromarray(colours()), "PNG"), max_pixels=100)
    assert Image.MAX_IMAGE_PIXELS is None


def test_huge_tiles_in_a_small_tiff_are_refused():
    """A TIFF whose picture is 16x16 but whose one tile claims 40000x40000."""
    entries = [
        (256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1),
        (322, 4, 40000), (323, 4, 40000), (324, 4, 8), (325, 4, 4),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    stream = io.BytesIO(b"II*\0" + struct.pack("<I", 12) + bytes(4) + directory + bytes(4))
    with pytest.raises(ImageError, match="has tiles of 40000x40000 pixels, over the limit"):
        images.load(stream)


def test_limit_survives_threads():
    data = encoded(Image.fromarray(colours()), "TIFF").getvalue()
    before, failures = Image.MAX_IMAGE_PIXELS, []

    def work(limit):
        for _ in range(20):
            try:
                images.load(io.BytesIO(data), max_pixels=limit)
                refused = False
            except ImageError:
                refused = True
            if refused != (limit < 24 * 32):
                failures.append(limit)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (100, 768, 10**8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert before == Image.MAX_IMAGE_PIXELS


def test_result_too_large_is_refused():
    with pytest.raises(ImageError, match="would become 20000x20000 pixels, over the limit"):
        images.load(np.zeros((2, 2, 3), np.uint8), size=20_000)


def test_too_small():
    Image.new("RGB", (1, 1)).save(stream := io.BytesIO(), "PNG")
    stream.name = "photo.png"
    with pytest.raises(ImageError, match=r"\[image\] photo.png is 1x1 pixels; at least 16x16 are needed"):
        images.load(stream, min_side=16)
    assert images.load(stream).shape == (1, 1, 3)
    with pytest.raises(ImageError, match="is 40x15 pixels; at least 16x16"):
        images.load(np.zeros((15, 40)), min_side=16)


def test_unreadable_files_have_one_clear_line(tmp_path):
    (tmp_path / "notes.jpg").write_text("These are notes, not a photograph, although the suffix says so.")
    (tmp_path / "empty.png").write_bytes(b"")
    # PostScript would need another program: it is not among the kinds that are read.
    (tmp_path / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    expected = {
        "missing.jpg": "does not exist",
        "": "is a folder",
        "notes.jpg": "is not a picture of a known kind",
        "empty.png": "is not a picture of a known kind",
        "drawing.eps": "is not a picture of a known kind",
        "bad\0name.jpg": "cannot be read",
    }
    for name, rule in expected.items():
        with pytest.raises(ImageError) as caught:
            images.load(f"{tmp_path}/{name}")
        message = str(caught.value)
        assert message.startswith("[image] ")
        assert rule in message
        assert "\n" not in message


def test_unreadable_by_permission(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match=r"photo.jpg cannot be read: Permission denied"):
        images.load(tmp_path / "photo.jpg")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_truncated(tmp_path, form, part):
    noise = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form).getvalue()
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageError, match=r"^\[image\] \S*cut.img is (damaged or cut off: |not a picture)[^\n]*$"):
        images.load(path)


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP"]),
    place=st.floats(0, 1, exclude_max=True),
    value=st.binary(min_size=1, max_size=6),
)
@pytest.mark.filterwarnings("ignore")
def test_altered_bytes_never_escape_as_another_error(form, place, value):
    data = bytearray(encoded(Image.fromarray(colours()), form).getvalue())
    start = int(place * len(data))
    data[start : start + len(value)] = value
    try:
        result = images.load(io.BytesIO(bytes(data)), max_pixels=10**6)
    except ImageError:
        return
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.full((2, 2, 3), 1.5), ImageError, "values from 1.5 to 1.5"),
        (np.full((2, 2, 3), -0.1), ImageError, "values from -0.1"),
        (np.full((2, 2, 3), np.nan), ImageError, "got NaN"),
        (np.zeros((2, 2, 5)), ShapeError, "got (2, 2, 5)"),
        (np.zeros((0, 2, 3)), ShapeError, "got (0, 2, 3)"),
        (np.zeros(4), ShapeError, "got (4,)"),
        (np.zeros((2, 2, 3), np.int32), DTypeError, "got int32"),
        (np.zeros((2, 2, 3), bool), DTypeError, "got bool"),
    ],
)
def test_bad_arrays(tmp_path, array, error, message):
    for call in (images.load, lambda a: images.save(tmp_path / "x.png", a)):
        with pytest.raises(error) as caught:
            call(array)
        assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_bad_options():
    array = np.zeros((4, 4, 3))
    for options in ({"size": 0}, {"size": 2.5}, {"size": True}, {"max_pixels": -1}, {"min_side": 0}):
        with pytest.raises(ArgumentError, match="must be a whole number of at least 1"):
            images.load(array, **options)
    with pytest.raises(DTypeError, match="got int"):
        images.load(3)
