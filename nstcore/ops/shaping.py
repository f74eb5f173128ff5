"""Operations that move elements: reshape, transpose, indexing, concatenation, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.backend.arrays import as_array, beside, on_device, to_host
from nstcore.errors import ArgumentError, ShapeError
from nstcore.ops._op import IN_PLACE, Array, Case, Kernel, Op, Reach, check_result, pair, register, whole
from nstcore.ops.elementwise import operand


def reshape(x: Any, shape: int | Sequence[int]) -> Any:
    """The same elements, in row-major order, in another shape; one size may be −1."""
    x = operand(x, None)
    wanted = _whole_numbers("reshape", "a shape", shape)
    known = math.prod(s for s in wanted if s != -1)
    fits = x.size == known if -1 not in wanted else wanted.count(-1) == 1 and known and x.size % known == 0
    if not fits or min(wanted, default=0) < -1:
        raise ShapeError(f"[reshape] expects a shape of {x.size} elements, got {wanted} for {x.shape}")
    return apply(RESHAPE, (x,), shape=wanted)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """Axes in another order (reversed by default), as ``numpy.transpose``."""
    x = operand(x, None)
    order = tuple(reversed(range(x.ndim))) if axes is None else _whole_numbers("transpose", "axes", axes)
    positive = tuple(a + x.ndim if a < 0 else a for a in order)
    if sorted(positive) != list(range(x.ndim)):
        raise ShapeError(f"[transpose] expects each axis of {x.shape} once, got {order}")
    return apply(TRANSPOSE, (x,), axes=positive)


def _whole_numbers(name: str, what: str, given: Any) -> tuple[int, ...]:
    """Whole numbers, also those that a method got as one sequence: ``x.reshape((2, 3))``."""
    if isinstance(given, Sequence) and len(given) == 1 and isinstance(given[0], Sequence):
        given = given[0]
    return tuple(whole(name, what, n) for n in (given if isinstance(given, Sequence) else (given,)))


def getitem(x: Any, index: Any) -> Any:
    """x[index] for integers, slices, ``...``, None, masks and index arrays; repeated elements add up their gradients.

    Raises `IndexError`, as NumPy does, for an index outside x.
    """
    parts = index if isinstance(index, tuple) else (index,)
    return apply(GETITEM, (operand(x, None),), index=tuple(map(_plain_index, parts)))


def _plain_index(part: Any) -> Any:
    """One part of an index as NumPy takes it; a list becomes an array, so that it can be watched for changes."""
    if isinstance(part, list):
        return np.asarray(part) if part else np.zeros(0, np.intp)
    return part.data if isinstance(part, Tensor) else part


def concat(parts: Any, axis: int = 0) -> Any:
    """The arrays of a list or tuple one after the other along an existing axis; the other axes must agree."""
    if not isinstance(parts, Sequence):
        kind = type(parts).__name__
        raise ArgumentError(f"[concat] expects a list or tuple of arrays, got {kind} {getattr(parts, 'shape', '')}")
    if not parts:
        raise ArgumentError("[concat] expects at least one array, got none")
    axis = whole("concat", "an axis", axis)
    arrays = tuple(operand(p, None) for p in parts)
    rank = arrays[0].ndim
    if not -rank <= axis < rank:
        raise ShapeError(f"[concat] expects an axis of {arrays[0].shape}, got axis {axis}")
    axis %= rank
    rests = {a.shape[:axis] + a.shape[axis + 1 :] if a.ndim == rank else None for a in arrays}
    if len(rests) != 1:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ShapeError(f"[concat] expects shapes that agree but on axis {axis}, got {shapes}")
    return apply(CONCAT, arrays, axis=axis)


def pad(x: Any, widths: Sequence[tuple[int, int]]) -> Any:
    """Zeros before and after the elements of each axis, as ``numpy.pad``; a part of the gradient is dropped with them.

    x: any shape. widths: (before, after) for each axis, none negative.
    Raises `ShapeError` when there is not one pair for each axis, `ArgumentError` for widths that are no counts.

    >>> pad(np.ones((1, 2)), [(0, 1), (1, 0)])
    array([[0., 1., 1.],
           [0., 0., 0.]])
    """
    x = operand(x, None)
    if not isinstance(widths, Sequence) or len(widths) != x.ndim:
        raise ShapeError(f"[pad] expects one pair of widths for each axis of {x.shape}, got {widths!r}")
    pairs = tuple(pair("pad", "widths", w, 0) for w in widths)
    check_result("pad", [size + sum(both) for size, both in zip(x.shape, pairs, strict=True)], x.dtype.itemsize)
    return apply(PAD, (x,), widths=pairs)


def _reshape(ctx: Context, x: Array, shape: tuple[int, ...]) -> Array:
    ctx.extra = x.shape
    return np.reshape(x, shape)


def _reshape_back(ctx: Context, grad: Array, shape: tuple[int, ...]) -> tuple[Array | None, ...]:
    return (np.reshape(grad, ctx.extra),)


def _transpose(ctx: Context, x: Array, axes: tuple[int, ...]) -> Array:
    return np.transpose(x, axes)


def _transpose_back(ctx: Context, grad: Array, axes: tuple[int, ...]) -> tuple[Array | None, ...]:
    return (np.transpose(grad, sorted(range(len(axes)), key=axes.__getitem__)),)


def _getitem(ctx: Context, x: Array, index: tuple[Any, ...]) -> Array:
    ctx.extra = (x.shape, x.dtype)
    ctx.save(*(p for p in index if isinstance(p, np.ndarray)))
    part: Array = as_array(x[_index_beside(index, x)])
    return part


def _getitem_back(ctx: Context, grad: Array, index: tuple[Any, ...]) -> tuple[Array | None, ...]:
    shape, dtype = ctx.extra
    ctx.saved()  # the index arrays must be what they were
    if _selects_each_once(index):
        total = np.zeros_like(grad, dtype=dtype, shape=shape)
        total[_index_beside(index, grad)] = grad
        return (total,)
    total = np.zeros(shape, dtype)  # of a device too: there, what is added twice would be added in any order
    np.add.at(total, tuple(to_host(p) if on_device(p) else p for p in index), to_host(grad))
    return (beside(total, grad),)


def _index_beside(index: tuple[Any, ...], x: Array) -> tuple[Any, ...]:
    return tuple(beside(p, x) if isinstance(p, np.ndarray) else p for p in index)


def _selects_each_once(index: tuple[Any, ...]) -> bool:
    """Whether no element can be selected twice: integers, slices, ``...``, None and masks only."""
    return all(
        p is None or p is Ellipsis or isinstance(p, (int, slice)) or getattr(p, "dtype", None) == np.bool_
        for p in index
    )


def _concat(ctx: Context, *parts: Array, axis: int) -> Array:
    ctx.extra = [(p.shape[axis], p.dtype) for p in parts]
    return np.concatenate(parts, axis)


def _concat_back(ctx: Context, grad: Array, axis: int) -> tuple[Array | None, ...]:
    ends = list(accumulate(size for size, _ in ctx.extra))[:-1]
    parts = np.split(grad, ends, axis)
    return tuple(part.astype(dtype, copy=False) for part, (_, dtype) in zip(parts, ctx.extra, strict=True))


def _pad(ctx: Context, x: Array, widths: tuple[tuple[int, int], ...]) -> Array:
    ctx.extra = x.shape
    return np.pad(x, widths) if x.ndim else x.copy()


def _pad_back(ctx: Context, grad: Array, widths: tuple[tuple[int, int], ...]) -> tuple[Array | None, ...]:
    inner = tuple(slice(before, before + size) for (before, _), size in zip(widths, ctx.extra, strict=True))
    return (grad[inner],)


def _getitem_reach(x: tuple[int, ...], index: tuple[Any, ...]) -> tuple[Reach, Reach] | None:
    """Of slices with a positive step; None for anything that takes places in another way."""
    if Ellipsis in [part for part in index if not isinstance(part, np.ndarray)]:
        at = [part is Ellipsis for part in index].index(True)
        index = (*index[:at], *(slice(None),) * (len(x) - len(index) + 1), *index[at + 1 :])
    if len(x) != 4 or not all(isinstance(part, slice) for part in index):
        return None
    found = [part.indices(size) for part, size in zip((*index, slice(None), slice(None), slice(None)), x, strict=False)]
    if any(step < 1 for _, _, step in found):
        return None
    down, across = (Reach(stride=step, before=-start) for start, _, step in found[1:3])
    return down, across


def _concat_reach(*shapes: tuple[int, ...], axis: int) -> tuple[Reach, Reach] | None:
    return IN_PLACE if len(shapes[0]) == 4 and axis in (0, 3) else None


def _pad_reach(x: tuple[int, ...], widths: tuple[tuple[int, int], ...]) -> tuple[Reach, Reach] | None:
    return (Reach(before=widths[1][0]), Reach(before=widths[2][0])) if len(x) == 4 else None


RESHAPE = register(
    Op(
        "reshape",
        "... -> ...",
        reshape,
        Kernel(_reshape, _reshape_back),
        (
            Case("flatten", ((2, 3, 4),), {"shape": (-1,)}),
            Case("split", ((6, 4),), {"shape": (2, 3, 4)}),
            Case("empty", ((0, 4),), {"shape": (4, 0)}),
        ),
    )
)
TRANSPOSE = register(
    Op(
        "transpose",
        "... -> ...",
        transpose,
        Kernel(_transpose, _transpose_back),
        (
            Case("reverse", ((2, 3, 4),)),
            Case("rotate", ((2, 3, 4),), {"axes": (1, 2, 0)}),
            Case("negative", ((2, 3),), {"axes": (-1, 0)}),
        ),
    )
)
GETITEM = register(
    Op(
        "getitem",
        "... -> ...",
        getitem,
        Kernel(_getitem, _getitem_back),
        (
            Case("slice", ((5, 4),), {"index": (slice(1, 4), slice(None, None, 2))}),
            Case("row", ((5, 4),), {"index": 2}),
            Case("new axis", ((5, 4),), {"index": (Ellipsis, None, 1)}),
            Case("repeated", ((5, 4),), {"index": np.array([0, 2, 2, 2, 4])}),
            Case("mask", ((5,),), {"index": np.array([True, False, True, True, False])}),
        ),
        reach=_getitem_reach,
    )
)
CONCAT = register(
    Op(
        "concat",
        "..., ... -> ...",
        lambda a, b, axis=0: concat((a, b), axis),
        Kernel(_concat, _concat_back),
        (
            Case("rows", ((2, 3), (4, 3))),
            Case("last axis", ((2, 3), (2, 1)), {"axis": -1}),
            Case("with empty", ((0, 3), (4, 3))),
        ),
        reach=_concat_reach,
    )
)
PAD = register(
    Op(
        "pad",
        "... -> ...",
        pad,
        Kernel(_pad, _pad_back),
        (
            Case("channels and one row", ((2, 3, 3, 4),), {"widths": ((0, 0), (0, 1), (0, 0), (0, 4))}),
            Case("both sides", ((2, 3),), {"widths": ((1, 2), (3, 0))}),
            Case("nothing", ((3,),), {"widths": ((0, 0),)}),
            Case("empty", ((0, 2),), {"widths": ((1, 0), (0, 0))}),
        ),
        reach=_pad_reach,
    )
)
