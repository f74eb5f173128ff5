"""Reading a picture file of any mode with Pillow; `nstcore.images.load` is the public way in."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import DTypeError, ImageError

if TYPE_CHECKING:
    from PIL import Image, ImageCms

    from nstcore.images import Source

# Raster formats with a signature of their own; nothing here starts another program, as PostScript would.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF")
# What a profile's own colour space is called in Pillow.
_PROFILE_MODES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK", "Lab ": "LAB"}
_TIFF_TILE = (322, 323)
_TIFF_BITS_PER_SAMPLE, _TIFF_SAMPLE_FORMAT, _TIFF_SIGNED = 258, 339, 2

CheckPixels = Callable[[str, tuple[int, int]], None]


def read(source: Source, max_pixels: int, check_pixels: CheckPixels, background: str = "white") -> NDArray[Any]:
    """Decode a path, file object or Pillow image, upright and in sRGB.

    Args:
        source: what `images.load` was given, arrays excepted.
        max_pixels: the limit that Pillow's own checks are held to meanwhile.
        check_pixels: called with a name for messages and `(height, width)` before anything is decoded.
        background: what transparency is laid over.

    Returns:
        uint8 `(h, w, 3)`, or for deep grey pictures float32 `(h, w)` in [0, 1].
    """
    from PIL import Image

    if isinstance(source, Image.Image):
        name = os.fspath(getattr(source, "filename", "")) or "the picture"
        return _decode(source, str(name), max_pixels, check_pixels, background)
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        with open_path(name) as stream, opened(stream, name, max_pixels) as picture:
            return _decode(picture, name, max_pixels, check_pixels, background)
    if not hasattr(source, "read"):
        kinds = "a path, a file object, a Pillow image or a NumPy array"
        raise DTypeError(f"[image] expects {kinds}, got {type(source).__name__}")
    name = str(getattr(source, "name", "the file object"))
    with opened(source, name, max_pixels) as picture:
        return _decode(picture, name, max_pixels, check_pixels, background)


def open_path(name: str) -> io.BufferedReader:
    """A file for reading, or one line that says why not."""
    if os.path.isdir(name):
        raise ImageError(f"[image] {name} is a folder; expects a picture file")
    try:
        return open(name, "rb")
    except FileNotFoundError:
        raise ImageError(f"[image] {name} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"[image] {name} cannot be read: {reason}") from error


def opened(stream: Any, name: str, max_pixels: int) -> Image.Image:
    """Read the header only."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    formats = [each for each in _FORMATS if each in Image.OPEN]
    with damage_as_image_error(name, max_pixels), _pillow_limit(max_pixels):
        try:
            return Image.open(stream, formats=formats)
        except UnidentifiedImageError:
            known = ", ".join(formats)
            raise ImageError(f"[image] {name} is not a picture of a known kind ({known})") from None


def _decode(
    picture: Image.Image, name: str, max_pixels: int, check_pixels: CheckPixels, background: str
) -> NDArray[Any]:
    """Pixels of an opened picture, turned the way its EXIF entry says."""
    check_pixels(name, (picture.height, picture.width))
    with damage_as_image_error(name, max_pixels):
        _check_tiles(picture, name, max_pixels)
        # TIFF is the one format that Pillow measures again while decoding.
        with _pillow_limit(max_pixels) if picture.format == "TIFF" else contextlib.nullcontext():
            picture.load()
        orientation = _orientation(picture, name)
        if picture.mode[0] in "IF":
            pixels = _deep_grey(picture, name)
        else:
            pixels = np.asarray(_opaque(picture, name, background))
    return _upright(pixels, orientation)


def _check_tiles(picture: Image.Image, name: str, max_pixels: int) -> None:
    """A TIFF of few pixels may still claim huge tiles, and decoding allocates a whole one."""
    tags = getattr(picture, "tag_v2", {})
    width, height = (int(tags.get(tag, 0)) for tag in _TIFF_TILE)
    if width * height > max_pixels:
        raise over_limit(f"{name} has tiles of {width}x{height} pixels", max_pixels)


def _orientation(picture: Image.Image, name: str) -> int:
    """EXIF's orientation, 1 where there is none that can be read."""
    with _limit_lock, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            value = picture.getexif().get(0x0112, 1)
        except Exception:  # a damaged EXIF block is no reason to refuse the picture
            value = 1
    if told:  # Pillow says "Truncated File Read" without saying of what
        warnings.warn(f"[image] {name}: its EXIF data is damaged: {told[0].message}", stacklevel=2)
    return value if isinstance(value, int) else 1


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo one of EXIF's eight orientations: axes swapped from 5 on, then each one backwards or not."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _deep_grey(picture: Image.Image, name: str) -> NDArray[np.float32]:
    """Grey of more than 8 bits as float32 `(h, w)`: integers over their full scale, floats as they are."""
    raw = np.asarray(picture)
    full = 1
    if picture.mode != "F":
        bits, signed = _depth(picture)
        full = 2 ** (bits - signed) - 1
        if full > 2**31:
            raw = raw.view(np.uint32)  # Pillow has no unsigned mode of this depth
    low, high = float(raw.min()), float(raw.max())
    if not (low >= 0 and high <= full):
        found = "NaN" if np.isnan(low) else f"{low:g} to {high:g}"
        raise ImageError(f"[image] {name}: grey levels must be from 0 to {full}, got {found}")
    values: NDArray[np.float32] = (raw / np.float64(full)).astype(np.float32)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        values[raw == transparent] = 1.0
    return values


def _depth(picture: Image.Image) -> tuple[int, bool]:
    """Bits of an integer level and whether one of them is a sign; 16 unsigned where the file does not say."""
    tags = getattr(picture, "tag_v2", None)
    if tags is None:
        return 16, False
    signed = tags.get(_TIFF_SAMPLE_FORMAT, (1,))[0] == _TIFF_SIGNED
    return int(tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0]), signed


def _opaque(picture: Image.Image, name: str, background: str) -> Image.Image:
    """An 8-bit picture of any mode as opaque sRGB."""
    from PIL import Image

    if picture.mode in ("La", "RGBa"):  # colours already multiplied by the opacity
        picture = picture.convert(picture.mode.upper())
    profile = picture.info.get("icc_profile")
    if picture.mode in ("1", "L", "LA"):
        colour = picture.convert("L")
    elif picture.mode in ("CMYK", "LAB"):
        colour = picture
    else:
        # By way of RGBA, since Pillow warns of palettes with graded transparency otherwise.
        colour = picture.convert("RGBA") if picture.has_transparency_data else picture
        colour = colour if colour.mode == "RGB" else colour.convert("RGB")
    colour = _to_srgb(colour, profile, name)
    if not picture.has_transparency_data:
        return colour
    opacity = picture.convert("RGBA").getchannel("A")
    return Image.composite(colour, Image.new("RGB", colour.size, background), opacity)


def _to_srgb(picture: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Apply an embedded profile; one that cannot be used is left out, with a warning."""
    from PIL import ImageCms

    if profile is None and picture.mode != "LAB":
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    try:
        source = _profile(profile)
        needed = _PROFILE_MODES.get(source.profile.xcolor_space)
        # Grey pictures often carry the profile of the RGB picture that they were made from.
        matched = picture.convert("RGB") if (picture.mode, needed) == ("L", "RGB") else picture
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(matched, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError, ImportError):
        warnings.warn(f"[image] {name}: its colour profile is damaged or unfit and is ignored", stacklevel=2)
        return _to_srgb(picture, None, name)
    if converted is None:
        raise ImageError(f"[image] {name}: its colour profile gave no picture")
    return converted


def _profile(data: bytes | None) -> ImageCms.ImageCmsProfile:
    """The embedded profile, or that of CIE Lab for the one mode which needs a profile to be seen at all."""
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB") if data is None else io.BytesIO(data))


_limit_lock = threading.RLock()


@contextlib.contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Hold Pillow's own limit to ours for a moment, one thread at a time, and put it back.

    Pillow refuses from twice its limit on and warns from once; half of ours makes it refuse where we do.
    """
    from PIL import Image

    with _limit_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextlib.contextmanager
def damage_as_image_error(name: str, max_pixels: int) -> Iterator[None]:
    """Decoders raise a dozen kinds of errors on damaged data; the caller gets one."""
    from PIL import Image

    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        # The size is not known yet, but Pillow's sentence has the count.
        count = re.search(r"\((\d+) pixels\)", str(error))
        found = f"{int(count[1]):,} pixels" if count else "too many pixels"
        raise over_limit(f"{name} has {found}", max_pixels) from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"[image] {name} is damaged or cut off: {reason}") from error


def over_limit(found: str, max_pixels: int) -> ImageError:
    """The error for a picture with too many pixels, which names the limit and the option that raises it."""
    raised = "raise it with --max-pixels (in Python: max_pixels=)"
    return ImageError(f"[image] {found}, over the limit of {max_pixels:,} pixels; {raised}")
