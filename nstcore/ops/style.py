"""The costs of style transfer that need no Gram matrix: content, and roughness."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.backend.memory import empty
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_shapes, register
from nstcore.ops.elementwise import operand


def content_loss(a: Any, target: Any) -> Any:
    """J_content = ½ Σ (a − target)², over every element of every image.

    a, target: activations (n, h, w, c), of the picture and of the content image, float32 or float64, both the same.
    Gives a scalar, summed in float64; a tensor if either is.
    Raises `ShapeError` when the shapes differ, `DTypeError` when the types do.
    Source: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, equation 1.

    >>> content_loss(np.full((1, 2, 2, 3), 2, np.float32), np.ones((1, 2, 2, 3), np.float32))
    array(6., dtype=float32)
    """
    a, target = operand(a, None), operand(target, None)
    check_shapes(CONTENT_LOSS, (a, target))
    check_dtypes(CONTENT_LOSS, (a, target))
    return apply(CONTENT_LOSS, (a, target))


def total_variation(image: Any) -> Any:
    """Σ (x_i+1,j − x_ij)² + (x_i,j+1 − x_ij)²: how rough a picture is; 0 for one colour.

    image: (n, h, w, c) float32 or float64. Gives a scalar, summed in float64. Raises `ShapeError`, `DTypeError`.
    Source: Mahendran, Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR 2015, section 3.

    >>> total_variation(np.array([[0, 1, 3], [0, 1, 3]], np.float32).reshape(1, 2, 3, 1))
    array(10., dtype=float32)
    """
    image = operand(image, None)
    check_shapes(TOTAL_VARIATION, (image,))
    check_dtypes(TOTAL_VARIATION, (image,))
    return apply(TOTAL_VARIATION, (image,))


def _scalar(value: float, dtype: Any) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(value).astype(dtype)


def _content_reference(ctx: Context, a: Array, target: Array) -> Array:
    ctx.save(a, target)
    return np.asarray(0.5 * np.sum((a - target) ** 2), a.dtype)


def _content_reference_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    a, target = ctx.saved()
    da = grad * (a - target)
    return da, -da


def _content_cpu(ctx: Context, a: Array, target: Array) -> Array:
    from nstcore.backend.cpu import native

    a, target = np.ascontiguousarray(a), np.ascontiguousarray(target)
    ctx.save(a, target)
    return _scalar(native.content_loss_forward_cpu(a, target), a.dtype)


def _content_cpu_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    a, target = ctx.saved()
    parts: list[Array | None] = [None, None]
    for i, weight in enumerate((float(grad), -float(grad))):
        if ctx.needs[i]:
            parts[i] = part = empty(a.shape, a.dtype)
            native.content_loss_backward_cpu(a, target, weight, False, part)
    return tuple(parts)


def _content_cpu_add_back(ctx: Context, grad: Array, into: Array) -> None:
    from nstcore.backend.cpu import native

    a, target = ctx.saved()
    native.content_loss_backward_cpu(a, target, float(grad), True, into)


def _variation_reference(ctx: Context, x: Array) -> Array:
    ctx.save(x)
    return np.asarray(np.sum(np.diff(x, axis=1) ** 2) + np.sum(np.diff(x, axis=2) ** 2), x.dtype)


def _variation_reference_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    (x,) = ctx.saved()
    down, right, dx = np.diff(x, axis=1), np.diff(x, axis=2), np.zeros_like(x)
    dx[:, 1:] += down
    dx[:, :-1] -= down
    dx[:, :, 1:] += right
    dx[:, :, :-1] -= right
    return (2 * grad * dx,)


def _variation_cpu(ctx: Context, x: Array) -> Array:
    from nstcore.backend.cpu import native

    x = np.ascontiguousarray(x)
    ctx.save(x)
    return _scalar(native.total_variation_forward_cpu(x), x.dtype)


def _variation_cpu_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    (x,) = ctx.saved()
    dx = empty(x.shape, x.dtype)
    native.total_variation_backward_cpu(x, float(grad), dx)
    return (dx,)


# Elements around the sums of a vector (16) and a chunk (32768).
CONTENT_LOSS = register(
    Op(
        "content_loss",
        "n h w c, n h w c -> ",
        content_loss,
        Kernel(_content_reference, _content_reference_back),
        tuple(
            Case(label, (shape, shape))
            for label, shape in (
                ("one element", (1, 1, 1, 1)),
                ("partial sums", (1, 2, 4, 2)),
                ("one more", (1, 1, 17, 1)),
                ("two images", (2, 3, 5, 7)),
                ("a chunk plus one", (1, 1, 32769, 1)),
                ("no images", (0, 4, 4, 3)),
            )
        ),
        cpu=Kernel(
            _content_cpu,
            _content_cpu_back,
            ("content_loss_forward_cpu", "content_loss_backward_cpu"),
            _content_cpu_add_back,
        ),
        tolerance=Tolerance(float32=1e-6, float64=1e-14),
        flops=lambda a, _: 3.0 * a[0] * a[1] * a[2] * a[3],
        traffic=lambda a, _: 2.0 * a[0] * a[1] * a[2] * a[3],
        source="Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, eq. 1",
    )
)
TOTAL_VARIATION = register(
    Op(
        "total_variation",
        "n h w c -> ",
        total_variation,
        Kernel(_variation_reference, _variation_reference_back),
        tuple(
            Case(label, (shape,))
            for label, shape in (
                ("one pixel", (1, 1, 1, 3)),
                ("a row", (1, 1, 19, 1)),
                ("a column", (2, 19, 1, 3)),
                ("a picture", (2, 13, 17, 3)),
                ("many channels", (1, 3, 4, 33)),
                ("no images", (0, 4, 4, 3)),
            )
        ),
        cpu=Kernel(
            _variation_cpu, _variation_cpu_back, ("total_variation_forward_cpu", "total_variation_backward_cpu")
        ),
        tolerance=Tolerance(float32=1e-6, float64=1e-14),
        flops=lambda x: 6.0 * x[0] * x[1] * x[2] * x[3],
        traffic=lambda x: 1.0 * x[0] * x[1] * x[2] * x[3],
        source="Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them, CVPR 2015, section 3",
    )
)
