"""Batch normalisation and dropout: what holds a network's activations in range while it learns."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.backend.arrays import as_array, beside
from nstcore.backend.memory import empty
from nstcore.errors import ArgumentError, ShapeError
from nstcore.ops._op import (
    IN_PLACE,
    Array,
    Case,
    Kernel,
    Op,
    Reach,
    Tolerance,
    check_dtypes,
    check_shapes,
    reach_in_place,
    register,
    whole,
)
from nstcore.ops.elementwise import float_operand, operand, relu, relu_rule
from nstcore.ops.pool import max_pool2d

REAL = (int, float, np.integer, np.floating)


def batch_norm(
    x: Any,
    scale: Any,
    shift: Any,
    moments: Array | None = None,
    eps: float = 1e-5,
    activation: str | None = None,
    found: Array | None = None,
) -> Any:
    """Normalise each channel over all positions: y = act(scale · (x − mean) / √(variance + eps) + shift).

    x: (..., c), scale, shift: (c,); all float32 or all float64. moments: (2, c), a mean and a variance to use as
    constants (a trained network at work); None measures them in x (training), where the variance is the biased one.
    activation: "relu" or None; the derivative of the ReLU at 0 is 0. found: float64 (2, c), gets the moments used.

    Raises `ShapeError` (also for moments to be measured over no positions), `DTypeError`, `ArgumentError` for an eps
    that is not above 0 or another activation.
    Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015, algorithm 1 and section 3.1.

    >>> batch_norm(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1), eps=1e-12)
    array([[-1.],
           [ 1.]])
    """
    if activation not in (None, "relu"):
        raise ArgumentError(f"[batch_norm] expects activation None or 'relu', got {activation!r}")
    if activation and relu_rule() != "gradient":  # the fused one knows the true derivative only
        return relu(batch_norm(x, scale, shift, moments, eps, None, found))
    return _run(BATCH_NORM, x, scale, shift, moments, eps, found, relu=activation == "relu")


def batch_norm_pool2d(
    x: Any, scale: Any, shift: Any, moments: Array | None = None, eps: float = 1e-5, found: Array | None = None
) -> Any:
    """`batch_norm` with a ReLU and then `max_pool2d` of size 2, in one pass: (n, h, w, c) -> (n, ⌊h/2⌋, ⌊w/2⌋, c).

    Arguments and errors as `batch_norm`; also `ShapeError` for pictures of less than 2 × 2. The gradient goes to the
    first of equal values of a window, and is 0 where none is above 0.

    >>> batch_norm_pool2d(np.arange(4.0).reshape(1, 2, 2, 1), np.ones(1), np.zeros(1), np.array([[1.0], [1.0]]), 1e-12)
    array([[[[2.]]]])
    """
    x = operand(x, None)
    if len(x.shape) == 4 and min(x.shape[1:3]) < 2:
        raise ShapeError(f"[batch_norm_pool2d] expects pictures of at least 2 x 2, got {x.shape}")
    if relu_rule() != "gradient":
        return max_pool2d(batch_norm(x, scale, shift, moments, eps, "relu", found), 2)
    return _run(BATCH_NORM_POOL2D, x, scale, shift, moments, eps, found)


def _run(op: Op, x: Any, scale: Any, shift: Any, moments: Any, eps: Any, found: Any, **options: Any) -> Any:
    """Check what both normalisations take, and apply one."""
    x, scale, shift = operand(x, None), operand(scale, None), operand(shift, None)
    channels = check_shapes(op, (x, scale, shift))["c"]
    check_dtypes(op, (x, scale, shift))
    if not (isinstance(eps, REAL) and 0 < eps < np.inf):
        raise ArgumentError(f"[{op.name}] expects eps above 0, got {eps!r}")
    if moments is None and x.size == 0:
        raise ShapeError(f"[{op.name}] expects at least one position to measure moments of, got {x.shape}")
    if found is None:
        array = x.data if isinstance(x, Tensor) else x
        found = np.zeros_like(array, np.float64, order="C", shape=(2, channels))
    if found.shape != (2, channels) or found.dtype != np.float64 or not found.flags.c_contiguous:
        raise ShapeError(f"[{op.name}] expects found as float64 (2, {channels}), got {found.dtype} {found.shape}")
    if moments is not None:
        if np.shape(moments) != (2, channels):
            raise ShapeError(f"[{op.name}] expects moments of shape (2, {channels}), got {np.shape(moments)}")
        found[...] = beside(moments, found)
    return apply(op, (x, scale, shift), found=found, given=moments is not None, eps=float(eps), **options)


def dropout(x: Any, rate: float, seed: int | tuple[int, ...] = 0) -> Any:
    """x with elements set to 0 at random, the others divided by 1 − rate, so that the mean stays.

    x: float, any shape. rate: the probability of 0, in [0, 1). seed: whole numbers; the same ones choose the same
    elements, whatever the number of threads. Raises `DTypeError`, `ArgumentError`.
    Source: Srivastava et al., "Dropout", JMLR 2014, section 10 (scaled in training).

    >>> dropout(np.ones(4), 0.5, seed=1)
    array([2., 2., 0., 2.])
    """
    x = float_operand("dropout", x)
    if not (isinstance(rate, REAL) and 0 <= rate < 1):
        raise ArgumentError(f"[dropout] expects a rate in [0, 1), got {rate!r}")
    numbers = tuple(whole("dropout", "a seed", n) for n in (seed if isinstance(seed, tuple) else (seed,)))
    if min(numbers, default=-1) < 0:
        raise ArgumentError(f"[dropout] expects a seed of whole numbers of at least 0, got {seed!r}")
    return apply(DROPOUT, (x,), rate=float(rate), seed=numbers)


def _norm(
    ctx: Context, x: Array, scale: Array, shift: Array, found: Array, given: bool, eps: float, relu: bool
) -> Array:
    axes = tuple(range(x.ndim - 1))
    mean64, variance = beside(found, x) if given else (x.mean(axes, np.float64), x.var(axes, np.float64))
    if not given:
        found[0], found[1] = beside(mean64, found), beside(variance, found)
    mean, root = mean64.astype(x.dtype), np.sqrt(variance + eps).astype(x.dtype)
    y = (x - mean) / root * scale + shift
    ctx.save(x, scale, shift)
    ctx.extra = (mean, root)
    result: Array = as_array(np.maximum(y, 0) if relu else y)
    return result


def _norm_back(
    ctx: Context, grad: Array, found: Array, given: bool, eps: float, relu: bool
) -> tuple[Array | None, ...]:
    (x, scale, shift), (mean, root) = ctx.saved(), ctx.extra
    axes = tuple(range(x.ndim - 1))
    z = (x - mean) / root
    if relu:
        grad = grad * (z * scale + shift > 0)
    dscale, dshift = np.sum(grad * z, axes), np.sum(grad, axes)
    if given:
        return grad * scale / root, dscale, dshift
    count = x.size // x.shape[-1]
    return (grad - dshift / count - z * dscale / count) * scale / root, dscale, dshift


def _norm_cpu(
    ctx: Context, x: Array, scale: Array, shift: Array, found: Array, given: bool, eps: float, relu: bool
) -> Array:
    from nstcore.backend.cpu import native

    x, scale, shift = np.ascontiguousarray(x), np.ascontiguousarray(scale), np.ascontiguousarray(shift)
    y, flat = empty(x.shape, x.dtype), (-1 if x.size else 0, x.shape[-1])
    native.batch_norm_forward_cpu(x.reshape(flat), scale, shift, eps, relu, given, found, y.reshape(flat))
    ctx.save(x, scale, shift)
    ctx.extra = found.copy()
    return y


def _norm_cpu_back(
    ctx: Context, grad: Array, found: Array, given: bool, eps: float, relu: bool
) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    x, scale, shift = ctx.saved()
    flat, grad = (-1 if x.size else 0, x.shape[-1]), np.ascontiguousarray(grad)
    dx = empty(x.shape, x.dtype) if ctx.needs[0] else None
    dscale, dshift = np.empty_like(scale), np.empty_like(shift)
    native.batch_norm_backward_cpu(
        x.reshape(flat), grad.reshape(flat), scale, shift, ctx.extra, eps, relu, given,
        None if dx is None else dx.reshape(flat), dscale, dshift,
    )  # fmt: skip
    return dx, dscale, dshift


def _pool(ctx: Context, x: Array, scale: Array, shift: Array, found: Array, given: bool, eps: float) -> Array:
    inner = Context(ctx.needs)
    y = _norm(inner, x, scale, shift, found, given, eps, False)
    ctx.save(x, scale, shift)
    windows = _windows(y)
    if windows.size:
        at, largest = np.argmax(windows, axis=3), np.max(windows, axis=3)  # the first of equal ones, or the first NaN
    else:
        at, largest = np.zeros_like(windows[:, :, :, 0], np.intp), windows[:, :, :, 0]
    ctx.extra = inner, at
    result: Array = np.maximum(largest, 0)
    return result


def _windows(y: Array) -> Array:
    """(n, h, w, c) as (n, h/2, w/2, 4, c); a last row or column without a partner is dropped."""
    n, h, w, c = y.shape
    even = y[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
    apart: Array = even.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4, c)
    return apart


def _pool_back(ctx: Context, grad: Array, found: Array, given: bool, eps: float) -> tuple[Array | None, ...]:
    (x, _, _), (inner, at) = ctx.saved(), ctx.extra
    n, h, w, c = x.shape
    spread = np.stack([np.where(at == tap, grad, 0) for tap in range(4)], axis=3)
    whole_map = np.zeros_like(x)
    rows = spread.reshape(n, h // 2, w // 2, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    whole_map[:, : h // 2 * 2, : w // 2 * 2] = rows.reshape(n, h // 2 * 2, w // 2 * 2, c)
    return _norm_back(inner, whole_map, found, given, eps, True)


def _pool_cpu(ctx: Context, x: Array, scale: Array, shift: Array, found: Array, given: bool, eps: float) -> Array:
    from nstcore.backend.cpu import native

    x, scale, shift = np.ascontiguousarray(x), np.ascontiguousarray(scale), np.ascontiguousarray(shift)
    shape = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3])
    y, top = empty(shape, x.dtype), empty(shape, x.dtype)
    native.batch_norm_pool2d_forward_cpu(x, scale, shift, eps, given, found, y, top)
    ctx.save(x, scale, shift)
    ctx.extra = found.copy(), top
    return y


def _pool_cpu_back(ctx: Context, grad: Array, found: Array, given: bool, eps: float) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    (x, scale, shift), (moments, top) = ctx.saved(), ctx.extra
    dx = empty(x.shape, x.dtype) if ctx.needs[0] else None
    dscale, dshift = np.empty_like(scale), np.empty_like(shift)
    native.batch_norm_pool2d_backward_cpu(
        x, top, np.ascontiguousarray(grad), scale, shift, moments, eps, given, dx, dscale, dshift
    )
    return dx, dscale, dshift


def _kept(shape: tuple[int, ...], dtype: Any, rate: float, seed: tuple[int, ...]) -> Array:
    """1 / (1 − rate) for elements that stay, 0 for the others."""
    stays = np.random.default_rng(seed).random(shape, np.float32) >= rate
    return np.asarray(np.where(stays, np.asarray(1 / (1 - rate), dtype), np.zeros((), dtype)))


def _dropout(ctx: Context, x: Array, rate: float, seed: tuple[int, ...]) -> Array:
    ctx.extra = factor = beside(_kept(x.shape, x.dtype, rate, seed), x)
    y: Array = as_array(x * factor)
    return y


def _dropout_back(ctx: Context, grad: Array, rate: float, seed: tuple[int, ...]) -> tuple[Array | None, ...]:
    return (grad * ctx.extra,)


def _two_sided(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    """Values of either sign, far from 0: in x one position after the other, so that no channel's mean is far off."""
    if index == 2:
        return 0.1 * rng.random(shape)
    number = np.arange(int(np.prod(shape))).reshape(shape)
    return np.where((number if index else number // shape[-1]) % 2, 1.0, -1.0) * (1 + 0.3 * rng.random(shape))


def _apart(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    """As `_two_sided`, but x is a shuffled grid around 0: no two values of a window are close, none is close to 0."""
    if index:
        return _two_sided(rng, shape, index)
    grid = (rng.permutation(int(np.prod(shape))) - 0.5 * np.prod(shape) + 0.25).reshape(shape)
    return np.asarray(0.5 * grid / max(1, grid.size) + 0.3 * np.sign(grid))


def _norm_case(label: str, x: tuple[int, ...], draw: Any = None, **params: Any) -> Case:
    return Case(label, (x, x[-1:], x[-1:]), params, draw)


# Channels around a vector (2 to 16 lanes), positions around four sums and around a chunk (16 KiB).
def _reach(*_: Any, given: bool, **__: Any) -> tuple[Reach, Reach] | None:
    """With moments of its own, a batch is seen whole from every place."""
    return IN_PLACE if given else None


def _pool_reach(*_: Any, given: bool, **__: Any) -> tuple[Reach, Reach] | None:
    return (Reach(2, 2), Reach(2, 2)) if given else None


BATCH_NORM = register(
    Op(
        "batch_norm",
        "... c, c, c -> ... c",
        batch_norm,
        Kernel(_norm, _norm_back),
        (
            _norm_case("rows", (6, 5)),
            _norm_case("maps", (2, 5, 3, 16)),
            _norm_case("vector and more", (3, 3, 19)),
            _norm_case("several chunks", (2, 41, 7, 33)),
            _norm_case("one channel", (9, 1)),
            _norm_case("given moments", (2, 3, 3, 17), moments=np.linspace((-1, 0.5), (1, 2), 17).T),
            _norm_case("relu", (2, 4, 6, 18), _two_sided, activation="relu"),
            _norm_case("relu, several chunks", (1, 60, 9, 40), _two_sided, activation="relu"),
            _norm_case("relu, given moments", (4, 3, 8), _two_sided, activation="relu", moments=np.ones((2, 8)) * 0.1),
            _norm_case("none, given moments", (0, 3, 4), moments=np.ones((2, 4))),
        ),
        cpu=Kernel(_norm_cpu, _norm_cpu_back, ("batch_norm_forward_cpu", "batch_norm_backward_cpu")),
        tolerance=Tolerance(float32=4e-6, float64=1e-14),
        flops=lambda x, *_, **__: 6.0 * np.prod(x),
        traffic=lambda x, *_, **__: 3.0 * np.prod(x),
        reach=_reach,
        source="Ioffe, Szegedy: Batch Normalization, ICML 2015",
    )
)
# Channels around a vector, pictures with and without rows that the pool drops.
BATCH_NORM_POOL2D = register(
    Op(
        "batch_norm_pool2d",
        "n h w c, c, c -> n p q c",
        batch_norm_pool2d,
        Kernel(_pool, _pool_back),
        (
            _norm_case("one window", (1, 2, 2, 3), _apart),
            _norm_case("maps", (2, 6, 4, 16), _apart),
            _norm_case("a row and column dropped", (2, 5, 7, 19), _apart),
            _norm_case("several chunks", (3, 22, 20, 33), _apart),
            _norm_case("given moments", (2, 4, 6, 8), _apart, moments=np.stack([np.full(8, 0.1), np.full(8, 0.5)])),
            _norm_case("no images", (0, 4, 4, 3), _apart, moments=np.ones((2, 3))),
        ),
        cpu=Kernel(_pool_cpu, _pool_cpu_back, ("batch_norm_pool2d_forward_cpu", "batch_norm_pool2d_backward_cpu")),
        tolerance=Tolerance(float32=4e-6, float64=2e-14),
        flops=lambda x, *_, **__: 7.0 * np.prod(x),
        traffic=lambda x, *_, **__: 2.5 * np.prod(x),
        reach=_pool_reach,
        source="Ioffe, Szegedy: Batch Normalization, ICML 2015",
    )
)
DROPOUT = register(
    Op(
        "dropout",
        "... -> ...",
        dropout,
        Kernel(_dropout, _dropout_back),
        (
            Case("half", ((5, 7),), {"rate": 0.5, "seed": 3}),
            Case("a tenth", ((40,),), {"rate": 0.1, "seed": (3, 1)}),
            Case("none", ((3, 2),), {"rate": 0.0}),
        ),
        reach=reach_in_place,
        source="Srivastava et al.: Dropout, JMLR 2014",
    )
)
