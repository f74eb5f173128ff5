"""Boxes and names drawn over a picture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from nstcore import images
from nstcore.faces.face import Face

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]
#: of the box: a known face, an unknown one, and one that nobody was asked about. The first two differ in lightness
#: too, for those who cannot tell red from green.
KNOWN: Colour = (46, 204, 113)
UNKNOWN: Colour = (178, 34, 60)
NEUTRAL: Colour = (255, 196, 0)
_LONGEST = 40  # characters of a label that are shown


def draw(image: images.Source, faces: Iterable[tuple[Face, str, bool | None]]) -> images.FloatImage:
    """A picture with a box around each face, its landmarks, and a label beside it.

    Args:
        image: the picture that the faces were found in, as `nstcore.images.load` takes it.
        faces: for each face its label, which may be empty, and True for a known face (green), False for an unknown one
            (red), None where that was not asked (yellow).

    Returns:
        float32 (h, w, 3) in [0, 1], a new picture. Lines and letters grow with the picture and with the face, so that
        they can be read at any size.

    Raises:
        ImageError, ShapeError, DTypeError: what `nstcore.images.load` refuses.

    >>> face = Face((2, 2, 9, 9), np.full((5, 2), 5, np.float32), 1.0)
    >>> draw(np.zeros((12, 12, 3), np.uint8), [(face, "anna", True)]).shape
    (12, 12, 3)
    """
    from PIL import Image, ImageDraw

    levels = np.rint(images.readable(image) * np.float32(255)).astype(np.uint8)
    picture = Image.fromarray(levels)
    pen = ImageDraw.Draw(picture)
    boxes = list(faces)
    for face, _, known in boxes:
        _frame(pen, face, _colour(known), max(picture.size))
    for face, label, known in boxes:  # over all boxes
        if label.strip():
            _label(pen, face, label, _colour(known), picture.size)
    return images.load(picture)


def _colour(known: bool | None) -> Colour:
    return NEUTRAL if known is None else (KNOWN if known else UNKNOWN)


def _frame(pen: ImageDraw.ImageDraw, face: Face, colour: Colour, longest: int) -> None:
    """The box, with a dark line on either side so that it shows on any ground, and a dot for each landmark."""
    line = max(1, round(min(longest / 300, face.width / 12)))
    left, top, right, bottom = (round(edge) for edge in face.box)
    right, bottom = max(right, left), max(bottom, top)
    edge = max(1, line // 3)
    pen.rectangle((left - edge, top - edge, right + edge, bottom + edge), outline=(0, 0, 0), width=line + 2 * edge)
    pen.rectangle((left, top, right, bottom), outline=colour, width=line)
    radius = max(1.0, face.width / 60)
    for x, y in face.landmarks.tolist():
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _label(pen: ImageDraw.ImageDraw, face: Face, label: str, colour: Colour, size: tuple[int, int]) -> None:
    """The text on a plate of the box's colour: above the box, below it where there is no room, else inside it."""
    text = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
    font = _fitting(pen, text, max(11.0, min(max(size) / 45, max(face.width / 5, max(size) / 80))), size[0])
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    room = max(1, round((bottom - top) / 5))
    width, height = right - left + 2 * room, bottom - top + 2 * room
    places = (face.box[1] - height, face.box[3], face.box[1])
    y = next((y for y in places if 0 <= y <= size[1] - height), max(0, size[1] - height))
    x = min(max(0, face.box[0]), max(0, size[0] - width))
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    dark = np.dot(colour, (0.299, 0.587, 0.114)) < 128
    pen.text((x + room - left, y + room - top), text, font=font, fill=(255, 255, 255) if dark else (0, 0, 0))


def _fitting(
    pen: ImageDraw.ImageDraw, text: str, wanted: float, width: int
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at the wanted height, or smaller if the text would be wider than the picture."""
    from PIL import ImageFont

    font = ImageFont.load_default(wanted)
    length = pen.textlength(text, font=font)
    return font if length <= 0.9 * width else ImageFont.load_default(max(6.0, wanted * 0.9 * width / length))
