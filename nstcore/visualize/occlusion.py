"""Occlusion: which parts of a picture a unit needs, found by covering them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor, no_grad
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, ShapeError
from nstcore.nn.module import Module
from nstcore.ops._op import pair
from nstcore.visualize.deconv import Place, check_place, highest_place, is_same, is_within, prepare, window
from nstcore.visualize.network import activations, check_network, check_unit
from nstcore.visualize.receptive_field import Box, ReceptiveField

Array = NDArray[Any]
_BATCH = 8  # covered copies of a picture that go through the network at a time
_SQUARES = 12  # a square's side is the field's over this, unless it is given


@dataclass(frozen=True)
class Occlusion:
    """How a unit's activation falls where the picture is covered.

    values: (rows, columns): the unit's activation with a square at (top, left) = `corners` [row, column].
    activation: with nothing covered. place: (row, column) of the unit. window: height and width of the square.
    box: the unit's receptive field. `drop` gives activation − values for each pixel.
    """

    values: Array
    corners: Array
    window: tuple[int, int]
    activation: float
    place: Place
    box: Box

    def drop(self, height: int, width: int) -> Array:
        """By how much covering a pixel lowers the activation: the mean over the squares that cover it, (height, width).

        height, width: of the picture.
        """
        total, times = np.zeros((height, width)), np.zeros((height, width))
        for (top, left), value in zip(self.corners.reshape(-1, 2), self.values.ravel(), strict=True):
            part = np.s_[max(0, top) : max(0, top + self.window[0]), max(0, left) : max(0, left + self.window[1])]
            total[part] += self.activation - value
            times[part] += 1
        return total / np.maximum(times, 1)


def occlusion(
    net: Any,
    layer: str,
    unit: int,
    image: Array,
    place: Place | None = None,
    *,
    window: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    fill: float = 0.5,
) -> Occlusion:
    """The activation of a unit while a grey square slides over its receptive field: a(x with a square) at each corner.

    net, layer, unit, image, place: as in `deconv`. window: side of the square in pixels, one number or (down, across);
    None: a twelfth of the field's. stride: pixels from one square to the next; None: half of the window.
    fill: grey of the square, in [0, 1].
    Raises `ArgumentError`, `ShapeError`, `DTypeError`, `ImageError`.
    Source: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2, figure 6.

    >>> from nstcore import models
    >>> picture = np.eye(32, dtype=np.float32)[:, :, None].repeat(3, 2)
    >>> found = occlusion(models.vgg16(), "conv2_1", 7, picture, window=4, stride=3)
    >>> found.values.shape, found.drop(32, 32).shape
    ((4, 4), (32, 32))
    """
    if not 0 <= fill <= 1:
        raise ArgumentError(f"[occlusion] expects fill from 0 to 1, got {fill!r}")
    picture, field, values = prepare(check_network(net), layer, image)
    unit = check_unit(layer, unit, values.shape[2])
    place = highest_place(values[:, :, unit]) if place is None else check_place(layer, place, values.shape)
    default = (max(1, field.size[0] // _SQUARES), max(1, field.size[1] // _SQUARES))
    sides = default if window is None else pair("occlusion", "window", window, 1)
    half = (max(1, sides[0] // 2), max(1, sides[1] // 2))
    steps = half if stride is None else pair("occlusion", "stride", stride, 1)
    return occlude(net, layer, unit, picture, field, place, float(values[place][unit]), sides, steps, fill)


def occlude(
    net: Module, layer: str, unit: int, picture: Array, field: ReceptiveField, place: Place, activation: float,
    sides: tuple[int, int], steps: tuple[int, int], fill: float,
) -> Occlusion:  # fmt: skip
    """`occlusion` of checked arguments; only the part of the picture that the unit sees is sent through the network."""
    box = field.box(*place)
    part, inside = window(field, place, picture.shape)
    with no_grad():
        if not is_same(_value(net, layer, unit, picture[part], inside), activation):
            part, inside = np.s_[0 : picture.shape[0], 0 : picture.shape[1]], place
        bounds = [(max(0, box[a]), min(box[a + 2], picture.shape[a])) for a in (0, 1)]
        tops, lefts = (range(low, high, step) for (low, high), step in zip(bounds, steps, strict=True))
        corners = [(top, left) for top in tops for left in lefts]
        values = np.empty(len(corners), picture.dtype)
        for start in range(0, len(corners), _BATCH):
            some = corners[start : start + _BATCH]
            batch = np.repeat(picture[part][None], len(some), axis=0)
            for covered, (top, left) in zip(batch, some, strict=True):
                row, column = top - part[0].start, left - part[1].start
                covered[row : row + sides[0], column : column + sides[1]] = fill
            found = activations(net, Tensor(batch), layer).data[:, inside[0], inside[1], unit]
            values[start : start + _BATCH] = to_host(found)
    shape = (len(tops), len(lefts))
    return Occlusion(values.reshape(shape), np.array(corners).reshape(*shape, 2), sides, activation, place, box)


def _value(net: Module, layer: str, unit: int, picture: Array, place: Place) -> float:
    """A unit's activation at a place of a picture; NaN where there is none."""
    try:
        seen = activations(net, Tensor(np.ascontiguousarray(picture[None])), layer).data
    except ShapeError:
        return np.nan
    return float(seen[0, place[0], place[1], unit]) if is_within(place, seen.shape) else np.nan
