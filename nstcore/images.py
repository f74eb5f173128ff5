"""Pictures: reading any kind into RGB floats, resizing, and writing them back.

A picture is a NumPy array `(h, w, 3)`, RGB in the sRGB colour space, float32 in [0, 1].
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nstcore import _decode, files
from nstcore.errors import ArgumentError, DTypeError, ImageError, OutputError, ShapeError

if TYPE_CHECKING:
    from PIL import Image

    Source = str | os.PathLike[str] | BinaryIO | Image.Image | NDArray[Any]

FloatImage = NDArray[np.float32]

MAX_PIXELS = 100_000_000
# Of the files of a folder that are taken for pictures.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".ppm", ".pgm", ".jp2", ".avif", ".heic")
)
# Suffix -> Pillow's name of the format and the longest side that the format can hold.
_OUTPUT_FORMATS = {
    ".jpg": ("JPEG", 65_500),
    ".jpeg": ("JPEG", 65_500),
    ".png": ("PNG", 2**31 - 1),
    ".webp": ("WEBP", 16_383),
}


def load(source: Source, *, size: int | None = None, min_side: int = 1, max_pixels: int = MAX_PIXELS) -> FloatImage:
    """Read a picture of any kind as RGB floats.

    Rotation by EXIF is carried out, an embedded colour profile is converted to sRGB, transparency is laid
    over white, and an animation gives its first frame.  Colour files of 16 bits a channel are read with
    8 bits; grey ones keep all their bits (but their profile is not applied), and float TIFFs are expected
    in [0, 1].

    Args:
        source: a path, a binary file object, a Pillow image, or an array `(h, w)`, `(h, w, 1)`, `(h, w, 3)`
            or `(h, w, 4)` (the fourth channel is opacity) of uint8 in 0-255 or float in [0, 1].
        size: length of the longer side of the result in pixels; None keeps the picture's own.
        min_side: the smallest height and width that the picture itself may have.
        max_pixels: the most pixels that it may have, found from the header before anything is decoded.

    Returns:
        float32 `(h, w, 3)` in [0, 1], a new array.

    Raises:
        ImageError: no such file, not a picture, damaged, too large or small, or values outside [0, 1].
        ShapeError, DTypeError, ArgumentError: an array or an option that means nothing.

    Example:
        >>> load(np.full((2, 4), 255, np.uint8), size=2).shape
        (1, 2, 3)
    """
    return _load(source, size, True, min_side, max_pixels)


def load_within(source: Source, size: int | None, *, max_pixels: int = MAX_PIXELS) -> FloatImage:
    """As `load`, but a picture whose longer side is at most `size` keeps its own.

    >>> load_within(np.full((2, 4), 255, np.uint8), 8).shape, load_within(np.full((2, 4), 255, np.uint8), 2).shape
    ((2, 4, 3), (1, 2, 3))
    """
    return _load(source, size, False, 1, max_pixels)


def is_picture_name(name: str) -> bool:
    """Whether a file of a folder is taken for a picture: by its suffix, and unless it is hidden.

    >>> is_picture_name("a.JPG"), is_picture_name(".a.jpg"), is_picture_name("a.txt")
    (True, False, False)
    """
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def load_over_black(source: Source, *, max_pixels: int = MAX_PIXELS) -> FloatImage:
    """As `load`, but transparency is laid over black: for masks, in which black and transparent mean the same.

    >>> load_over_black(np.uint8([[[255, 255, 255, 0], [255, 255, 255, 255]]]))[0, :, 0].tolist()
    [0.0, 1.0]
    """
    return _load(source, None, True, 1, max_pixels, "black")


def _load(
    source: Source, size: int | None, enlarge: bool, min_side: int, max_pixels: int, background: str = "white"
) -> FloatImage:
    for option, value in (("size", size), ("min_side", min_side), ("max_pixels", max_pixels)):
        if value is not None:
            _check_positive(option, value)
    most = size if enlarge else None

    def check(name: str, shape: tuple[int, ...]) -> None:
        _check_pixels(name, shape, min_side, max_pixels, most)

    if isinstance(source, np.ndarray):
        _check_picture_array("image", source, channels=(1, 3, 4))
        check("the array", source.shape[:2])
        pixels = _blend_array(source, 1.0 if background == "white" else 0.0)
    else:
        pixels = _decode.read(source, max_pixels, check, background)
    if size is not None and (enlarge or max(pixels.shape[:2]) > size):
        pixels = _resize_to(pixels, *_fitted(pixels.shape[:2], size))
    result = _unit_floats(pixels).astype(np.float32, copy=pixels is source)
    return np.repeat(result[:, :, None], 3, axis=2) if result.ndim == 2 else result


def readable(source: Source, *, max_pixels: int = MAX_PIXELS) -> FloatImage:
    """As `load`, but a float32 array (h, w, 3) in [0, 1] is given as it is: for whoever only reads it.

    Raises what `load` raises.

    >>> picture = np.zeros((2, 4, 3), np.float32)
    >>> readable(picture) is picture
    True
    """
    if not isinstance(source, np.ndarray) or source.dtype != np.float32 or source.ndim != 3 or source.shape[2] != 3:
        return load(source, max_pixels=max_pixels)
    _check_positive("max_pixels", max_pixels)
    _check_picture_array("image", source)
    _check_pixels("the array", source.shape[:2], 1, max_pixels, None)
    return source


def resize(image: NDArray[Any], size: int) -> FloatImage:
    """Resize a picture so that its longer side is `size`, keeping its proportions.

    Args:
        image: `(h, w)` or `(h, w, c)`, float in [0, 1] or uint8.
        size: the new longer side in pixels; the shorter one is rounded and at least 1.

    Returns:
        float32 in [0, 1]; see `resize_to`.

    Example:
        >>> resize(np.zeros((30, 60, 3), np.float32), 20).shape
        (10, 20, 3)
    """
    _check_positive("size", size)
    _check_picture_array("resize", image)
    return _resize_to(image, *_fitted(image.shape[:2], size))


def resize_to(image: NDArray[Any], height: int, width: int) -> FloatImage:
    """Resize a picture to a height and a width, computing in float32 throughout.

    Shrinking uses a Lanczos filter of three lobes stretched over the source pixels (antialiased), enlarging a
    bicubic one.  Both can overshoot at edges, so the result is clipped to [0, 1].

    Args:
        image: `(h, w)` or `(h, w, c)`, float in [0, 1] or uint8.
        height, width: of the result, in pixels.

    Returns:
        float32 in [0, 1], `(height, width)` or `(height, width, c)`, never the memory of `image`.

    Raises:
        ShapeError, DTypeError, ImageError: not a picture, or values outside [0, 1].

    Example:
        >>> float(resize_to(np.full((8, 8), 0.5, np.float32), 3, 5).mean())
        0.5
    """
    _check_positive("height", height)
    _check_positive("width", width)
    _check_picture_array("resize", image)
    return _resize_to(image, height, width)


def as_images(x: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Bring one picture or a batch to the float batch that the models take.

    Args:
        x: `(h, w, 3)` or `(n, h, w, 3)`; uint8 is read as 0-255, floats are in [0, 1].

    Returns:
        `(n, h, w, 3)` in [0, 1]: float64 where x is float64, else float32.  Float arrays are not copied.

    Raises:
        ShapeError, DTypeError: another shape or element type.
        ImageError: a value outside [0, 1], or NaN.

    Example:
        >>> as_images(np.full((2, 2, 3), 255, np.uint8)).shape
        (1, 2, 2, 3)
    """
    array = np.asarray(x)
    if array.ndim not in (3, 4) or array.shape[-1] != 3 or array.size == 0:
        raise ShapeError(f"[image] expects (h, w, 3) or (n, h, w, 3), got {array.shape}")
    _check_values("image", array)
    batch = _unit_floats(array)
    return batch if batch.ndim == 4 else batch[None]


def check_suffix(path: files.PathLike) -> str:
    """The format that `save` would write for this path, as "JPEG", "PNG" or "WEBP".

    Raises:
        OutputError: the suffix belongs to none of them.

    Example:
        >>> check_suffix("result.JPG")
        'JPEG'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _OUTPUT_FORMATS:
        known = ", ".join(_OUTPUT_FORMATS)
        raise OutputError(f"[output] {path}: the suffix must be one of {known}; got {suffix or 'none'}")
    return _OUTPUT_FORMATS[suffix][0]


def check_size(path: files.PathLike, height: int, width: int) -> None:
    """Raise `OutputError` where the format of the path's suffix cannot hold so many pixels."""
    form, longest = check_suffix(path), _OUTPUT_FORMATS[Path(path).suffix.lower()][1]
    if max(height, width) > longest:
        raise OutputError(f"[output] {form} holds at most {longest} pixels a side, got {width}x{height}; use .png")


def save(path: files.PathLike, image: NDArray[Any], *, quality: int = 95) -> None:
    """Write a picture as JPEG, PNG or WebP by the path's suffix, whole or not at all.

    Values are rounded to the nearest of 256 levels.  JPEG keeps the colour of every pixel (4:4:4); the colour
    space is sRGB, which PNG states and the others take for granted.

    Args:
        path: where to write; its folder exists.
        image: `(h, w, 3)` or grey `(h, w)`, float in [0, 1] or uint8.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        OutputError: unknown suffix, a picture larger than the format allows, or a place that refuses.
        ImageError: a value outside [0, 1], or NaN.
    """
    from PIL import Image, PngImagePlugin

    form = check_suffix(path)
    if isinstance(quality, bool) or not isinstance(quality, (int, np.integer)) or not 1 <= quality <= 100:
        raise ArgumentError(f"[image] quality must be a whole number from 1 to 100, got {quality!r}")
    _check_picture_array("image", image, channels=(3,))
    check_size(path, *image.shape[:2])
    options: dict[str, Any] = {"quality": int(quality)}
    if form == "JPEG":
        options["subsampling"] = 0
    if form == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add(b"sRGB", b"\0")
        options = {"pnginfo": chunks}
    levels = image if image.dtype == np.uint8 else np.rint(_unit_floats(image) * 255).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(levels))
    files.atomic_write(path, functools.partial(picture.save, format=form, **options))


def to_bytes(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Floats in [0, 1] as the nearest of 256 levels, uint8; what lies outside becomes 0 or 255.

    >>> to_bytes(np.array([-0.1, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    return np.asarray(np.rint(np.clip(image, 0, 1) * 255), np.uint8)


def _resize_to(image: NDArray[Any], height: int, width: int) -> FloatImage:
    """Channel by channel, so that no float copy of a whole large picture is ever made."""
    from PIL import Image

    shrinks = height < image.shape[0] or width < image.shape[1]
    method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    planes = image[:, :, None] if image.ndim == 2 else image
    result = np.empty((height, width, planes.shape[2]), np.float32)
    for channel in range(planes.shape[2]):
        plane = _unit_floats(planes[:, :, channel]).astype(np.float32, copy=False)
        resized = Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), method)
        np.clip(np.asarray(resized), 0.0, 1.0, out=result[:, :, channel])
    return result[:, :, 0] if image.ndim == 2 else result


def _fitted(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Height and width with the longer one equal to size."""
    scale = size / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _unit_floats(array: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """uint8 as float32 in [0, 1]; float64 stays, other floats become float32."""
    if array.dtype == np.uint8:
        return np.asarray(np.divide(array, np.float32(255), dtype=np.float32))
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def _blend_array(array: NDArray[Any], background: float = 1.0) -> NDArray[Any]:
    """A caller's array as `(h, w)` or `(h, w, 3)`, its opacity used up on white."""
    if array.ndim == 3 and array.shape[2] == 1:
        return array[:, :, 0]
    if array.ndim == 2 or array.shape[2] == 3:
        return array
    floats = _unit_floats(array)
    opacity = floats[:, :, 3:]
    return np.asarray(np.minimum(floats[:, :, :3] * opacity + background * (1 - opacity), 1))


def _check_positive(option: str, value: int) -> None:
    """Whole numbers from 1 up."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(f"[image] {option} must be a whole number of at least 1, got {value!r}")


def _check_picture_array(what: str, image: NDArray[Any], channels: tuple[int, ...] | None = None) -> None:
    """`(h, w)` or `(h, w, c)`, not empty, of a known element type and range."""
    if not isinstance(image, np.ndarray):
        raise DTypeError(f"[{what}] expects a NumPy array, got {type(image).__name__}")
    fits = image.ndim == 2 or (image.ndim == 3 and (channels is None or image.shape[2] in channels))
    if not fits or image.size == 0:
        count = "c" if channels is None else " or ".join(map(str, channels))
        raise ShapeError(f"[{what}] expects (h, w) or (h, w, {count}), got {image.shape}")
    _check_values(what, image)


def _check_values(what: str, array: NDArray[Any]) -> None:
    """uint8, or floats in [0, 1]."""
    if array.dtype == np.uint8:
        return
    if not np.issubdtype(array.dtype, np.floating):
        raise DTypeError(f"[{what}] expects uint8 in 0-255 or float in [0, 1], got {array.dtype}")
    low, high = array.min(), array.max()
    # NaN fails every comparison, so the test is written for what must hold.
    if not (low >= 0 and high <= 1):
        found = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}"
        raise ImageError(f"[{what}] expects floats in [0, 1], got {found}")


def _check_pixels(name: str, shape: tuple[int, ...], min_side: int, max_pixels: int, size: int | None) -> None:
    """Neither the picture nor what it is resized to may have too many pixels, nor the picture too few."""
    height, width = shape
    if height * width > max_pixels:
        raise _decode.over_limit(f"{name} is {width}x{height} pixels", max_pixels)
    if min(height, width) < min_side:
        needed = f"at least {min_side}x{min_side} are needed"
        raise ImageError(f"[image] {name} is {width}x{height} pixels; {needed}")
    if size is not None:
        new_height, new_width = _fitted(shape, size)
        if new_height * new_width > max_pixels:
            raise _decode.over_limit(f"{name} would become {new_width}x{new_height} pixels", max_pixels)
