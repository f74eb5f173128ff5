"""Sums and means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.backend.arrays import as_array
from nstcore.errors import ShapeError
from nstcore.ops._op import Array, Case, Kernel, Op, register, whole
from nstcore.ops.elementwise import mul, numeric_operand, operand

Axis = int | tuple[int, ...] | None


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum over one, several or all axes; float32 input is summed pairwise in float32."""
    x = operand(x, None)
    return apply(SUM, (x,), axis=_axes("sum", x, axis), keepdims=keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Mean over one, several or all axes; of no elements it is an error."""
    x = numeric_operand("mean", x)
    axes = _axes("mean", x, axis)
    count = math.prod(x.shape[a] for a in axes)
    if count == 0:
        raise ShapeError(f"[mean] expects at least one element along axis {axis}, got {x.shape}")
    return mul(apply(SUM, (x,), axis=axes, keepdims=keepdims), 1.0 / count)


def _axes(name: str, x: Any, axis: Axis) -> tuple[int, ...]:
    """`axis` as a sorted tuple of non-negative axes."""
    given = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    chosen = tuple(whole(name, "axes", a) for a in given)
    if any(not -x.ndim <= a < x.ndim for a in chosen) or len({a % x.ndim for a in chosen}) != len(chosen):
        raise ShapeError(f"[{name}] expects distinct axes of {x.shape}, got axis {axis}")
    return tuple(sorted(a % x.ndim for a in chosen))


def _sum(ctx: Context, x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    ctx.extra = x.shape
    total: Array = as_array(np.sum(x, axis=axis, keepdims=keepdims))
    return total


def _sum_back(ctx: Context, grad: Array, axis: tuple[int, ...], keepdims: bool) -> tuple[Array | None, ...]:
    return (np.broadcast_to(grad if keepdims else np.expand_dims(grad, axis), ctx.extra),)


CASES = (
    Case("all", ((3, 4),)),
    Case("last", ((3, 4, 2),), {"axis": -1}),
    Case("several", ((3, 4, 2),), {"axis": (0, 2), "keepdims": True}),
    Case("one", ((1,),)),
)
SUM = register(Op("sum", "... -> ...", sum, Kernel(_sum, _sum_back), (*CASES, Case("empty", ((0, 3),), {"axis": 0}))))
MEAN = register(
    Op(
        "mean",
        "... -> ...",
        mean,
        Kernel(lambda ctx, x, axis=None, keepdims=False: np.mean(x, axis, keepdims=keepdims), None),
        CASES,
    )
)
