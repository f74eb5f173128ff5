"""Receptive fields: which pixels of the picture a unit of a layer sees.

Computed from the operations themselves: a blank picture is sent through the network, and every operation says by its
record (`Op.reach`) from which places of its input a place of its result is computed. The derivation of the recurrences
stands in docs/visualize.md.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nstcore.autograd import Tensor
from nstcore.autograd.engine import observe
from nstcore.errors import ShapeError
from nstcore.nn.module import Module
from nstcore.ops._op import Op, Reach, reach_in_place
from nstcore.visualize.network import PROBE, check_layers, check_network, visit, without_work

Pair = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that the units of a layer see: (down, across) each.

    size: height and width of the field, padding included. stride: pixels from a unit's field to its neighbour's.
    start: row and column of the first pixel of the field of the unit at (0, 0); negative where it begins in the
    padding.
    """

    size: Pair
    stride: Pair
    start: Pair

    def box(self, row: int, column: int) -> Box:
        """First row, first column, and the row and column after the last, of the unit at (row, column).

        >>> ReceptiveField((5, 5), (1, 1), (-2, -2)).box(0, 3)
        (-2, 1, 3, 6)
        """
        top = self.start[0] + row * self.stride[0]
        left = self.start[1] + column * self.stride[1]
        return top, left, top + self.size[0], left + self.size[1]


PIXEL = ReceptiveField((1, 1), (1, 1), (0, 0))


def receptive_field(net: Any, layer: str, size: Sequence[int] = PROBE) -> ReceptiveField:
    """The field of the units of one layer of `net`, a network of `nst.models` or any `nn.Module`.

    With k taps, stride s and padding p, a layer turns the field r, the stride j and the first pixel a of the one below
    into r + (k − 1) j, j s and a − p j, down and across each; where two branches meet, the field is the smallest one
    that holds both. Here r counts the padding: `box` says what of it lies outside of a picture.

    layer: a name, see `nst.visualize.layer_names`. size: height and width of the picture that is sent through; they
    matter only for networks whose padding depends on them. Where a layer takes its results from all of its input (a
    mean over the picture), the field is as large as the picture.
    Raises `ArgumentError` for an unknown layer, `ShapeError` when `size` is too small for it.
    Source: Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019, eq. 2–6.

    >>> from nstcore import models
    >>> receptive_field(models.vgg16(), "conv2_1").size
    (10, 10)
    """
    return receptive_fields(net, [layer], size)[layer]


def receptive_fields(net: Any, layers: Iterable[str], size: Sequence[int] = PROBE) -> dict[str, ReceptiveField]:
    """`receptive_field` of several layers in one pass.

    >>> from nstcore import models
    >>> {name: field.size[0] for name, field in receptive_fields(models.vgg16(), ["conv1_2", "conv5_3"]).items()}
    {'conv1_2': 5, 'conv5_3': 196}
    """
    return fields_for(net, check_layers(check_network(net), layers, size), size)


def fields_for(net: Module, names: Sequence[str], size: Sequence[int]) -> dict[str, ReceptiveField]:
    """`receptive_fields` of layers that are known to be there, in a picture of this height and width."""
    found: dict[str, ReceptiveField] = {}

    def trace(picture: Tensor) -> None:
        with traced(picture) as field_of:
            visit(net, picture, names, lambda name, x: found.update({name: field_of(x)}))

    without_work(net, size, trace)
    return {name: found[name] for name in names}


class Fields:
    """The fields of some layers in pictures of any size, which they may depend on; found when they are asked for."""

    def __init__(self, net: Module, names: Sequence[str]) -> None:
        self.net, self.names = net, list(names)
        self.known: dict[tuple[int, int], dict[str, ReceptiveField]] = {}

    def of(self, layer: str, picture: Any) -> ReceptiveField:
        """The field of one layer in a picture (h, w, 3), which may be too small for the others; else `ShapeError`."""
        size = (picture.shape[0], picture.shape[1])
        known = self.known.setdefault(size, {})
        if layer not in known:
            try:
                known.update(fields_for(self.net, self.names, size))
            except ShapeError:
                known.update(fields_for(self.net, [layer], size))
        return known[layer]


@contextmanager
def traced(picture: Tensor) -> Iterator[Callable[[Tensor], ReceptiveField]]:
    """Follow what is computed from `picture` in a ``with`` block; gives a function from a tensor to its field."""
    whole = ReceptiveField((picture.shape[1], picture.shape[2]), (0, 0), (0, 0))
    known: weakref.WeakKeyDictionary[Tensor, ReceptiveField] = weakref.WeakKeyDictionary({picture: PIXEL})

    def after(op: Op, inputs: tuple[Any, ...], params: dict[str, Any], result: Tensor) -> None:
        below = [known[x] for x in inputs if isinstance(x, Tensor) and x in known]
        if not below:
            return
        reach = None
        if op.reach is not None and result.ndim == 4 and not (op.reach is reach_in_place and is_spread(inputs, result)):
            reach = op.reach(*(None if x is None else x.shape for x in inputs), **params)
        known[result] = whole if reach is None or whole in below else _seen_through(_union(below, whole), reach)

    def is_spread(inputs: tuple[Any, ...], result: Tensor) -> bool:
        """Whether one place of what is computed from the picture goes to several, such as (n, 1, 1, c) times a map."""
        return any(isinstance(x, Tensor) and x in known and x.shape[1:3] != result.shape[1:3] for x in inputs)

    def field_of(x: Tensor) -> ReceptiveField:
        if x not in known:
            raise ShapeError("[receptive_field] this layer is not computed from the picture")
        return known[x]

    with observe(after):
        yield field_of


def _union(fields: Sequence[ReceptiveField], whole: ReceptiveField) -> ReceptiveField:
    """The smallest field that holds those of several branches; their strides must agree, or it is the whole picture."""
    if len({field.stride for field in fields}) > 1:
        return whole
    start = tuple(min(field.start[axis] for field in fields) for axis in (0, 1))
    end = tuple(max(field.start[axis] + field.size[axis] for field in fields) for axis in (0, 1))
    return ReceptiveField((end[0] - start[0], end[1] - start[1]), fields[0].stride, (start[0], start[1]))


def _seen_through(field: ReceptiveField, reach: tuple[Reach, Reach]) -> ReceptiveField:
    """The field after one more operation."""
    if field.stride == (0, 0):
        return field
    size, stride, start = zip(
        *(
            (r + (axis.window - 1) * j, j * axis.stride, a - axis.before * j)
            for r, j, a, axis in zip(field.size, field.stride, field.start, reach, strict=True)
        ),
        strict=True,
    )
    return ReceptiveField(size, stride, start)
