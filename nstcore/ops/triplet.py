"""Triplet losses, and what a labelled batch looks like to them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.backend.arrays import as_array, to_host
from nstcore.backend.memory import empty
from nstcore.errors import ArgumentError, DTypeError
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_shapes, register
from nstcore.ops.elementwise import operand
from nstcore.ops.pairwise import pairwise_sqdist

REDUCTIONS = ("sum", "mean", "mean_active")
MININGS = ("batch_all", "semi_hard", "batch_hard")  # in the order of the native enumeration
COLLAPSED = 0.01  # share of the margin below which mean distances count as none


def triplet_loss(anchor: Any, positive: Any, negative: Any, margin: float = 0.2, reduction: str = "sum") -> Any:
    """Triplet loss of given encodings: L_i = max(‖a_i − p_i‖² − ‖a_i − n_i‖² + margin, 0).

    anchor, positive, negative: (n, d), all float32 or all float64; margin: squared distance, at least 0.
    reduction: "sum" (the course's J), "mean" over all, "mean_active" over those with L_i > 0. Gives a scalar;
    0 where there is nothing to average. The derivative at L_i = 0 is 0.
    Raises `ShapeError`, `DTypeError`, `ArgumentError`.
    Source: Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, equation 3.

    >>> triplet_loss(np.array([[0.0]]), np.array([[1.0]]), np.array([[1.0]]), margin=0.25)
    array(0.25)
    """
    arrays = tuple(operand(x, None) for x in (anchor, positive, negative))
    check_shapes(TRIPLET_LOSS, arrays)
    check_dtypes(TRIPLET_LOSS, arrays)
    _check_choice("triplet_loss", "reduction", reduction, REDUCTIONS)
    return apply(TRIPLET_LOSS, arrays, margin=_check_margin("triplet_loss", margin), reduction=reduction)


def batch_triplet_loss(
    z: Any, labels: Any, margin: float = 0.2, mining: str = "batch_all", reduction: str = "mean_active"
) -> Any:
    """Triplet loss over the triplets of a labelled batch: max(D_ap − D_an + margin, 0), D squared distances.

    z: (b, d) float32 or float64; labels: (b,) integers, not differentiated. A triplet has labels a = p ≠ n
    and a ≠ p; every ordered pair (a, p) counts.
    mining: "batch_all" takes every n; "semi_hard" for each (a, p) the nearest n with D_ap < D_an < D_ap +
    margin, or where there is none the farthest n; "batch_hard" for each a its farthest p and nearest n. Among
    equal distances the lower index is taken.
    reduction: "sum", "mean" over the triplets taken, "mean_active" over those with a loss above 0.

    Gives a scalar, 0 with zero gradient when there is no triplet. The derivative at the hinge is 0, and the
    choice of the mining is not differentiated. It is computed with the value, and `backward()` only scales it.
    A NaN makes both NaN, and so does a positive at an infinite distance. Memory grows with b², not b³.
    Raises `ShapeError`, `DTypeError`, `ArgumentError`.
    Source: FaceNet, section 3.2; Hermans, Beyer, Leibe, "In Defense of the Triplet Loss", 2017, equations 5
    and 7.

    >>> batch_triplet_loss(np.array([[0.0], [1.0], [1.0]]), [5, 5, 7], margin=0.25)
    array(0.75)
    """
    z, labels = operand(z, None), _labels("batch_triplet_loss", labels)
    check_shapes(BATCH_TRIPLET_LOSS, (z, labels))
    check_dtypes(BATCH_TRIPLET_LOSS, (z,))
    _check_choice("batch_triplet_loss", "mining", mining, MININGS)
    _check_choice("batch_triplet_loss", "reduction", reduction, REDUCTIONS)
    margin = _check_margin("batch_triplet_loss", margin)
    return apply(BATCH_TRIPLET_LOSS, (z, labels), margin=margin, mining=mining, reduction=reduction)


@dataclass(frozen=True)
class TripletStats:
    """What `triplet_stats` counted; distances are squared, and a mean over nothing is NaN."""

    triplets: int
    active: int
    active_fraction: float
    mean_positive_distance: float
    mean_negative_distance: float
    mean_norm: float
    collapsed: bool

    def __str__(self) -> str:
        return (
            f"{self.active} of {self.triplets} triplets active ({100 * self.active_fraction:.1f} %), "
            f"mean squared distance {self.mean_positive_distance:.4g} to positives, "
            f"{self.mean_negative_distance:.4g} to negatives, mean norm {self.mean_norm:.4g}"
            f"{', COLLAPSED' if self.collapsed else ''}"
        )


def triplet_stats(z: Any, labels: Any, margin: float = 0.2) -> TripletStats:
    """How the triplets of a batch stand: all valid (a, p, n), those with a loss above 0, and mean distances.

    z: (b, d) float, labels: (b,) integers, margin: as for `batch_triplet_loss`. mean_norm: mean of ‖z_i‖.
    collapsed: the embedding has become one point, so that every loss is stuck at the margin: there are
    triplets, and both mean distances are at most 1 % of the margin. Not an op: it has no gradient.
    Raises `ShapeError`, `DTypeError`, `ArgumentError`.

    >>> stats = triplet_stats(np.zeros((4, 2), np.float32), [0, 0, 1, 1], margin=0.2)
    >>> stats.active, stats.triplets, stats.collapsed
    (8, 8, True)
    """
    z = to_host(z.data if isinstance(z, Tensor) else z)
    labels, margin = to_host(_labels("triplet_stats", labels)), _check_margin("triplet_stats", margin)
    batch = replace(BATCH_TRIPLET_LOSS, name="triplet_stats")
    check_shapes(batch, (z, labels))
    check_dtypes(batch, (z,))
    distances = to_host(pairwise_sqdist(z, z))
    triplets = active = positives = negatives = 0
    sums = np.zeros(2)
    for a, row in enumerate(distances):
        same = labels == labels[a]
        to_positive, to_negative = row[same & (np.arange(len(z)) != a)], np.sort(row[~same])
        triplets += len(to_positive) * len(to_negative)
        active += int(np.searchsorted(to_negative, to_positive + z.dtype.type(margin)).sum())
        positives, negatives = positives + len(to_positive), negatives + len(to_negative)
        sums += to_positive.sum(dtype=np.float64), to_negative.sum(dtype=np.float64)
    near = float(sums[0]) / positives if positives else math.nan
    far = float(sums[1]) / negatives if negatives else math.nan
    norm = float(np.mean(np.sqrt(np.sum(z.astype(np.float64) ** 2, axis=1)))) if len(z) else math.nan
    collapsed = triplets > 0 and near <= COLLAPSED * margin and far <= COLLAPSED * margin  # not when one is NaN
    return TripletStats(triplets, active, active / triplets if triplets else 0.0, near, far, norm, collapsed)


def _labels(name: str, labels: Any) -> Array:
    array: Array = labels.data if isinstance(labels, Tensor) else as_array(labels)
    if array.size == 0:  # an empty list says nothing about its type
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"[{name}] expects whole numbers as labels, got {array.dtype}")
    return array


def _check_choice(name: str, what: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ArgumentError(f"[{name}] expects {what} to be one of {', '.join(choices)}, got {value!r}")


def _check_margin(name: str, margin: Any) -> float:
    if isinstance(margin, bool) or not isinstance(margin, (int, float, np.number)) or not 0 <= margin < math.inf:
        raise ArgumentError(f"[{name}] expects a margin of at least 0, got {margin!r}")
    return float(margin)


def _share(reduction: str, triplets: int, active: int) -> float:
    """What the sum of the losses is multiplied with."""
    return 1.0 / max(1, {"sum": 1, "mean": triplets, "mean_active": active}[reduction])


def _reduced(ctx: Context, losses: Array, reduction: str) -> Array:
    """The scalar; what its gradient needs goes to the context."""
    share = _share(reduction, losses.size, int(np.count_nonzero(losses)))
    ctx.extra = (losses, share)
    return np.asarray(losses.sum(dtype=np.float64) * share, dtype=losses.dtype)


def _reference(ctx: Context, a: Array, p: Array, n: Array, margin: float = 0.2, reduction: str = "sum") -> Array:
    ctx.save(a, p, n)
    losses = np.maximum(np.sum((a - p) ** 2, axis=1) - np.sum((a - n) ** 2, axis=1) + a.dtype.type(margin), 0)
    return _reduced(ctx, losses, reduction)


def _reference_back(ctx: Context, grad: Array, **_: Any) -> tuple[Array | None, ...]:
    a, p, n = ctx.saved()
    losses, share = ctx.extra
    factor = (2 * share * grad * (losses != 0))[:, None].astype(a.dtype)
    return factor * (n - p), factor * (p - a), factor * (a - n)


def _cpu(ctx: Context, a: Array, p: Array, n: Array, margin: float = 0.2, reduction: str = "sum") -> Array:
    from nstcore.backend.cpu import native

    a, p, n = (np.ascontiguousarray(x) for x in (a, p, n))
    ctx.save(a, p, n)
    losses = np.empty(len(a), a.dtype)
    native.triplet_loss_forward_cpu(a, p, n, margin, losses)
    return _reduced(ctx, losses, reduction)


def _cpu_back(ctx: Context, grad: Array, **_: Any) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    a, p, n = ctx.saved()
    losses, share = ctx.extra
    gradients = tuple(np.empty_like(x) for x in (a, p, n))
    native.triplet_loss_backward_cpu(a, p, n, losses, float(grad) * share, *gradients)
    return tuple(g if need else None for g, need in zip(gradients, ctx.needs, strict=True))


def _mined(d: Array, labels: Array, margin: float, mining: str) -> Iterator[tuple[int, int, int]]:
    """The triplets (a, p, n) that the mining takes, from the matrix of squared distances."""
    for a in range(len(d)):
        positives = [j for j in range(len(d)) if labels[j] == labels[a] and j != a]
        negatives = [j for j in range(len(d)) if labels[j] != labels[a]]
        if not positives or not negatives:
            continue
        if mining == "batch_hard":
            yield a, max(positives, key=lambda j: (d[a, j], -j)), min(negatives, key=lambda j: (d[a, j], j))
            continue
        for p in positives:
            if mining == "batch_all":
                yield from ((a, p, n) for n in negatives)
                continue
            band = [n for n in negatives if d[a, p] < d[a, n] < d[a, p] + d.dtype.type(margin)]
            nearest = min(band, key=lambda j: (d[a, j], j), default=-1)
            yield a, p, nearest if band else max(negatives, key=lambda j: (d[a, j], -j))


def _batch_reference(
    ctx: Context,
    z: Array,
    labels: Array,
    margin: float = 0.2,
    mining: str = "batch_all",
    reduction: str = "mean_active",
) -> Array:
    d = np.stack([np.sum((row - z) ** 2, axis=1) for row in z]) if len(z) else np.zeros((0, 0), z.dtype)
    w, losses = np.zeros_like(d), []
    for a, p, n in _mined(d, labels, margin, mining):
        loss = d[a, p] + z.dtype.type(margin) - d[a, n]
        losses.append(loss if not loss <= 0 else 0.0)
        if loss > 0:
            w[a, p] += 1
            w[a, n] -= 1
    ctx.save(z)
    value = _reduced(ctx, np.array(losses, z.dtype), reduction)
    ctx.extra = (w, ctx.extra[1])
    return value


def _batch_reference_back(ctx: Context, grad: Array, **_: Any) -> tuple[Array | None, ...]:
    (z,) = ctx.saved()
    w, share = ctx.extra
    dz = np.zeros_like(z)
    for a, other in zip(*np.nonzero(w), strict=True):
        step = (2 * share * w[a, other] * grad * (z[a] - z[other])).astype(z.dtype)
        dz[a] += step
        dz[other] -= step
    return dz, None


def _batch_cpu(
    ctx: Context,
    z: Array,
    labels: Array,
    margin: float = 0.2,
    mining: str = "batch_all",
    reduction: str = "mean_active",
) -> Array:
    from nstcore.backend.cpu import native

    z = np.ascontiguousarray(z)
    classes = np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int32)
    # The gradient comes with the value: nothing of size b x b, nor z, has to be kept for the backward pass.
    half = empty(z.shape, z.dtype) if ctx.needs[0] else None
    total, triplets, active = native.batch_triplet_loss_forward_cpu(z, classes, margin, MININGS.index(mining), half)
    share = _share(reduction, triplets, active)
    ctx.extra = (half, share)
    return np.asarray(total * share, dtype=z.dtype)


def _batch_cpu_back(ctx: Context, grad: Array, **_: Any) -> tuple[Array | None, ...]:
    half, share = ctx.extra
    return half * half.dtype.type(2 * share * float(grad)), None


def _cuda(ctx: Context, a: Array, p: Array, n: Array, margin: float = 0.2, reduction: str = "sum") -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_triplet import triplet_loss_forward

    a, p, n = (contiguous(x) for x in (a, p, n))
    ctx.save(a, p, n)
    value: Array
    value, *ctx.extra = triplet_loss_forward(a, p, n, margin, REDUCTIONS.index(reduction))
    return value


def _cuda_back(ctx: Context, grad: Array, **_: Any) -> tuple[Array | None, ...]:
    from nstcore.backend.cuda_triplet import triplet_loss_backward

    losses, share = ctx.extra
    a, p, n = ctx.saved()
    return triplet_loss_backward((a, p, n), losses, share, grad, ctx.needs)


def _batch_cuda(
    ctx: Context,
    z: Array,
    labels: Array,
    margin: float = 0.2,
    mining: str = "batch_all",
    reduction: str = "mean_active",
) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_triplet import batch_triplet_loss_forward

    labels = contiguous(labels.astype(np.int64))
    by = REDUCTIONS.index(reduction)
    value: Array
    value, *ctx.extra = batch_triplet_loss_forward(contiguous(z), labels, margin, mining, by, ctx.needs[0])
    return value


def _batch_cuda_back(ctx: Context, grad: Array, **_: Any) -> tuple[Array | None, ...]:
    from nstcore.backend.cuda_triplet import batch_triplet_loss_backward

    half, share = ctx.extra
    return batch_triplet_loss_backward(half, share, grad), None


def _pairs(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    """Two embeddings of each label."""
    return np.arange(*shape) // 2 if index else rng.standard_normal(shape)


def _classes(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    """Three labels, one of them on a single embedding, in no order."""
    return (
        np.where(np.arange(*shape) == 1, -7, 5 + 4 * (np.arange(*shape) % 3 > 0))
        if index
        else rng.standard_normal(shape)
    )


def _one_label(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    return np.zeros(shape, np.uint8) if index else rng.standard_normal(shape)


def _far_apart(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    """Three embeddings of a label, a hundred places from each other."""
    return np.arange(*shape) % 100 if index else rng.standard_normal(shape)


def _batch(label: str, b: int, d: int, draw: Any = _pairs, **params: Any) -> Case:
    return Case(label, ((b, d), (b,)), params, draw, (1,))


TRIPLET_LOSS = register(
    Op(
        "triplet_loss",
        "n d, n d, n d -> ",
        triplet_loss,
        Kernel(_reference, _reference_back),
        (
            Case("one", ((1, 3),) * 3, {"margin": 5.0}),
            Case("sum", ((6, 8),) * 3),
            Case("mean", ((7, 17),) * 3, {"reduction": "mean"}),
            Case("mean of the active", ((9, 33),) * 3, {"reduction": "mean_active", "margin": 1.5}),
            Case("several blocks", ((300, 4),) * 3, {"reduction": "mean"}),
            Case("none", ((0, 4),) * 3, {"reduction": "mean_active"}),
        ),
        cpu=Kernel(_cpu, _cpu_back, ("triplet_loss_forward_cpu", "triplet_loss_backward_cpu")),
        cuda=Kernel(
            _cuda,
            _cuda_back,
            ("triplet_loss_forward_cuda", "triplet_loss_forward_total_cuda", "triplet_loss_backward_cuda"),
        ),
        cuda_cases=(Case("several of a warp", ((37, 71),) * 3, {"margin": 1.5}),),  # 32 elements
        tolerance=Tolerance(float32=2e-6, float64=2e-15),
        flops=lambda a, p, n, **_: 6.0 * a[0] * a[1],
        traffic=lambda a, p, n, **_: 3.0 * a[0] * a[1],
        source="Schroff, Kalenichenko, Philbin: FaceNet, CVPR 2015, eq. 3",
    )
)
# Negatives around a vector (2 to 16), positives around the rows compared at once (4 or 8), batches around a
# tile.
BATCH_TRIPLET_LOSS = register(
    Op(
        "batch_triplet_loss",
        "b d, b -> ",
        batch_triplet_loss,
        Kernel(_batch_reference, _batch_reference_back),
        (
            _batch("a single triplet", 3, 2, margin=3.0),
            _batch("pairs", 10, 7),
            _batch("pairs around a tile", 34, 16, margin=1.0),
            _batch("pairs and a loner", 21, 5),
            _batch("many positives", 29, 3, _classes, reduction="mean"),
            _batch("sum", 12, 4, _classes, reduction="sum"),
            _batch("semi-hard", 16, 6, _classes, mining="semi_hard", margin=2.0),
            _batch("semi-hard, mean", 34, 9, mining="semi_hard", reduction="mean"),
            _batch("hard", 18, 6, _classes, mining="batch_hard"),
            _batch("hard, sum", 33, 17, mining="batch_hard", reduction="sum"),
            _batch("one label", 6, 3, _one_label),
            _batch("one embedding", 1, 3),
            _batch("empty", 0, 3, mining="semi_hard"),
        ),
        cpu=Kernel(_batch_cpu, _batch_cpu_back, ("batch_triplet_loss_forward_cpu",)),
        cuda=Kernel(
            _batch_cuda,
            _batch_cuda_back,
            (
                "batch_triplet_loss_forward_all_cuda",
                "batch_triplet_loss_forward_semi_hard_cuda",
                "batch_triplet_loss_forward_hard_cuda",
                "batch_triplet_loss_forward_total_cuda",
                "batch_triplet_loss_forward_gradient_cuda",
                "batch_triplet_loss_backward_cuda",
            ),
        ),
        # More than a block of anchors (256) and a tile of depth (64).
        cuda_cases=(
            _batch("several blocks", 290, 70, _far_apart, margin=30.0),
            _batch("several blocks, semi-hard", 290, 3, _far_apart, mining="semi_hard", margin=1.0),
            _batch("several blocks, hard", 290, 3, _far_apart, mining="batch_hard"),
        ),
        tolerance=Tolerance(float32=4e-6, float64=1e-14),
        flops=lambda z, labels, **_: 1.0 * z[0] * z[0] * z[1],
        traffic=lambda z, labels, **_: float(z[0] * z[1] + z[0] * z[0]),
        source="Schroff et al.: FaceNet, CVPR 2015, section 3.2; Hermans et al.: In Defense of the Triplet Loss, 2017",
    )
)
