"""Launches of ``csrc/pairwise/pairwise_cuda.cu`` and ``nearest_cuda.cu``."""

from __future__ import annotations

from typing import Any

from nstcore.backend.cuda import MOST_BLOCKS, Family, Launch, ceil_div, empty_like, stretches

TILE, THREADS = 64, 256
WARPS = THREADS // 32
# Of the nearest rows: points of a split at least, lists that are merged at most, and blocks that fill the machine.
SPLIT, MOST_SPLITS, ENOUGH_BLOCKS = 1024, 32, 1024


def _pairs(rows: int, columns: int) -> tuple[int, ...]:
    return ceil_div(columns, TILE), ceil_div(rows, TILE)


def _gradient(rows: int, depth: int) -> tuple[int, ...]:
    return ceil_div(rows, TILE), ceil_div(depth, TILE)


def _rows(rows: int) -> tuple[int, ...]:
    return (ceil_div(rows, WARPS),)


PAIRWISE = Family(
    "pairwise",
    {
        "pairwise_sqdist_forward_cuda": Launch(THREADS, _pairs),
        "pairwise_inner_forward_cuda": Launch(THREADS, _pairs),
        "pairwise_sqdist_backward_cuda": Launch(THREADS, _gradient),
        "pairwise_sqdist_backward_turned_cuda": Launch(THREADS, _gradient),
        "pairwise_inner_backward_cuda": Launch(THREADS, _gradient),
        "pairwise_inner_backward_turned_cuda": Launch(THREADS, _gradient),
        "pairwise_cosine_forward_unit_cuda": Launch(THREADS, _rows),
        "pairwise_cosine_backward_cuda": Launch(THREADS, _rows),
    },
)
NEAREST = Family(
    "nearest",
    {
        "nearest_forward_sqeuclidean_cuda": Launch(THREADS, lambda q, splits: (ceil_div(q, TILE), splits)),
        "nearest_forward_inner_cuda": Launch(THREADS, lambda q, splits: (ceil_div(q, TILE), splits)),
        "nearest_forward_merge_cuda": Launch(THREADS, _rows),
    },
    folder="pairwise",
)


def pairwise_forward(name: str, a: Any, b: Any) -> Any:
    """`name` (pairwise_sqdist, pairwise_inner) of the rows of a, (n, d), and b, (m, d); both contiguous."""
    (n, d), m = a.shape, len(b)
    out = empty_like(a, (n, m))
    for rows, to in stretches(MOST_BLOCKS[1] * TILE, a, out):
        PAIRWISE.run(f"{name}_forward_cuda", a, (len(rows), m), rows, b, to, len(rows), m, d)
    return out


def pairwise_backward(name: str, a: Any, b: Any, g: Any, by_b: bool) -> Any:
    """The gradient of `name` by a, or by b."""
    own, other = (b, a) if by_b else (a, b)
    (rows, depth), others = own.shape, len(other)
    dx, kernel = empty_like(own), f"{name}_backward{'_turned' if by_b else ''}_cuda"
    inputs = (own, other, g) if name == "pairwise_sqdist" else (other, g)
    PAIRWISE.run(kernel, own, (rows, depth), *inputs, dx, rows, others, depth)
    return dx


def unit_rows(x: Any) -> tuple[Any, Any]:
    """Rows of length 1 and one over the length that they had, float64; 0 for a row of zeros."""
    unit, inverse = empty_like(x), empty_like(x, (len(x),), "float64")
    PAIRWISE.run("pairwise_cosine_forward_unit_cuda", x, (len(x),), x, unit, inverse, *x.shape)
    return unit, inverse


def unit_rows_backward(unit: Any, inverse: Any, e: Any) -> Any:
    """The gradient by the rows from that by the rows of length 1, in whose place it is written."""
    PAIRWISE.run("pairwise_cosine_backward_cuda", e, (len(e),), unit, inverse, e, *e.shape)
    return e


def nearest_forward(queries: Any, points: Any, k: int, metric: str) -> tuple[Any, Any]:
    """The k best points of each query, values and indices, best first; both contiguous."""
    if metric == "cosine":
        (queries, _), (points, _) = unit_rows(queries), unit_rows(points)
    (q, d), m = queries.shape, len(points)
    values, indices = empty_like(queries, (q, k)), empty_like(queries, (q, k), "int64")
    wanted = min(MOST_SPLITS, ceil_div(m, SPLIT), max(1, ENOUGH_BLOCKS // max(1, ceil_div(q, TILE))))
    split = ceil_div(ceil_div(m, wanted), TILE) * TILE
    splits = ceil_div(m, split)
    squared = metric == "sqeuclidean"
    kernel, sign = f"nearest_forward_{'sqeuclidean' if squared else 'inner'}_cuda", 1.0 if squared else -1.0
    lists = (q, splits, k)
    keys, found = empty_like(queries, lists), empty_like(queries, lists, "int32")
    NEAREST.run(kernel, queries, (q, splits), queries, points, keys, found, q, m, d, k, split)
    merged = (keys, found, values, indices, q, m, k, split, splits, sign)
    NEAREST.run("nearest_forward_merge_cuda", queries, (q,), *merged)
    return values, indices
