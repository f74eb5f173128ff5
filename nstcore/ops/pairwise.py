"""Squared distances, inner products and cosines between rows, and the nearest rows."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.backend.arrays import as_array
from nstcore.backend.memory import empty
from nstcore.errors import ArgumentError
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_shapes, register
from nstcore.ops.elementwise import operand

METRICS = ("sqeuclidean", "inner", "cosine")  # in the order of the native enumeration


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
    return _pairwise(PAIRWISE_SQDIST, a, b)


def pairwise_inner(a: Any, b: Any) -> Any:
    """Inner product of each row of `a` with each row of `b`: S_ij = Σ_k a_ik b_jk.

    a: (n, d), b: (m, d), both float32 or both float64. Gives (n, m). The gradient is Σ_j g_ij b_j.
    Raises `ShapeError`, `DTypeError`.

    >>> pairwise_inner(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, -1.0]]))
    array([[-1.],
           [-1.]])
    """
    return _pairwise(PAIRWISE_INNER, a, b)


def pairwise_cosine(a: Any, b: Any) -> Any:
    """Cosine of the angle between each row of `a` and each row of `b`: S_ij = a_i·b_j / (‖a_i‖ ‖b_j‖).

    a: (n, d), b: (m, d), both float32 or both float64. Gives (n, m), from −1 to 1 up to rounding. A row of zeros
    has the cosine 0 with every row, and the gradient 0. Rows are divided by their norm first, which is taken in
    float64: neither long nor short rows overflow or vanish. NaN where a row holds one, or infinity.
    Raises `ShapeError`, `DTypeError`.

    >>> pairwise_cosine(np.array([[3.0, 0.0], [0.0, 0.0]]), np.array([[0.5, 0.0], [0.0, -7.0]]))
    array([[1., 0.],
           [0., 0.]])
    """
    return _pairwise(PAIRWISE_COSINE, a, b)


def nearest(queries: Any, points: Any, k: int, metric: str = "sqeuclidean") -> tuple[Array, Array]:
    """The `k` nearest points of each query, exactly: squared distances, ascending, and indices.

    queries: (q, d), points: (m, d), both float32 or both float64; k: 1 to m. Gives (q, k) of the same type
    and (q, k) int64.
    metric: "sqeuclidean", the distances of `pairwise_sqdist`, the smallest first; "inner" and "cosine", the
    similarities of `pairwise_inner` and `pairwise_cosine`, the largest first.
    Equal values come in the order of their index, NaN last. Memory does not grow with q · m. There is no
    gradient: of tensors, the arrays are used.
    Raises `ArgumentError` for a k out of range or an unknown metric, `ShapeError`, `DTypeError`.

    >>> nearest(np.array([[1.0]]), np.array([[5.0], [0.0], [2.0]]), k=2)
    (array([[1., 1.]]), array([[1, 2]]))
    >>> nearest(np.array([[1.0]]), np.array([[5.0], [0.0], [2.0]]), k=2, metric="inner")
    (array([[5., 2.]]), array([[0, 2]]))
    """
    queries, points = (x.data if isinstance(x, Tensor) else as_array(x) for x in (queries, points))
    most = check_shapes(NEAREST, (queries, points))["m"]
    check_dtypes(NEAREST, (queries, points))
    if metric not in METRICS:
        raise ArgumentError(f"[nearest] expects metric to be one of {', '.join(METRICS)}, got {metric!r}")
    try:
        count = 0 if isinstance(k, bool) else operator.index(k)
    except TypeError:
        count = 0
    if not 1 <= count <= most:
        raise ArgumentError(f"[nearest] expects k from 1 to the number of points, {most}, got {k!r}")
    values, indices = apply(NEAREST, (queries, points), k=count, metric=metric)
    return values, indices


def _pairwise(op: Op, a: Any, b: Any) -> Any:
    a, b = operand(a, None), operand(b, None)
    check_shapes(op, (a, b))
    check_dtypes(op, (a, b))
    return apply(op, (a, b))


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


def _inner(a: Array, b: Array) -> Array:
    """The plain formula, row by row."""
    rows = [np.sum(row * b, axis=1, dtype=b.dtype) for row in a]
    return np.stack(rows) if rows else np.zeros((0, len(b)), b.dtype)


def _inner_reference(ctx: Context, a: Array, b: Array) -> Array:
    ctx.save(a, b)
    return _inner(a, b)


def _inner_reference_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    a, b = ctx.saved()
    return _inner(grad, b.T), _inner(grad.T, a.T)


def _unit(a: Array) -> tuple[Array, Array]:
    """Rows of length 1 and one over the length that they had; zeros and 0 for a row of zeros."""
    largest = np.max(np.abs(a), axis=1, keepdims=True, initial=0.0).astype(np.float64)
    with np.errstate(all="ignore"):
        scaled = np.where(largest == 0, 0, a / largest)
        norm = np.sqrt(np.sum(scaled**2, axis=1, keepdims=True))
        inverse = np.where(largest == 0, 0, 1 / norm)
        return (scaled * inverse).astype(a.dtype), np.where(largest == 0, 0, inverse / largest)


def _cosine_reference(ctx: Context, a: Array, b: Array) -> Array:
    ctx.save(a, b)
    return _inner(_unit(a)[0], _unit(b)[0])


def _cosine_reference_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    (u, inverse_a), (v, inverse_b) = (_unit(x) for x in ctx.saved())
    du, dv = _inner(grad, v.T), _inner(grad.T, u.T)
    da = (du - u * np.sum(du * u, axis=1, keepdims=True)) * inverse_a
    db = (dv - v * np.sum(dv * v, axis=1, keepdims=True)) * inverse_b
    return da.astype(u.dtype), db.astype(v.dtype)


def _native_kernel(name: str) -> Kernel:
    """The native kernels of an op whose gradient needs a and b as they are."""

    def forward(ctx: Context, a: Array, b: Array) -> Array:
        from nstcore.backend.cpu import native

        a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
        ctx.save(a, b)
        out = empty((len(a), len(b)), a.dtype)
        getattr(native, f"{name}_forward_cpu")(a, b, out)
        return out

    def backward(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
        from nstcore.backend.cpu import native

        a, b = ctx.saved()
        da = np.empty_like(a) if ctx.needs[0] else None
        db = np.empty_like(b) if ctx.needs[1] else None
        getattr(native, f"{name}_backward_cpu")(a, b, np.ascontiguousarray(grad), da, db)
        return da, db

    return Kernel(forward, backward, (f"{name}_forward_cpu", f"{name}_backward_cpu"))


def _cosine_cpu(ctx: Context, a: Array, b: Array) -> Array:
    from nstcore.backend.cpu import native

    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    units, out = (np.empty_like(a), np.empty_like(b)), empty((len(a), len(b)), a.dtype)
    inverses = np.empty(len(a)), np.empty(len(b))
    native.pairwise_cosine_forward_cpu(a, b, *units, *inverses, out)
    ctx.extra = (*units, *inverses) if any(ctx.needs) else None
    return out


def _cosine_cpu_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    u, v, *inverses = ctx.extra
    da = np.empty_like(u) if ctx.needs[0] else None
    db = np.empty_like(v) if ctx.needs[1] else None
    native.pairwise_cosine_backward_cpu(u, v, *inverses, np.ascontiguousarray(grad), da, db)
    return da, db


def _nearest_reference(
    ctx: Context, queries: Array, points: Array, k: int, metric: str = "sqeuclidean"
) -> tuple[Array, Array]:
    if metric == "sqeuclidean":
        values = keys = _distances(queries, points)
    else:
        values = _inner(queries, points) if metric == "inner" else _inner(_unit(queries)[0], _unit(points)[0])
        keys = -values
    indices = np.argsort(keys, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(values, indices, axis=1), indices.astype(np.int64)


def _nearest_cpu(
    ctx: Context, queries: Array, points: Array, k: int, metric: str = "sqeuclidean"
) -> tuple[Array, Array]:
    from nstcore.backend.cpu import native

    queries, points = np.ascontiguousarray(queries), np.ascontiguousarray(points)
    values = np.empty((len(queries), k), queries.dtype)
    indices = np.empty((len(queries), k), np.int64)
    native.nearest_forward_cpu(queries, points, METRICS.index(metric), values, indices)
    return values, indices


def _cuda_kernel(name: str) -> Kernel:
    """The CUDA kernels of an op whose gradient needs a and b as they are."""

    def forward(ctx: Context, a: Array, b: Array) -> Array:
        from nstcore.backend.cuda import contiguous
        from nstcore.backend.cuda_pairwise import pairwise_forward

        a, b = contiguous(a), contiguous(b)
        ctx.save(a, b)
        out: Array = pairwise_forward(name, a, b)
        return out

    def backward(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
        from nstcore.backend.cuda import contiguous
        from nstcore.backend.cuda_pairwise import pairwise_backward

        (a, b), grad = ctx.saved(), contiguous(grad)
        return tuple(pairwise_backward(name, a, b, grad, i == 1) if ctx.needs[i] else None for i in range(2))

    directions = ("forward", "backward", "backward_turned")
    return Kernel(forward, backward, tuple(f"{name}_{direction}_cuda" for direction in directions))


def _cosine_cuda(ctx: Context, a: Array, b: Array) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_pairwise import pairwise_forward, unit_rows

    (u, inverse_a), (v, inverse_b) = unit_rows(contiguous(a)), unit_rows(contiguous(b))
    ctx.extra = (u, v, inverse_a, inverse_b)
    out: Array = pairwise_forward("pairwise_inner", u, v)
    return out


def _cosine_cuda_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_pairwise import pairwise_backward, unit_rows_backward

    (u, v, *inverses), grad = ctx.extra, contiguous(grad)
    return tuple(
        unit_rows_backward((u, v)[i], inverses[i], pairwise_backward("pairwise_inner", u, v, grad, i == 1))
        if ctx.needs[i]
        else None
        for i in range(2)
    )


def _nearest_cuda(
    ctx: Context, queries: Array, points: Array, k: int, metric: str = "sqeuclidean"
) -> tuple[Array, Array]:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_pairwise import nearest_forward

    values: Array
    indices: Array
    values, indices = nearest_forward(contiguous(queries), contiguous(points), k, metric)
    return values, indices


# Rows around a tile (6 or 14, a group (8) and a block (48 or 112), columns around a panel (4 to 32), and few
# rows (4).
_SHAPES = (
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
)


def _record(name: str, public: Any, reference: Kernel, cpu: Kernel, cuda: Kernel, source: str, **more: Any) -> Op:
    """The record of an op on all pairs of rows."""
    return register(
        Op(
            name,
            "n d, m d -> n m",
            public,
            reference,
            _SHAPES,
            cpu=cpu,
            cuda=cuda,
            # More than a tile (64) of rows, columns and depth.
            cuda_cases=(Case("several tiles", ((131, 70), (77, 70))),),
            flops=lambda a, b: 2.0 * a[0] * b[0] * a[1],
            traffic=lambda a, b: float(a[0] * a[1] + b[0] * b[1] + a[0] * b[0]),
            source=source,
            **more,
        )
    )


PAIRWISE_SQDIST = _record(
    "pairwise_sqdist",
    pairwise_sqdist,
    Kernel(_reference, _reference_back),
    _native_kernel("pairwise_sqdist"),
    _cuda_kernel("pairwise_sqdist"),
    "Schroff, Kalenichenko, Philbin: FaceNet, CVPR 2015, section 3.1 (the squared distances)",
    tolerance=Tolerance(float32=2e-6, float64=4e-15),
)
PAIRWISE_INNER = _record(
    "pairwise_inner",
    pairwise_inner,
    Kernel(_inner_reference, _inner_reference_back),
    _native_kernel("pairwise_inner"),
    _cuda_kernel("pairwise_inner"),
    "Johnson, Douze, Jégou: Billion-scale similarity search with GPUs, 2017, section 2 (similarity search)",
    tolerance=Tolerance(float32=1e-6, float64=2e-15),
)
PAIRWISE_COSINE = _record(
    "pairwise_cosine",
    pairwise_cosine,
    Kernel(_cosine_reference, _cosine_reference_back),
    Kernel(_cosine_cpu, _cosine_cpu_back, ("pairwise_cosine_forward_cpu", "pairwise_cosine_backward_cpu")),
    Kernel(_cosine_cuda, _cosine_cuda_back, ("pairwise_cosine_forward_unit_cuda", "pairwise_cosine_backward_cuda")),
    "Salton, Wong, Yang: A vector space model for automatic indexing, 1975 (the similarity of two vectors)",
    tolerance=Tolerance(float32=1e-6, float64=2e-15),
)
# Points around a tile (6 or 14), a block (48 or 112) and a chunk (512), queries around a panel (4 to 32).
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
            Case("inner, one query", ((1, 9), (700, 9)), {"k": 5, "metric": "inner"}),
            Case("inner, panel plus one", ((33, 17), (1100, 17)), {"k": 7, "metric": "inner"}),
            Case("inner, no depth", ((6, 0), (50, 0)), {"k": 3, "metric": "inner"}),
            Case("cosine, few queries", ((4, 9), (700, 9)), {"k": 5, "metric": "cosine"}),
            Case("cosine, panel plus one", ((33, 17), (1100, 17)), {"k": 7, "metric": "cosine"}),
            Case("cosine, every point", ((17, 3), (20, 3)), {"k": 20, "metric": "cosine"}),
        ),
        cpu=Kernel(_nearest_cpu, None, ("nearest_forward_cpu",)),
        cuda=Kernel(
            _nearest_cuda,
            None,
            ("nearest_forward_sqeuclidean_cuda", "nearest_forward_inner_cuda", "nearest_forward_merge_cuda"),
        ),
        # More than a tile (64) of queries and points, and a split (1024); lists longer than a warp and a tile.
        cuda_cases=(
            Case("several blocks and splits", ((67, 21), (2100, 21)), {"k": 3}),
            Case("long lists", ((5, 3), (1150, 3)), {"k": 70}),
            Case("inner, long lists", ((9, 18), (1150, 18)), {"k": 33, "metric": "inner"}),
            Case("cosine, several blocks", ((67, 70), (150, 70)), {"k": 2, "metric": "cosine"}),
        ),
        tolerance=Tolerance(float32=2e-6, float64=4e-15),
        gradient=False,
        flops=lambda q, p, k, metric="sqeuclidean": 2.0 * q[0] * p[0] * q[1],
        traffic=lambda q, p, k, metric="sqeuclidean": float(q[0] * q[1] + p[0] * p[1] + 9 * q[0] * k),
        source="Johnson, Douze, Jégou: Billion-scale similarity search with GPUs, 2017, section 3",
    )
)
