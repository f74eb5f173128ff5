"""Gram matrices of feature maps: which channels fire together, the texture of a style."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.backend.memory import empty
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_shapes, register
from nstcore.ops.elementwise import operand


def gram(x: Any) -> Any:
    """Gram matrix of each feature map, unnormalised: G_kk' = Σ_ij a_ijk a_ijk'.

    x: (n, h, w, c) float32 or float64. Gives (n, c, c), symmetric.
    Raises `ShapeError`, `DTypeError`.
    Source: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, equation 3.

    >>> gram(np.ones((1, 2, 2, 3), np.float32))[0, 0]
    array([4., 4., 4.], dtype=float32)
    """
    x = operand(x, None)
    check_shapes(GRAM, (x,))
    check_dtypes(GRAM, (x,))
    return apply(GRAM, (x,))


def _reference(ctx: Context, x: Array) -> Array:
    ctx.save(x)
    g: Array = np.einsum("nhwi,nhwj->nij", x, x)
    return g


def _reference_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    (x,) = ctx.saved()
    return (np.einsum("nhwi,nij->nhwj", x, grad + np.swapaxes(grad, 1, 2)),)


def _cpu(ctx: Context, x: Array) -> Array:
    from nstcore.backend.cpu import native

    x = np.ascontiguousarray(x)
    ctx.save(x)
    n, c = x.shape[0], x.shape[3]
    g = empty((n, c, c), x.dtype)
    native.gram_forward_cpu(x, g)
    return g


def _cpu_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    (x,) = ctx.saved()
    dx = empty(x.shape, x.dtype)
    native.gram_backward_cpu(x, np.ascontiguousarray(grad), dx)
    return (dx,)


# Channels around a tile (8, 16, 32 wide), pixels around a block (128) and a slice (512).
GRAM = register(
    Op(
        "gram",
        "n h w c -> n c c",
        gram,
        Kernel(_reference, _reference_back),
        (
            Case("one pixel", ((1, 1, 1, 3),)),
            Case("below a tile", ((2, 5, 7, 5),)),
            Case("one tile", ((1, 8, 16, 32),)),
            Case("tile plus one", ((1, 3, 43, 33),)),
            Case("several slices", ((1, 37, 41, 19),)),
            Case("several images", ((3, 25, 24, 8),)),
            Case("no pixels", ((1, 0, 4, 3),)),
            Case("no images", ((0, 4, 4, 3),)),
        ),
        cpu=Kernel(_cpu, _cpu_back, ("gram_forward_cpu", "gram_backward_cpu")),
        tolerance=Tolerance(float32=2e-6, float64=1e-14),
        flops=lambda x: 1.0 * x[0] * x[1] * x[2] * x[3] * (x[3] + 1),
        traffic=lambda x: x[0] * (x[1] * x[2] * x[3] + x[3] ** 2),
        source="Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, eq. 3",
    )
)
