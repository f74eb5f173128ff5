"""The costs of style transfer that need no Gram matrix, and what a network does to a picture first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.backend.memory import empty
from nstcore.errors import ShapeError
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_shapes, reach_in_place, register
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


def normalize_channels(x: Any, scale: Sequence[float], shift: Sequence[float], reverse: bool = False) -> Any:
    """y_ijk = x_ijk' · scale_k + shift_k, k' = k, or c − 1 − k in `reverse`: what a network expects of a picture.

    x: (n, h, w, c) float32 or float64; scale, shift: c numbers; reverse: RGB to BGR. Gives the shape and type of x.
    Raises `ShapeError`, `DTypeError`.

    >>> normalize_channels(np.array([[[[0.0, 0.5, 1.0]]]]), (255, 255, 255), (-104, -117, -124), reverse=True)
    array([[[[ 151. ,   10.5, -124. ]]]])
    """
    x = operand(x, None)
    sizes = check_shapes(NORMALIZE_CHANNELS, (x,))
    check_dtypes(NORMALIZE_CHANNELS, (x,))
    scales, shifts = tuple(map(float, scale)), tuple(map(float, shift))
    if not len(scales) == len(shifts) == sizes["c"]:
        raise ShapeError(
            f"[normalize_channels] expects one scale and shift a channel, got {len(scales)} and {len(shifts)} "
            f"for {x.shape}"
        )
    return apply(NORMALIZE_CHANNELS, (x,), scale=scales, shift=shifts, reverse=bool(reverse))


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


Numbers = tuple[float, ...]


def _normalize_reference(ctx: Context, x: Array, scale: Numbers, shift: Numbers, reverse: bool) -> Array:
    y: Array = (x[..., ::-1] if reverse else x) * np.array(scale, x.dtype) + np.array(shift, x.dtype)
    return y


def _normalize_reference_back(
    ctx: Context, grad: Array, scale: Numbers, shift: Numbers, reverse: bool
) -> tuple[Array | None, ...]:
    dx = grad * np.array(scale, grad.dtype)
    return (dx[..., ::-1] if reverse else dx,)


def _normalize_cpu(ctx: Context, x: Array, scale: Numbers, shift: Numbers, reverse: bool) -> Array:
    from nstcore.backend.cpu import native

    y = empty(x.shape, x.dtype)
    native.normalize_channels_forward_cpu(np.ascontiguousarray(x), scale, shift, reverse, y)
    return y


def _normalize_cpu_back(
    ctx: Context, grad: Array, scale: Numbers, shift: Numbers, reverse: bool
) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    dx = empty(grad.shape, grad.dtype)
    native.normalize_channels_backward_cpu(np.ascontiguousarray(grad), scale, reverse, dx)
    return (dx,)


def _content_cuda(ctx: Context, a: Array, target: Array) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_style import content_loss_forward

    a, target = contiguous(a), contiguous(target)
    ctx.save(a, target)
    loss: Array = content_loss_forward(a, target)
    return loss


def _content_cuda_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cuda_style import content_loss_backward

    a, target = ctx.saved()
    signs = zip(ctx.needs, (1.0, -1.0), strict=True)
    return tuple(content_loss_backward(a, target, grad, sign) if need else None for need, sign in signs)


def _content_cuda_add_back(ctx: Context, grad: Array, into: Array) -> None:
    from nstcore.backend.cuda_style import content_loss_backward

    a, target = ctx.saved()
    content_loss_backward(a, target, grad, 1.0, into)


def _variation_cuda(ctx: Context, x: Array) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_style import total_variation_forward

    x = contiguous(x)
    ctx.save(x)
    loss: Array = total_variation_forward(x)
    return loss


def _variation_cuda_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cuda_style import total_variation_backward

    (x,) = ctx.saved()
    return (total_variation_backward(x, grad),)


def _normalize_cuda(ctx: Context, x: Array, scale: Numbers, shift: Numbers, reverse: bool) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_style import normalize_channels_forward

    y: Array = normalize_channels_forward(contiguous(x), scale, shift, reverse)
    return y


def _normalize_cuda_back(
    ctx: Context, grad: Array, scale: Numbers, shift: Numbers, reverse: bool
) -> tuple[Array | None, ...]:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_style import normalize_channels_backward

    return (normalize_channels_backward(contiguous(grad), scale, reverse),)


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
        cuda=Kernel(
            _content_cuda,
            _content_cuda_back,
            ("content_loss_forward_cuda", "content_loss_forward_total_cuda", "content_loss_backward_cuda"),
            _content_cuda_add_back,
        ),
        cuda_cases=(Case("more than all blocks", ((1, 1, 262145, 1),) * 2),),
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
        cuda=Kernel(
            _variation_cuda,
            _variation_cuda_back,
            (
                "total_variation_forward_cuda",
                "total_variation_forward_total_cuda",
                "total_variation_backward_cuda",
            ),
        ),
        tolerance=Tolerance(float32=1e-6, float64=1e-14),
        flops=lambda x: 6.0 * x[0] * x[1] * x[2] * x[3],
        traffic=lambda x: 1.0 * x[0] * x[1] * x[2] * x[3],
        source="Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them, CVPR 2015, section 3",
    )
)
NORMALIZE_CHANNELS = register(
    Op(
        "normalize_channels",
        "n h w c -> n h w c",
        normalize_channels,
        Kernel(_normalize_reference, _normalize_reference_back),
        (
            Case("one pixel", ((1, 1, 1, 1),), {"scale": (2.0,), "shift": (-1.0,)}),
            Case("RGB", ((2, 5, 17, 3),), {"scale": (2.0, 0.5, -3.0), "shift": (-1.0, 0.0, 4.0)}),
            Case("RGB to BGR", ((1, 7, 16, 3),), {"scale": (2.0, 0.5, 3.0), "shift": (0.0, 1.0, 4.0), "reverse": True}),
            Case("no images", ((0, 4, 4, 1),), {"scale": (2.0,), "shift": (-1.0,)}),
        ),
        cpu=Kernel(
            _normalize_cpu,
            _normalize_cpu_back,
            ("normalize_channels_forward_cpu", "normalize_channels_backward_cpu"),
        ),
        cuda=Kernel(
            _normalize_cuda,
            _normalize_cuda_back,
            ("normalize_channels_forward_cuda", "normalize_channels_backward_cuda"),
        ),
        cuda_cases=(Case("several blocks", ((1, 13, 31, 1),), {"scale": (2.0,), "shift": (-1.0,)}),),
        tolerance=Tolerance(float32=1e-6, float64=1e-15),
        flops=lambda x, **_: 2.0 * x[0] * x[1] * x[2] * x[3],
        traffic=lambda x, **_: 2.0 * x[0] * x[1] * x[2] * x[3],
        reach=reach_in_place,
        source="Simonyan, Zisserman: Very Deep Convolutional Networks, ICLR 2015, section 2.1",
    )
)
