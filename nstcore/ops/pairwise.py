"""Squared Euclidean distances between rows, and the nearest rows."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.errors import ArgumentError
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_shapes, register
from nstcore.ops.elementwise import operand


def pairwise_sqdist(a: Any, b: Any) -> Any:
    """Squared distance of each row of `a` to each row of `b`: D_ij = Σ_k (a_ik − b_jk)².

    a: (n, d), b: (m, d), both float32 or both float64. Gives (n, m): never negative, exactly 0 where two rows
    are equal, NaN where a row holds one, infinite only where the distance itself is out of range.

    The gradient is 2 Σ_j g_ij (a_i − b_j), as a product: where a_i and b_j agree to many digits, those are
    lost in it.
    Raises `ShapeError`, `DTypeError`.

    >>> pairwise_sqdist(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 0.0]]))
    array([[ 0.],
           [25.]])
    """
    a, b = operand(a, None), operand(b, None)
    check_shapes(PAIRWISE_SQDIST, (a, b))
    check_dtypes(PAIRWISE_SQDIST, (a, b))
    return apply(PAIRWISE_SQDIST, (a, b))


def nearest(queries: Any, points: Any, k: int) -> tuple[Array, Array]:
    """The `k` nearest points of each query, exactly: squared distances, ascending, and indices.

    queries: (q, d), points: (m, d), both float32 or both float64; k: 1 to m. Gives (q, k) of the same type
    and (q, k) int64. Distances are those of `pairwise_sqdist`; equal ones come in the order of their index,
    NaN last. Memory does not grow with q · m. There is no gradient: of tensors, the arrays are used.
    Raises `ArgumentError` for a k out of range, `ShapeError`, `DTypeError`.

    >>> nearest(np.array([[1.0]]), np.array([[5.0], [0.0], [2.0]]), k=2)
    (array([[1., 1.]]), array([[1, 2]]))
    """
    queries, points = (x.data if isinstance(x, Tensor) else np.asarray(x) for x in (queries, points))
    most = check_shapes(NEAREST, (queries, points))["m"]
    check_dtypes(NEAREST, (queries, points))
    try:
        count = 0 if isinstance(k, bool) else operator.index(k)
    except TypeError:
        count = 0
    if not 1 <= count <= most:
        raise ArgumentError(f"[nearest] expects k from 1 to the number of points, {most}, got {k!r}")
    distances, indices = apply(NEAREST, (queries, points), k=count)
    return distances, indices


def _distances(a: Array, b: Array) -> Array:
    """The plain formula, row by row."""
    with np.errstate(all="ignore"):
        rows = [np.sum((row - b) ** 2, axis=1, dtype=b.dtype) for row in a]
    return np.stack(rows) if rows else np.zeros((0, len(b)), b.dtype)


def _reference(ctx: Context, a: Array, b: Array) -> Array:
    ctx.save(a, b)
    return _distances(a, b)


def _reference_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    a, b = ctx.saved()
    da, db = np.zeros_like(a), np.zeros_like(b)
    for i in range(len(a)):
        part = 2 * grad[i, :, None] * (a[i] - b)
        da[i] = np.sum(part, axis=0)
        db -= part
    return da, db


def _cpu(ctx: Context, a: Array, b: Array) -> Array:
    from nstcore.backend.cpu import native

    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    ctx.save(a, b)
    out = np.empty((len(a), len(b)), a.dtype)
    native.pairwise_sqdist_forward_cpu(a, b, out)
    return out


def _cpu_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    a, b = ctx.saved()
    da = np.empty_like(a) if ctx.needs[0] else None
    db = np.empty_like(b) if ctx.needs[1] else None
    native.pairwise_sqdist_backward_cpu(a, b, np.ascontiguousarray(grad), da, db)
    return da, db


def _nearest_reference(ctx: Context, queries: Array, points: Array, k: int) -> tuple[Array, Array]:
    distances = _distances(queries, points)
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, indices, axis=1), indices.astype(np.int64)


def _nearest_cpu(ctx: Context, queries: Array, points: Array, k: int) -> tuple[Array, Array]:
    from nstcore.backend.cpu import native

    queries, points = np.ascontiguousarray(queries), np.ascontiguousarray(points)
    distances = np.empty((len(queries), k), queries.dtype)
    indices = np.empty((len(queries), k), np.int64)
    native.nearest_forward_cpu(queries, points, distances, indices)
    return distances, indices


# Rows around a tile (6 or 14), a group (8) and a block (48 or 112), columns around a panel (4 to 32), and few
# rows (4).
PAIRWISE_SQDIST = register(
    Op(
        "pairwise_sqdist",
        "n d, m d -> n m",
        pairwise_sqdist,
        Kernel(_reference, _reference_back),
        (
            Case("one pair", ((1, 3), (1, 3))),
            Case("few rows", ((4, 17), (37, 17))),
            Case("few columns", ((37, 5), (3, 5))),
            Case("below a tile", ((5, 7), (7, 7))),
            Case("one tile", ((14, 16), (32, 16))),
            Case("tile plus one", ((15, 33), (33, 33))),
            Case("a block plus one", ((113, 20), (49, 20))),
            Case("no rows", ((0, 3), (5, 3))),
            Case("no columns", ((6, 3), (0, 3))),
            Case("no depth", ((6, 0), (5, 0))),
        ),
        cpu=Kernel(_cpu, _cpu_back, ("pairwise_sqdist_forward_cpu", "pairwise_sqdist_backward_cpu")),
        tolerance=Tolerance(float32=2e-6, float64=4e-15),
        flops=lambda a, b: 2.0 * a[0] * b[0] * a[1],
        traffic=lambda a, b: float(a[0] * a[1] + b[0] * b[1] + a[0] * b[0]),
        source="Schroff, Kalenichenko, Philbin: FaceNet, CVPR 2015, section 3.1 (the squared distances)",
    )
)
NEAREST = register(
    Op(
        "nearest",
        "q d, m d -> q k",
        nearest,
        Kernel(_nearest_reference, None),
        (
            Case("one query", ((1, 9), (700, 9)), {"k": 5}),
            Case("few queries, several chunks", ((4, 8), (1100, 8)), {"k": 3}),
            Case("one panel", ((32, 16), (113, 16)), {"k": 1}),
            Case("panel plus one", ((33, 17), (40, 17)), {"k": 7}),
            Case("several chunks", ((9, 5), (1537, 5)), {"k": 6}),
            Case("every point", ((6, 3), (20, 3)), {"k": 20}),
            Case("several blocks", ((150, 6), (61, 6)), {"k": 4}),
            Case("few points", ((70, 4), (3, 4)), {"k": 2}),
            Case("no queries", ((0, 3), (5, 3)), {"k": 2}),
        ),
        cpu=Kernel(_nearest_cpu, None, ("nearest_forward_cpu",)),
        tolerance=Tolerance(float32=2e-6, float64=4e-15),
        gradient=False,
        flops=lambda q, p, k: 2.0 * q[0] * p[0] * q[1],
        traffic=lambda q, p, k: float(q[0] * q[1] + p[0] * p[1] + 9 * q[0] * k),
        source="Johnson, Douze, Jégou: Billion-scale similarity search with GPUs, 2017, section 3",
    )
)
