"""Each picture brought to mean 0 and variance 1, so that its light and its contrast as a whole do not count."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.backend.memory import empty
from nstcore.errors import ArgumentError, ShapeError
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_shapes, register
from nstcore.ops.elementwise import operand

AXES = (1, 2, 3)


def standardize(x: Any, eps: float = 1e-4) -> Any:
    """y = (x − mean) / √(variance + eps), with the mean and the variance of all numbers of each picture.

    x: (n, h, w, c) float32 or float64. eps: above 0; a picture whose variance is small beside it counts as having
    none. Gives (n, h, w, c). Moments are summed in float64.
    Raises `ShapeError` (also for pictures of no numbers), `DTypeError`, `ArgumentError`.
    Source: Ba, Kiros, Hinton, "Layer Normalization", 2016, equation 3, without gain and bias.

    >>> standardize(np.array([1.0, 3.0]).reshape(1, 1, 2, 1), eps=1e-12).ravel()
    array([-1.,  1.])
    """
    x = operand(x, None)
    sizes = check_shapes(STANDARDIZE, (x,))
    check_dtypes(STANDARDIZE, (x,))
    if not (isinstance(eps, (int, float, np.integer, np.floating)) and 0 < eps < np.inf):
        raise ArgumentError(f"[standardize] expects eps above 0, got {eps!r}")
    if min(sizes[axis] for axis in "hwc") < 1:
        raise ShapeError(f"[standardize] expects pictures of at least one number, got {x.shape}")
    return apply(STANDARDIZE, (x,), eps=float(eps))


def _reference(ctx: Context, x: Array, eps: float) -> Array:
    mean, variance = x.mean(AXES, np.float64, keepdims=True), x.var(AXES, np.float64, keepdims=True)
    ctx.save(x)
    ctx.extra = mean, np.sqrt(variance + eps)
    y: Array = ((x - mean) / ctx.extra[1]).astype(x.dtype)
    return y


def _reference_back(ctx: Context, grad: Array, eps: float) -> tuple[Array | None, ...]:
    (x,), (mean, root) = ctx.saved(), ctx.extra
    z = (x - mean) / root
    along = (grad * z).mean(AXES, keepdims=True)
    return (((grad - grad.mean(AXES, np.float64, keepdims=True) - z * along) / root).astype(x.dtype),)


def _cpu(ctx: Context, x: Array, eps: float) -> Array:
    from nstcore.backend.cpu import native

    x = np.ascontiguousarray(x)
    y, ctx.extra = empty(x.shape, x.dtype), np.empty((len(x), 2))
    native.standardize_forward_cpu(x, eps, ctx.extra, y)
    ctx.save(x)
    return y


def _cpu_back(ctx: Context, grad: Array, eps: float) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    (x,) = ctx.saved()
    dx = empty(x.shape, x.dtype)
    native.standardize_backward_cpu(x, np.ascontiguousarray(grad), ctx.extra, dx)
    return (dx,)


# Numbers around a vector (2 to 16) and around the sixteen sums of a picture's moments.
STANDARDIZE = register(
    Op(
        "standardize",
        "n h w c -> n h w c",
        standardize,
        Kernel(_reference, _reference_back),
        (
            Case("pictures", ((3, 5, 4, 3),)),
            Case("sixteen numbers", ((2, 2, 4, 2),)),
            Case("one more", ((2, 1, 17, 1),), {"eps": 0.5}),
            Case("far from 0", ((2, 6, 7, 3),), {}, lambda rng, shape, _: 8 + rng.standard_normal(shape)),
            Case("no contrast", ((1, 3, 3, 3),), {"eps": 1.0}, lambda rng, shape, _: np.full(shape, 0.25)),
            Case("one number", ((2, 1, 1, 1),), {"eps": 1.0}),
            Case("none", ((0, 4, 4, 3),)),
        ),
        cpu=Kernel(_cpu, _cpu_back, ("standardize_forward_cpu", "standardize_backward_cpu")),
        tolerance=Tolerance(float32=4e-6, float64=1e-13),
        flops=lambda x, **_: 6.0 * np.prod(x),
        traffic=lambda x, **_: 2.0 * np.prod(x),
        source="Ba, Kiros, Hinton: Layer Normalization, 2016",
    )
)
