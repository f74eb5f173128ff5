"""Convolution of feature maps, with bias and ReLU fused when asked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.backend import current_backend
from nstcore.backend.arrays import on_device
from nstcore.backend.memory import empty
from nstcore.errors import ArgumentError, ShapeError
from nstcore.ops._op import (
    Array,
    Case,
    Kernel,
    Op,
    Reach,
    Tolerance,
    check_dtypes,
    check_result,
    check_shapes,
    pair,
    register,
)
from nstcore.ops.elementwise import operand, relu, relu_rule
from nstcore.ops.pool import max_pool2d

Pair = tuple[int, int]
Shape = tuple[int, ...]
Algorithm = Literal["auto", "direct", "winograd2", "winograd4", "winograd6"]

WINOGRAD_EDGES = {"winograd4": 4, "winograd6": 6}

# From this many output positions on, the saved products outweigh the transform of the weights.
WINOGRAD_POSITIONS = 64


def conv2d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: int | Pair = 1,
    padding: int | Pair | Literal["same"] = 0,
    activation: Literal["relu"] | None = None,
    algorithm: Algorithm = "auto",
    pool: bool = False,
) -> Any:
    """Cross-correlation y_npqk = act(Σ_rsc x_n,p·sh+r−ph,q·sw+s−pw,c · w_krsc + b_k), zeros outside of x.

    x: (n, h, w, c), w: (k, r, s, c), b: (k,) or None; all float32 or all float64.
    stride: at least 1, one number or (vertical, horizontal). padding: rows and columns of zeros on each side, or
    ``"same"`` for a result of ⌈h / stride⌉ × ⌈w / stride⌉. activation: ``"relu"`` or None; its derivative at 0 is 0.
    Gives (n, p, q, k) with p = ⌊(h + 2 ph − r) / sh⌋ + 1.

    algorithm: ``"direct"`` sums in the order (r, s, c); ``"winograd4"`` and ``"winograd6"`` (3×3, stride 1, c and k
    multiples of 16) work on tiles of 4×4 and 6×6 results with 4 and 5.06 times fewer multiplications, ``"winograd2"``
    (3×3, stride 1) on 2×2 with 2.25 times fewer; ``"auto"`` takes the one with the fewest where they fit and pay. The
    CPU has tiles of 4 and 6 and takes ``"winograd2"`` for ``"auto"``; a GPU has those of 2, for all three names.
    pool: give ``max_pool2d(conv2d(...), 2)``, (n, ⌊p / 2⌋, ⌊q / 2⌋, k). After a ReLU the Winograd kernels never write
    the larger result, nor its gradient.

    Raises `ShapeError`, `DTypeError`, `ArgumentError`.
    Error in float32, relative to the largest result: direct and winograd2 5e-7 to 3e-6, winograd4 to 1.6e-5, winograd6
    to 3.2e-5 (float64: 1e-15, 2e-14, 4e-14). A NaN or an infinity in x, or sums of pixels that overflow, reach all
    results of a tile of 4 or 6; the others confine them to the results that depend on them.
    Source: Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", 2016; Lavin, Gray, "Fast Algorithms
    for Convolutional Neural Networks", CVPR 2016.

    >>> conv2d(np.ones((1, 3, 3, 1), np.float32), np.ones((1, 3, 3, 1), np.float32), padding=1)[0, :, :, 0]
    array([[4., 6., 4.],
           [6., 9., 6.],
           [4., 6., 4.]], dtype=float32)
    """
    x, w, b = operand(x, None), operand(w, None), None if b is None else operand(b, None)
    sizes = check_shapes(CONV2D, (x, w, b))
    check_dtypes(CONV2D, (x, w, b))
    if activation not in (None, "relu"):
        raise ArgumentError(f"[conv2d] expects activation None or 'relu', got {activation!r}")
    if activation and relu_rule() != "gradient":  # the fused one knows the true derivative only
        y = relu(conv2d(x, w, b, stride, padding, None, algorithm))
        return max_pool2d(y, 2) if pool else y
    steps = pair("conv2d", "stride", stride, least=1)
    before, after = _padding(sizes, steps, padding)
    for axis, size, kernel, pad in (("h", "h", "r", 0), ("w", "w", "s", 1)):
        room = sizes[size] + before[pad] + after[pad]
        if not 1 <= sizes[kernel] <= room:
            raise ShapeError(
                f"[conv2d] expects 1 to {room} kernel taps along {axis} (the padded input), "
                f"got x {x.shape}, w {w.shape}"
            )
    if min(sizes["c"], sizes["k"]) < 1:
        raise ShapeError(f"[conv2d] expects at least one channel and one filter, got x {x.shape}, w {w.shape}")
    check_result("conv2d", _output_shape(x.shape, w.shape, steps, before, after), x.dtype.itemsize)
    winograd, rectified = _winograd_edge(algorithm, sizes, steps, before, after), activation == "relu"
    places = _output_shape(x.shape, w.shape, steps, before, after)[1:3]
    in_one = pool and winograd > 0 and rectified and min(places) >= 2 and _runs_native(x, w, b)
    how: dict[str, Any] = {"stride": steps, "before": before, "after": after, "relu": rectified, "winograd": winograd}
    y = apply(CONV2D, (x, w, b), **how, algorithm=algorithm, unpooled=places if in_one else None)
    return max_pool2d(y, 2) if pool and not in_one else y


def _runs_native(*inputs: Any) -> bool:
    """Whether the kernels of the CPU will compute with these tensors and arrays."""
    arrays = (x.data if isinstance(x, Tensor) else x for x in inputs)
    return current_backend() == "cpu" and not any(map(on_device, arrays))


def _winograd_edge(algorithm: str, sizes: Mapping[str, int], stride: Pair, before: Pair, after: Pair) -> int:
    """Side of the Winograd convolution's tiles that the native kernels shall use, 4 or 6; 0 for the direct sum."""
    if algorithm not in get_args(Algorithm):
        raise ArgumentError(f"[conv2d] expects algorithm {', '.join(get_args(Algorithm))}, got {algorithm!r}")
    small = (sizes["r"], sizes["s"]) == (3, 3) and stride == (1, 1)
    fits = small and sizes["c"] % 16 == sizes["k"] % 16 == 0
    if algorithm.startswith("winograd") and not (small if algorithm == "winograd2" else fits):
        of_channels = "" if algorithm == "winograd2" else ", channels and filters in multiples of 16"
        raise ArgumentError(
            f"[conv2d] {algorithm} expects a 3x3 kernel, stride 1{of_channels}, "
            f"got {sizes['r']}x{sizes['s']}, stride {stride}, {sizes['c']} and {sizes['k']}"
        )
    if algorithm not in ("auto", "winograd2"):
        return WINOGRAD_EDGES.get(algorithm, 0)
    p, q = sizes["h"] + before[0] + after[0] - 2, sizes["w"] + before[1] + after[1] - 2
    if not fits or sizes["n"] * p * q < WINOGRAD_POSITIONS:
        return 0
    # The fewest multiplications; where that is a tie, the smaller tile has the smaller error.
    return min(WINOGRAD_EDGES.values(), key=lambda edge: -(-p // edge) * -(-q // edge) * (edge + 2) ** 2)


def _padding(sizes: Mapping[str, int], stride: Pair, padding: int | Pair | str) -> tuple[Pair, Pair]:
    """Zeros before and after the rows and the columns."""
    if padding != "same":
        if isinstance(padding, str):
            raise ArgumentError(f"[conv2d] expects padding as a number, a pair or 'same', got {padding!r}")
        each = pair("conv2d", "padding", padding, least=0)
        return each, each
    totals = [
        max((-(-sizes[size] // step) - 1) * step + sizes[taps] - sizes[size], 0)
        for size, taps, step in (("h", "r", stride[0]), ("w", "s", stride[1]))
    ]
    return (totals[0] // 2, totals[1] // 2), (totals[0] - totals[0] // 2, totals[1] - totals[1] // 2)


def _output_shape(x: Shape, w: Shape, stride: Pair, before: Pair, after: Pair) -> tuple[int, int, int, int]:
    """Shape (n, p, q, k) of the result for shapes (n, h, w, c) and (k, r, s, c)."""
    p = (x[1] + before[0] + after[0] - w[1]) // stride[0] + 1
    q = (x[2] + before[1] + after[1] - w[2]) // stride[1] + 1
    return x[0], p, q, w[0]


def _taps(w: Array, y_shape: tuple[int, ...], stride: Pair) -> Iterator[tuple[int, int, slice, slice]]:
    """Each tap (r, s) with the rows and columns of the padded input that it meets."""
    for r in range(w.shape[1]):
        for s in range(w.shape[2]):
            rows = slice(r, r + (y_shape[1] - 1) * stride[0] + 1, stride[0])
            yield r, s, rows, slice(s, s + (y_shape[2] - 1) * stride[1] + 1, stride[1])


def _pad(x: Array, before: Pair, after: Pair) -> Array:
    return np.pad(x, ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)))


def _reference(
    ctx: Context, x: Array, w: Array, b: Array | None, stride: Pair, before: Pair, after: Pair, relu: bool, **_: Any
) -> Array:
    padded, y = _pad(x, before, after), np.zeros(_output_shape(x.shape, w.shape, stride, before, after), x.dtype)
    for r, s, rows, columns in _taps(w, y.shape, stride):
        y += padded[:, rows, columns] @ w[:, r, s].T
    if b is not None:
        y += b
    if relu:
        y = np.maximum(y, 0)
    ctx.save(x, w, y if relu else None)
    return y


def _reference_back(
    ctx: Context, grad: Array, stride: Pair, before: Pair, after: Pair, relu: bool, **_: Any
) -> tuple[Array | None, ...]:
    x, w, y = ctx.saved()
    if relu:
        grad = grad * (y > 0)
    padded, dw = _pad(x, before, after), np.zeros_like(w)
    dx = np.zeros_like(padded)
    for r, s, rows, columns in _taps(w, grad.shape, stride):
        dx[:, rows, columns] += grad @ w[:, r, s]
        dw[:, r, s] = np.tensordot(grad, padded[:, rows, columns], axes=((0, 1, 2), (0, 1, 2)))
    inner = dx[:, before[0] : before[0] + x.shape[1], before[1] : before[1] + x.shape[2]]
    return inner, dw, grad.sum((0, 1, 2)) if ctx.needs[2] else None


def _cpu(
    ctx: Context,
    x: Array,
    w: Array,
    b: Array | None,
    stride: Pair,
    before: Pair,
    after: Pair,
    relu: bool,
    winograd: int,
    unpooled: Pair | None,
    **_: Any,
) -> Array:
    from nstcore.backend.cpu import native

    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    bias = None if b is None else np.ascontiguousarray(b)
    n, p, q, k = _output_shape(x.shape, w.shape, stride, before, after)
    y = empty((n, p // 2, q // 2, k) if unpooled else (n, p, q, k), x.dtype)
    positive = None
    if relu and any(ctx.needs):  # the ReLU's mask, bit by bit
        positive = empty((-(-n * p * q * k // 8),), np.uint8)
        if unpooled and (p % 2 or q % 2):
            positive[...] = 0  # an odd last row or column lies in no window, and the kernel leaves its bits alone
    if winograd:
        native.conv2d_forward_winograd_cpu(x, w, bias, before, winograd, relu, unpooled, y, positive)
    else:
        native.conv2d_forward_cpu(x, w, bias, stride, before, relu, y, positive)
    ctx.extra = (x.shape, w.shape, positive)
    ctx.save(x if ctx.needs[1] else None, w if ctx.needs[0] else None)
    return y


def _cpu_back(
    ctx: Context,
    grad: Array,
    stride: Pair,
    before: Pair,
    after: Pair,
    relu: bool,
    winograd: int,
    unpooled: Pair | None,
    **_: Any,
) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    (x, w), (x_shape, w_shape, positive) = ctx.saved(), ctx.extra
    grad = np.ascontiguousarray(grad)
    dx = dw = db = None
    if ctx.needs[0]:
        dx = empty(x_shape, grad.dtype)
        if winograd:
            native.conv2d_backward_winograd_cpu(grad, positive, w, before, winograd, unpooled, dx)
        else:
            native.conv2d_backward_input_cpu(grad, positive, w, stride, before, dx)
    if ctx.needs[1]:
        dw = empty(w_shape, grad.dtype)
        if winograd:
            native.conv2d_backward_weight_winograd_cpu(x, grad, positive, before, unpooled, dw)
        else:
            native.conv2d_backward_weight_cpu(x, grad, positive, stride, before, dw)
    if ctx.needs[2]:
        grad = _unpooled(grad, unpooled) if unpooled else grad
        db = empty(w_shape[:1], grad.dtype)
        native.conv2d_backward_bias_cpu(grad, positive, db)
    return dx, dw, db


def _unpooled(grad: Array, size: Pair) -> Array:
    """Each pooled pixel in the place of all four that it came from; `positive` says which of them it is."""
    wide = grad.repeat(2, axis=1).repeat(2, axis=2)
    rest = (size[0] - wide.shape[1], size[1] - wide.shape[2])
    return np.pad(wide, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)))


def _cuda(
    ctx: Context,
    x: Array,
    w: Array,
    b: Array | None,
    stride: Pair,
    before: Pair,
    after: Pair,
    relu: bool,
    algorithm: str,
    **_: Any,
) -> Array:
    from nstcore.backend import cuda_conv, cuda_winograd
    from nstcore.backend.cuda import contiguous

    x, w, b = contiguous(x), contiguous(w), None if b is None else contiguous(b)
    (n, height, width, c), (k, r, s, _c) = x.shape, w.shape
    p, q = _output_shape(x.shape, w.shape, stride, before, after)[1:3]
    shape = cuda_conv.Shape(n, height, width, c, k, r, s, p, q, *stride, *before)
    kernels = cuda_winograd if cuda_winograd.uses_winograd(shape, algorithm, x.dtype) else cuda_conv
    y: Array
    y, positive = kernels.conv2d_forward(shape, x, w, b, relu, relu and any(ctx.needs))
    ctx.extra = (shape, positive)
    ctx.save(x if ctx.needs[1] else None, w if ctx.needs[0] else None)
    return y


def _cuda_back(ctx: Context, grad: Array, algorithm: str, **_: Any) -> tuple[Array | None, ...]:
    from nstcore.backend import cuda_conv, cuda_winograd
    from nstcore.backend.cuda import contiguous

    (x, w), (shape, positive), grad = ctx.saved(), ctx.extra, contiguous(grad)
    kernels = cuda_winograd if cuda_winograd.uses_winograd(shape, algorithm, grad.dtype) else cuda_conv
    return (
        kernels.conv2d_backward_input(shape, grad, positive, w) if ctx.needs[0] else None,
        cuda_conv.conv2d_backward_weight(shape, x, grad, positive) if ctx.needs[1] else None,
        cuda_conv.conv2d_backward_bias(grad, positive) if ctx.needs[2] else None,
    )


def _case(label: str, x: tuple[int, ...], w: tuple[int, ...], bias: bool = True, **params: Any) -> Case:
    return Case(label, (x, w, w[:1]) if bias else (x, w), params)


def _winograd(label: str, edge: int, x: tuple[int, ...], w: tuple[int, ...], **params: Any) -> Case:
    error = Tolerance(float32=2e-5, float64=4e-14) if edge == 4 else Tolerance(float32=4e-5, float64=1e-13)
    return Case(f"winograd{edge}, {label}", (x, w, w[:1]), {"algorithm": f"winograd{edge}", **params}, tolerance=error)


def _winograd_cases() -> Iterator[Case]:
    """Sizes around a tile, a block of tiles and a panel of channels, for both tiles."""
    for edge in WINOGRAD_EDGES.values():
        yield _winograd("same", edge, (1, 9, 11, 16), (32, 3, 3, 16), padding=1)
        yield _winograd("relu", edge, (2, 8, 5, 32), (48, 3, 3, 32), padding="same", activation="relu")
        yield _winograd("valid", edge, (1, 8, 8, 16), (16, 3, 3, 16))
        yield _winograd("wide padding", edge, (1, 3, 5, 16), (16, 3, 3, 16), padding=3)
        yield _winograd("blocks", edge, (1, 43, 41, 16), (16, 3, 3, 16), padding=1, activation="relu")
        yield _winograd("deep", edge, (1, 6, 5, 272), (80, 3, 3, 272), padding=1)
        yield _winograd("weights beyond L3", edge, (1, 7, 8, 512), (512, 3, 3, 512), padding=1, activation="relu")

        yield _winograd("pooled", edge, (2, 14, 12, 16), (48, 3, 3, 16), padding=1, activation="relu", pool=True)
        yield _winograd("pooled, odd", edge, (1, 9, 11, 32), (16, 3, 3, 32), padding=1, activation="relu", pool=True)


def _two_by_two_cases() -> Iterator[Case]:
    """A GPU's Winograd: more than a block of tiles (32), filters (32) and channels (4), results of odd sizes."""
    for label, x, w, params in (
        ("blocks", (2, 11, 13, 17), (65, 3, 3, 17), {"padding": 1, "activation": "relu"}),
        ("many channels", (1, 6, 9, 65), (3, 3, 3, 65), {"padding": (0, 2), "activation": "relu"}),
        ("one result", (1, 3, 3, 1), (1, 3, 3, 1), {}),
        ("one pixel", (3, 1, 1, 3), (2, 3, 3, 3), {"padding": 1}),
        ("padding beyond kernel", (1, 2, 3, 3), (4, 3, 3, 3), {"padding": 4}),
        ("no images", (0, 4, 4, 2), (3, 3, 3, 2), {"padding": 1}),
    ):
        yield _case(f"winograd2, {label}", x, w, algorithm="winograd2", **params)
    yield _case("winograd2, no bias", (1, 5, 4, 3), (4, 3, 3, 3), bias=False, algorithm="winograd2")


def _result(x: Shape, w: Shape, stride: Any = 1, padding: Any = 0) -> Shape:
    steps = pair("conv2d", "stride", stride, least=1)
    before, after = _padding({"h": x[1], "w": x[2], "r": w[1], "s": w[2]}, steps, padding)
    return _output_shape(x, w, steps, before, after)


def _flops(x: Shape, w: Shape, *_: Any, stride: Any = 1, padding: Any = 0, **__: Any) -> float:
    """Multiplications and additions of the direct sum."""
    return 2.0 * math.prod(_result(x, w, stride, padding)) * math.prod(w[1:])


def _traffic(x: Shape, w: Shape, *_: Any, stride: Any = 1, padding: Any = 0, **__: Any) -> float:
    """Input, weights and result, once each."""
    return math.prod(x) + math.prod(w) + math.prod(_result(x, w, stride, padding))


def _reach(
    _: Shape, w: Shape, *__: Any, stride: Pair, before: Pair, unpooled: Pair | None = None, **___: Any
) -> tuple[Reach, Reach]:
    side = 2 if unpooled else 1  # of the pool in the same pass
    down, across = (Reach(w[1 + i] + (side - 1) * stride[i], side * stride[i], before[i]) for i in (0, 1))
    return down, across


# Channels around a tile (8, 16 or 32 wide), positions around a block (96 to 112), depth around a chunk (512).
CONV2D = register(
    Op(
        "conv2d",
        "n h w c, k r s c, [k] -> n p q k",
        conv2d,
        Kernel(_reference, _reference_back),
        (
            _case("3x3 same", (2, 6, 7, 3), (4, 3, 3, 3), padding="same"),
            _case("3x3 valid, no bias", (1, 6, 7, 3), (4, 3, 3, 3), bias=False),
            _case("1x1", (1, 5, 5, 7), (6, 1, 1, 7)),
            _case("1x1, two chunks deep", (1, 3, 4, 600), (5, 1, 1, 600), activation="relu"),
            _case("one pixel", (1, 1, 1, 1), (1, 1, 1, 1)),
            _case("fused relu", (1, 5, 6, 3), (5, 3, 3, 3), padding=1, activation="relu"),
            _case("a tile of channels", (1, 9, 11, 16), (32, 3, 3, 16), padding=1, algorithm="direct"),
            _case("tile plus one", (1, 8, 12, 17), (33, 3, 3, 17), padding=1, activation="relu"),
            _case("two chunks deep", (1, 4, 5, 61), (9, 3, 3, 61), padding=1),
            _case("7x7 stride 2", (1, 15, 14, 3), (8, 7, 7, 3), stride=2),
            _case("stride 2 same", (1, 7, 8, 4), (5, 3, 3, 4), stride=2, padding="same"),
            _case("stride beyond kernel", (1, 8, 7, 3), (4, 2, 1, 3), stride=3),
            _case("uneven", (1, 7, 9, 2), (3, 2, 4, 2), stride=(2, 1), padding=(1, 3)),
            _case("padding beyond kernel", (1, 3, 4, 2), (3, 2, 2, 2), padding=4),
            _case("stride 2, many channels", (1, 9, 8, 34), (5, 3, 3, 34), stride=2, padding=1, activation="relu"),
            _case("stride beyond kernel, many channels", (1, 8, 7, 34), (4, 2, 1, 34), stride=3),
            _case("uneven, many channels", (2, 7, 9, 34), (3, 2, 4, 34), stride=(2, 1), padding=(1, 3)),
            _case("bands of a first layer", (1, 37, 6, 3), (7, 3, 3, 3), padding=1, activation="relu"),
            _case("even kernel same", (1, 5, 6, 2), (3, 4, 2, 2), padding="same"),
            _case("pooled", (1, 7, 6, 3), (5, 3, 3, 3), padding=1, activation="relu", pool=True),
            _case("kernel of the whole input", (2, 4, 3, 5), (6, 4, 3, 5)),
            *_winograd_cases(),
            _case("no images", (0, 4, 4, 2), (3, 3, 3, 2), padding=1),
        ),
        cpu=Kernel(
            _cpu,
            _cpu_back,
            (
                "conv2d_forward_cpu",
                "conv2d_backward_input_cpu",
                "conv2d_backward_weight_cpu",
                "conv2d_backward_bias_cpu",
                "conv2d_forward_winograd_cpu",
                "conv2d_backward_winograd_cpu",
                "conv2d_backward_weight_winograd_cpu",
            ),
        ),
        cuda=Kernel(
            _cuda,
            _cuda_back,
            (
                "conv2d_forward_cuda",
                "conv2d_backward_input_cuda",
                "conv2d_backward_weight_cuda",
                "conv2d_backward_bias_cuda",
                "conv2d_backward_sum_cuda",
                "conv2d_forward_winograd_cuda",
                "conv2d_forward_winograd_weights_cuda",
                "conv2d_backward_winograd_cuda",
                "conv2d_backward_winograd_weights_cuda",
            ),
        ),
        # More than a tile (64) of filters, channels and positions, and a slice of positions (1024).
        cuda_cases=(
            _case("several tiles", (2, 9, 7, 67), (70, 3, 3, 67), padding=1, activation="relu"),
            _case("several slices", (1, 29, 41, 5), (3, 3, 3, 5), padding=1, activation="relu"),
            *_two_by_two_cases(),
        ),
        tolerance=Tolerance(float32=3e-6, float64=1e-14),
        flops=_flops,
        traffic=_traffic,
        reach=_reach,
        source="Dumoulin, Visin: A guide to convolution arithmetic for deep learning, 2016",
    )
)
