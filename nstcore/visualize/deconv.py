"""What in a picture excites a unit: deconvnet, guided backpropagation and the plain gradient, by the tape.

All three carry one unit's activation back to the pixels along the convolutions and the winners of the max pools; they
differ in what a ReLU lets through. See docs/visualize.md.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor, no_grad
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, ShapeError
from nstcore.images import as_images
from nstcore.nn.module import Module
from nstcore.ops.elementwise import ReluRule, relu_backward
from nstcore.visualize.network import activations, check_layers, check_network, check_unit, dtype_of
from nstcore.visualize.receptive_field import Box, ReceptiveField, fields_for

Array = NDArray[Any]
Place = tuple[int, int]
Method = Literal["deconv", "guided", "gradient"]
RULES: dict[str, ReluRule] = {"deconv": "deconvnet", "guided": "guided", "gradient": "gradient"}
# How far a unit's activation in a part of a picture may be from that in the whole: more is another computation.
_SAME = 1e-3


@dataclass(frozen=True)
class Projection:
    """What one unit's activation becomes in the pixels.

    values: (h, w, 3) of either sign, on the unit's receptive field `box` (first row, first column, and after the last);
    0 where the field reaches over the picture's border. place: (row, column) of the unit; activation: its value.
    """

    values: Array
    box: Box
    place: Place
    activation: float


def deconv(
    net: Any, layer: str, unit: int, image: Array, place: Place | None = None, method: Method = "deconv"
) -> Projection:
    """Project one unit of a layer back onto the pixels that excite it.

    With R the reconstruction on its way back and y = max(x, 0) on the way up, a ReLU passes

    - ``"deconv"``: max(R, 0), from the unit's activation a down (Zeiler, Fergus, "Visualizing and Understanding
      Convolutional Networks", ECCV 2014, section 2.1); max pools pass R to the place that won ("switches"), and
      convolutions to their inputs by the transposed filters;
    - ``"guided"``: max(R, 0) · [y > 0], from 1 down (Springenberg et al., "Striving for Simplicity", ICLR 2015
      workshop, section 3.4);
    - ``"gradient"``: R · [y > 0], from 1 down: the derivative of the activation with respect to the pixels (Simonyan,
      Vedaldi, Zisserman, "Deep Inside Convolutional Networks", ICLR 2014 workshop, equation 3).

    net: a network of `nst.models` or any `nn.Module`. image: (h, w, 3), float in [0, 1] or uint8. place: row and column
    of the unit in its layer; None takes the place where its activation is highest.
    What lies between the picture and the network's first layer (means, order of colours) is projected through as well.
    Raises `ArgumentError` for an unknown layer, unit, place or method, `ShapeError`, `DTypeError`, `ImageError`.

    >>> from nstcore import models
    >>> deconv(models.vgg16(), "conv2_1", 7, np.eye(32, dtype=np.float32)[:, :, None].repeat(3, 2)).values.shape
    (10, 10, 3)
    """
    check_network(net)
    if method not in get_args(Method):
        raise ArgumentError(f"[deconv] expects method {', '.join(get_args(Method))}, got {method!r}")
    picture, field, layer_values = prepare(net, layer, image)
    unit = check_unit(layer, unit, layer_values.shape[2])
    if place is None:
        place = highest_place(layer_values[:, :, unit])
    place = check_place(layer, place, layer_values.shape)
    return project(net, layer, unit, picture, field, place, float(layer_values[place][unit]), method)


def prepare(net: Module, layer: str, image: Array) -> tuple[Array, ReceptiveField, Array]:
    """The checked picture (h, w, 3) in the network's type, the layer's field in it, and its activations (h', w', c)."""
    batch = as_images(image)
    if len(batch) != 1:
        raise ShapeError(f"[visualize] expects one picture (h, w, 3), got {np.shape(image)}")
    picture = batch[0].astype(dtype_of(net), copy=False)
    check_layers(net, [layer], picture.shape[:2])
    with no_grad():
        values = to_host(activations(net, Tensor(picture[None]), layer).data)[0]
    return picture, fields_for(net, [layer], picture.shape[:2])[layer], values


def highest_place(plane: Array) -> Place:
    """Row and column of the largest value."""
    row, column = np.unravel_index(int(np.argmax(plane)), plane.shape)
    return int(row), int(column)


def check_place(layer: str, place: Any, shape: tuple[int, ...]) -> Place:
    """`place` as (row, column) within a layer of this shape; `ArgumentError` otherwise."""
    try:
        row, column = (operator.index(n) for n in place)
    except (TypeError, ValueError):
        row = column = -1
    if not (0 <= row < shape[0] and 0 <= column < shape[1]):
        raise ArgumentError(
            f"[visualize] expects a place of {layer} from (0, 0) to ({shape[0] - 1}, {shape[1] - 1}), got {place!r}"
        )
    return row, column


def project(
    net: Module, layer: str, unit: int, picture: Array, field: ReceptiveField, place: Place, activation: float,
    method: Method,
) -> Projection:  # fmt: skip
    """`deconv` of checked arguments, where the unit's activation is known.

    Only the part of the picture that the unit sees is sent through the network. Where that changes the activation (its
    padding depends on the picture's size), all of it is.
    """
    part, inside = window(field, place, picture.shape)
    try:
        values, found = _back(net, layer, unit, picture[part], inside, activation, method)
    except ShapeError:  # a part that the network cannot be computed of
        found = np.nan
    if not is_same(found, activation):
        part = (slice(0, picture.shape[0]), slice(0, picture.shape[1]))
        values, found = _back(net, layer, unit, picture, place, activation, method)
    box = field.box(*place)
    return Projection(cut(values, box, (part[0].start, part[1].start)), box, place, found)


def is_same(found: float, activation: float) -> bool:
    """Whether a unit has the same activation in a part of a picture as in the whole, to rounding; NaN never is."""
    return abs(found - activation) <= _SAME * max(abs(activation), 1e-6)


def is_within(place: Place, shape: tuple[int, ...]) -> bool:
    """Whether activations of this shape, (n, h', w', c), have the place."""
    return 0 <= place[0] < shape[1] and 0 <= place[1] < shape[2]


def _back(
    net: Module, layer: str, unit: int, picture: Array, place: Place, activation: float, method: Method
) -> tuple[Array, float]:
    """One unit's activation carried back through all of `picture`, and what the activation is there."""
    x = Tensor(np.ascontiguousarray(picture[None]), requires_grad=True)
    with frozen(net), relu_backward(RULES[method]):
        y = activations(net, x, layer)
        if not is_within(place, y.shape):
            return np.zeros_like(picture), np.nan
        found = float(y.data[0, place[0], place[1], unit])
        seed = np.zeros_like(y.data)
        seed[0, place[0], place[1], unit] = activation if method == "deconv" else 1.0
        y.backward(seed)
    assert x.grad is not None
    return x.grad[0], found


def window(field: ReceptiveField, place: Place, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], Place]:
    """The part of a picture that a unit sees, begun at a multiple of the layer's stride, and its place in that part.

    At such an offset every pool and every strided convolution has the windows that it has in the whole picture; and
    where the field reaches over the border the part ends there too, so that the same zeros are padded.
    """
    slices, inside = [], []
    for axis, index in enumerate(place):
        stride = field.stride[axis]
        first = field.start[axis] + index * stride
        skipped = max(0, first) // stride if stride else 0
        slices.append(slice(skipped * stride, max(1, min(shape[axis], first + field.size[axis]))))
        inside.append(index - skipped)
    return (slices[0], slices[1]), (inside[0], inside[1])


def cut(picture: Array, box: Box, origin: Place = (0, 0), fill: Any = 0) -> Array:
    """The pixels of `box`, of a picture whose first one is at `origin`; `fill` where there are none."""
    top, left, bottom, right = (n - origin[i % 2] for i, n in enumerate(box))
    found = np.empty((bottom - top, right - left, picture.shape[2]), picture.dtype)
    found[...] = fill
    rows = slice(max(top, 0), max(0, min(bottom, picture.shape[0])))
    columns = slice(max(left, 0), max(0, min(right, picture.shape[1])))
    part = picture[rows, columns]
    at = (max(-top, 0), max(-left, 0))
    found[at[0] : at[0] + part.shape[0], at[1] : at[1] + part.shape[1]] = part
    return found


@contextmanager
def frozen(net: Module) -> Iterator[None]:
    """Compute no gradients for the parameters of `net` inside a ``with`` block."""
    wanted = [p for p in net.parameters() if p.requires_grad]
    for p in wanted:
        p.requires_grad = False
    try:
        yield
    finally:
        for p in wanted:
            p.requires_grad = True
