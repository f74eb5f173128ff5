"""Normalisation of a feature map by the activity of neighbouring channels."""

from __future__ import annotations

import math
from typing import Any

from nstcore.autograd.engine import Context, apply
from nstcore.backend.arrays import as_array
from nstcore.errors import ArgumentError
from nstcore.ops._op import (
    Array,
    Case,
    Kernel,
    Op,
    Tolerance,
    check_dtypes,
    check_shapes,
    reach_in_place,
    register,
    whole,
)
from nstcore.ops.elementwise import operand


def local_response_norm(x: Any, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """Local response normalisation y_i = x_i / (k + α Σ_j x_j²)^β, over the channels j with |j − i| ≤ ⌊size / 2⌋.

    x: (n, h, w, c) float32 or float64. size: channels in the window, an odd number; at the first and the last channel
    the window is cut off. alpha, beta, k: at least 0, k above it. Gives (n, h, w, c).
    The paper has k = 2 and α = 1e-4; Caffe and PyTorch divide α by `size` first, and have k = 1.
    Raises `ShapeError`, `DTypeError`, `ArgumentError`.
    Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
    NIPS 2012, section 3.3.

    >>> local_response_norm(np.full((1, 1, 1, 3), 2.0), size=3, alpha=1.0, beta=1.0)[0, 0, 0].round(4)
    array([0.2222, 0.1538, 0.2222])
    """
    x = operand(x, None)
    check_shapes(LOCAL_RESPONSE_NORM, (x,))
    check_dtypes(LOCAL_RESPONSE_NORM, (x,))
    if whole("local_response_norm", "a size", size) < 1 or size % 2 == 0:
        raise ArgumentError(f"[local_response_norm] expects an odd size, got {size}")
    for name, value, least in (("alpha", alpha, 0.0), ("beta", beta, 0.0), ("k", k, math.ulp(0.0))):
        if not least <= value < math.inf:
            raise ArgumentError(f"[local_response_norm] expects {name} {'>= 0' if least == 0 else '> 0'}, got {value}")
    return apply(LOCAL_RESPONSE_NORM, (x,), size=int(size), alpha=float(alpha), beta=float(beta), k=float(k))


def _window_sums(a: Array, size: int) -> Array:
    """Sum over the `size` channels around each one; the window is symmetric, so this is its own transpose."""
    total: Array = a.copy()
    for shift in range(1, min(size // 2, a.shape[-1] - 1) + 1):
        total[..., shift:] += a[..., :-shift]
        total[..., :-shift] += a[..., shift:]
    return total


def _forward(ctx: Context, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    scale = _window_sums(x * x, size)
    scale *= x.dtype.type(alpha)
    scale += x.dtype.type(k)
    ctx.save(x)
    ctx.extra = scale if any(ctx.needs) else None
    y: Array = as_array(x * scale**-beta, x.dtype)
    return y


def _backward(ctx: Context, grad: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array | None, ...]:
    """∂J/∂x_i = g_i s_i^−β − 2αβ x_i Σ_j g_j x_j s_j^(−β−1), with s the sum in the brackets."""
    (x,), scale = ctx.saved(), ctx.extra
    shared = _window_sums(grad * x * scale ** (-beta - 1), size)
    return (as_array(grad * scale**-beta - (2 * alpha * beta) * x * shared, x.dtype),)


LOCAL_RESPONSE_NORM = register(
    Op(
        "local_response_norm",
        "n h w c -> n h w c",
        local_response_norm,
        Kernel(_forward, _backward),
        (
            Case("the course's network", ((2, 3, 4, 12),), {"alpha": 2e-5}),
            Case("strong", ((1, 3, 2, 7),), {"size": 3, "alpha": 0.7, "beta": 1.5, "k": 2.0}),
            Case("a window wider than the channels", ((1, 2, 2, 3),), {"size": 9, "alpha": 0.5}),
            Case("one channel", ((1, 2, 3, 1),), {"size": 5, "alpha": 0.5}),
            Case("one at a time", ((1, 2, 3, 4),), {"size": 1, "alpha": 0.5}),
            Case("no images", ((0, 2, 2, 3),), {}),
            Case("no channels", ((1, 2, 2, 0),), {}),
        ),
        tolerance=Tolerance(float32=2e-6, float64=1e-13),
        reach=reach_in_place,
        source="Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep ConvNets, NIPS 2012, section 3.3",
    )
)
