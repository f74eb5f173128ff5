"""Gram matrices of feature maps: which channels fire together, the texture of a style; and the loss made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.backend.memory import empty
from nstcore.errors import ShapeError
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


def style_loss(a: Any, target_gram: Any) -> Any:
    """J_style of one layer = 1 / (2 h w c)² · Σ (G(a) − target_gram)², over every pair of channels of every image.

    a: activations (n, h, w, c), target_gram: (n, c, c), unnormalised as `gram` gives it; float32 or float64, both the
    same. Gives a scalar, summed in float64. The difference is scaled before it is squared, so that float32 stays finite
    at any size.
    Raises `ShapeError`, also for pictures without pixels or channels, `DTypeError`.
    Source: Gatys, Ecker, Bethge, CVPR 2016, equation 4, with N = c and M = h w.

    >>> style_loss(np.ones((1, 2, 2, 3), np.float32), np.full((1, 3, 3), 28, np.float32))
    array(9., dtype=float32)
    """
    a, target_gram = operand(a, None), operand(target_gram, None)
    sizes = check_shapes(STYLE_LOSS, (a, target_gram))
    check_dtypes(STYLE_LOSS, (a, target_gram))
    if sizes["h"] * sizes["w"] * sizes["c"] == 0:
        raise ShapeError(f"[style_loss] expects at least one element in each image, got {a.shape}")
    return apply(STYLE_LOSS, (a, target_gram))


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
    native.gram_backward_cpu(x, np.ascontiguousarray(grad), 1.0, False, dx)
    return (dx,)


def _cpu_add_back(ctx: Context, grad: Array, into: Array) -> None:
    from nstcore.backend.cpu import native

    (x,) = ctx.saved()
    native.gram_backward_cpu(x, np.ascontiguousarray(grad), 1.0, True, into)


def _scale(x: Array) -> float:
    """1 / (2 h w c)."""
    return 1.0 / (2.0 * float(x.shape[1] * x.shape[2] * x.shape[3]))


def _style_reference(ctx: Context, x: Array, target: Array) -> Array:
    ctx.save(x, target)
    difference = (np.einsum("nhwi,nhwj->nij", x, x) - target) * np.asarray(_scale(x), x.dtype)
    return np.asarray(np.sum(difference * difference))


def _style_reference_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    x, target = ctx.saved()
    d = 2 * _scale(x) * (np.einsum("nhwi,nhwj->nij", x, x) - target) * _scale(x) * grad
    return np.einsum("nhwi,nij->nhwj", x, d + np.swapaxes(d, 1, 2)), -d


def _style_cpu(ctx: Context, x: Array, target: Array) -> Array:
    from nstcore.backend.cpu import native

    x = np.ascontiguousarray(x)
    d = empty(target.shape, x.dtype)  # dJ/dG: with it the gradient needs the Gram matrix no more
    loss = native.style_loss_forward_cpu(x, np.ascontiguousarray(target), _scale(x), d)
    ctx.save(x if ctx.needs[0] else None)
    ctx.extra = d
    return np.asarray(loss).astype(x.dtype)


def _style_cpu_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    (x,), d = ctx.saved(), ctx.extra
    dx = None
    if ctx.needs[0]:
        dx = empty(x.shape, x.dtype)
        native.gram_backward_cpu(x, d, float(grad), False, dx)
    return dx, -grad * d if ctx.needs[1] else None


def _style_cpu_add_back(ctx: Context, grad: Array, into: Array) -> None:
    from nstcore.backend.cpu import native

    (x,) = ctx.saved()
    native.gram_backward_cpu(x, ctx.extra, float(grad), True, into)


def _cuda(ctx: Context, x: Array) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_gram import gram_forward

    x = contiguous(x)
    ctx.save(x)
    g: Array = gram_forward(x)
    return g


def _cuda_add_back(ctx: Context, grad: Array, into: Array | None) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_gram import gram_backward

    (x,) = ctx.saved()
    dx: Array = gram_backward(x, contiguous(grad), None, into)
    return dx


def _style_cuda(ctx: Context, x: Array, target: Array) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_gram import style_loss_forward

    x = contiguous(x)
    loss: Array
    loss, ctx.extra = style_loss_forward(x, contiguous(target), _scale(x))
    ctx.save(x if ctx.needs[0] else None)
    return loss


def _style_cuda_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    dx = _style_cuda_add_back(ctx, grad, None) if ctx.needs[0] else None
    return dx, -grad * ctx.extra if ctx.needs[1] else None


def _style_cuda_add_back(ctx: Context, grad: Array, into: Array | None) -> Array:
    from nstcore.backend.cuda_gram import gram_backward

    (x,) = ctx.saved()
    dx: Array = gram_backward(x, ctx.extra, grad, into)  # the factor stays on the device
    return dx


# Channels around a tile (8, 16, 32 wide; 64 on a GPU) and a group of columns (128), pixels around a block (256) and a
# slice (1024).
SHAPES = (
    ("one pixel", (1, 1, 1, 3)),
    ("below a tile", (2, 5, 7, 5)),
    ("one tile", (1, 8, 16, 32)),
    ("tile plus one", (1, 3, 43, 33)),
    ("half a tile more", (1, 5, 51, 48)),
    ("a block plus one", (1, 1, 257, 17)),
    ("several slices", (1, 37, 83, 19)),
    ("several groups", (1, 7, 41, 130)),
    ("several images", (3, 25, 24, 8)),
    ("no images", (0, 4, 4, 3)),
)
# More than a tile of channels (64) and a slice of pixels (1024), of several images, and multiples of neither.
LARGER = ("several of all", (2, 29, 37, 67))
GRAM = register(
    Op(
        "gram",
        "n h w c -> n c c",
        gram,
        Kernel(_reference, _reference_back),
        (*(Case(label, (x,)) for label, x in SHAPES), Case("no pixels", ((1, 0, 4, 3),))),
        cpu=Kernel(_cpu, _cpu_back, ("gram_forward_cpu", "gram_backward_cpu"), _cpu_add_back),
        cuda=Kernel(
            _cuda,
            lambda ctx, grad: (_cuda_add_back(ctx, grad, None),),
            ("gram_forward_parts_cuda", "gram_forward_sum_cuda", "gram_backward_cuda"),
            _cuda_add_back,
        ),
        cuda_cases=(Case(LARGER[0], (LARGER[1],)),),
        tolerance=Tolerance(float32=2e-6, float64=1e-14),
        flops=lambda x: 1.0 * x[0] * x[1] * x[2] * x[3] * (x[3] + 1),
        traffic=lambda x: x[0] * (x[1] * x[2] * x[3] + x[3] ** 2),
        source="Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, eq. 3",
    )
)
STYLE_LOSS = register(
    Op(
        "style_loss",
        "n h w c, n c c -> ",
        style_loss,
        Kernel(_style_reference, _style_reference_back),
        tuple(Case(label, (x, (x[0], x[3], x[3]))) for label, x in SHAPES),
        cpu=Kernel(_style_cpu, _style_cpu_back, ("style_loss_forward_cpu",), _style_cpu_add_back),
        cuda=Kernel(
            _style_cuda,
            _style_cuda_back,
            ("style_loss_forward_sum_cuda", "style_loss_forward_total_cuda"),
            _style_cuda_add_back,
        ),
        cuda_cases=(Case(LARGER[0], (LARGER[1], (2, 67, 67))),),
        tolerance=Tolerance(float32=4e-6, float64=1e-14),
        flops=lambda x, _: 1.0 * x[0] * x[1] * x[2] * x[3] * (x[3] + 1),
        traffic=lambda x, _: x[0] * (x[1] * x[2] * x[3] + 2 * x[3] ** 2),
        source="Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, eq. 4",
    )
)
