"""Batch normalisation and dropout: what holds a network's activations in range while it learns."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.backend.memory import empty
from nstcore.errors import ArgumentError, ShapeError
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_shapes, register, whole
from nstcore.ops.elementwise import float_operand, operand

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
    x, scale, shift = operand(x, None), operand(scale, None), operand(shift, None)
    channels = check_shapes(BATCH_NORM, (x, scale, shift))["c"]
    check_dtypes(BATCH_NORM, (x, scale, shift))
    if not (isinstance(eps, REAL) and 0 < eps < np.inf):
        raise ArgumentError(f"[batch_norm] expects eps above 0, got {eps!r}")
    if activation not in (None, "relu"):
        raise ArgumentError(f"[batch_norm] expects activation None or 'relu', got {activation!r}")
    if moments is None and x.size == 0:
        raise ShapeError(f"[batch_norm] expects at least one position to measure moments of, got {x.shape}")
    if found is None:
        found = np.empty((2, channels))
    if found.shape != (2, channels) or found.dtype != np.float64 or not found.flags.c_contiguous:
        raise ShapeError(f"[batch_norm] expects found as float64 (2, {channels}), got {found.dtype} {found.shape}")
    if moments is not None:
        if np.shape(moments) != (2, channels):
            raise ShapeError(f"[batch_norm] expects moments of shape (2, {channels}), got {np.shape(moments)}")
        found[...] = moments
    return apply(
        BATCH_NORM,
        (x, scale, shift),
        found=found,
        given=moments is not None,
        eps=float(eps),
        relu=activation == "relu",
    )


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
    if not given:
        found[0], found[1] = x.mean(axes, np.float64), x.var(axes, np.float64)
    mean, root = found[0].astype(x.dtype), np.sqrt(found[1] + eps).astype(x.dtype)
    y = (x - mean) / root * scale + shift
    ctx.save(x, scale, shift)
    ctx.extra = (mean, root)
    return np.asarray(np.maximum(y, 0) if relu else y)


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


def _kept(shape: tuple[int, ...], dtype: Any, rate: float, seed: tuple[int, ...]) -> Array:
    """1 / (1 − rate) for elements that stay, 0 for the others."""
    stays = np.random.default_rng(seed).random(shape, np.float32) >= rate
    return np.where(stays, np.asarray(1 / (1 - rate), dtype), np.zeros((), dtype))


def _dropout(ctx: Context, x: Array, rate: float, seed: tuple[int, ...]) -> Array:
    ctx.extra = factor = _kept(x.shape, x.dtype, rate, seed)
    return x * factor


def _dropout_back(ctx: Context, grad: Array, rate: float, seed: tuple[int, ...]) -> tuple[Array | None, ...]:
    return (grad * ctx.extra,)


def _two_sided(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    """Values of either sign, far from 0: in x one position after the other, so that no channel's mean is far off."""
    if index == 2:
        return 0.1 * rng.random(shape)
    number = np.arange(int(np.prod(shape))).reshape(shape)
    return np.where((number if index else number // shape[-1]) % 2, 1.0, -1.0) * (1 + 0.3 * rng.random(shape))


def _norm_case(label: str, x: tuple[int, ...], draw: Any = None, **params: Any) -> Case:
    return Case(label, (x, x[-1:], x[-1:]), params, draw)


# Channels around a vector (2 to 16 lanes), positions around four sums and around a chunk (16 KiB).
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
        source="Srivastava et al.: Dropout, JMLR 2014",
    )
)
