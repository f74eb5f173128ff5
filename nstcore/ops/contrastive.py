"""The contrastive loss: pairs of the same stay together, pairs of different ones are pushed a margin apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.backend.arrays import as_array, to_host
from nstcore.errors import ArgumentError, DTypeError
from nstcore.ops._op import Array, Case, Kernel, Op, check_dtypes, check_shapes, register
from nstcore.ops.elementwise import operand

REDUCTIONS = ("sum", "mean")


def contrastive_loss(a: Any, b: Any, same: Any, margin: float = 1.0, reduction: str = "mean") -> Any:
    """L_i = ½ d_i² for a pair of the same class, ½ max(margin − d_i, 0)² for one of two; d_i = ‖a_i − b_i‖.

    a, b: (n, d), both float32 or both float64; same: (n,) of 0 and 1 or booleans, not differentiated; margin: a
    Euclidean distance, at least 0. reduction: "sum", or "mean" over the pairs (0 where there are none). A scalar.
    Two different ones at one point (d = 0) have no direction to part in: their derivative is taken as 0.
    Raises `ShapeError`, `DTypeError`, `ArgumentError`.
    Source: Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006, equation 4
    (with same = 1 − Y).

    >>> contrastive_loss(np.array([[0.0], [0.0]]), np.array([[0.5], [0.5]]), [1, 0], margin=1.5)
    array(0.3125)
    """
    a, b = operand(a, None), operand(b, None)
    labels = same.data if isinstance(same, Tensor) else as_array(same)
    check_shapes(CONTRASTIVE_LOSS, (a, b, labels))
    check_dtypes(CONTRASTIVE_LOSS, (a, b))
    if labels.dtype.kind not in "biu":
        raise DTypeError(f"[contrastive_loss] expects same as 0 and 1 or booleans, got {labels.dtype} {labels.shape}")
    found = np.unique(to_host(labels))
    if not np.isin(found, (0, 1)).all():
        raise ArgumentError(f"[contrastive_loss] expects same as 0 and 1, got {found[:5].tolist()}")
    if isinstance(margin, bool) or not isinstance(margin, (int, float, np.number)) or not 0 <= margin < math.inf:
        raise ArgumentError(f"[contrastive_loss] expects a margin of at least 0, got {margin!r}")
    if reduction not in REDUCTIONS:
        raise ArgumentError(
            f"[contrastive_loss] expects reduction to be one of {', '.join(REDUCTIONS)}, got {reduction!r}"
        )
    return apply(CONTRASTIVE_LOSS, (a, b, labels), margin=float(margin), reduction=reduction)


def _loss(ctx: Context, a: Array, b: Array, same: Array, margin: float = 1.0, reduction: str = "mean") -> Array:
    off = a - b
    squares = np.sum(off * off, axis=1)
    distance = np.sqrt(squares)
    gap = np.maximum(margin - distance, 0)
    share = 1 / max(1, len(a)) if reduction == "mean" else 1.0
    # dL/da = slope (a - b): 1 for the same, -gap / d for different ones.
    apart = np.where(distance > 0, gap / np.where(distance > 0, distance, 1), 0)
    slope = np.where(same == 1, np.ones_like(apart), -apart)
    ctx.save(a, b)
    ctx.extra = slope * share
    total: Array = as_array(0.5 * np.sum(np.where(same == 1, squares, gap * gap), dtype=np.float64) * share, a.dtype)
    return total


def _loss_back(ctx: Context, grad: Array, **_: Any) -> tuple[Array | None, ...]:
    a, b = ctx.saved()
    da = (grad * ctx.extra[:, None] * (a - b)).astype(a.dtype, copy=False)
    return da, -da, None


def _pairs(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    return np.arange(*shape) % 2 if index == 2 else rng.standard_normal(shape)


def _case(label: str, n: int, d: int, **params: Any) -> Case:
    return Case(label, ((n, d), (n, d), (n,)), params, _pairs, (2,))


CONTRASTIVE_LOSS = register(
    Op(
        "contrastive_loss",
        "n d, n d, n -> ",
        contrastive_loss,
        Kernel(_loss, _loss_back),
        (
            _case("pairs", 6, 4, margin=3.0),
            _case("sum", 7, 3, margin=2.0, reduction="sum"),
            _case("far apart", 5, 9, margin=0.1),
            _case("none", 0, 3),
        ),
        source="Hadsell, Chopra, LeCun: Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006, eq. 4",
    )
)
