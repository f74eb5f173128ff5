"""Max and average pooling of feature maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.backend.arrays import as_array, beside
from nstcore.backend.memory import empty
from nstcore.errors import ArgumentError, ShapeError
from nstcore.ops._op import Array, Case, Kernel, Op, Reach, Tolerance, check_dtypes, check_shapes, pair, register
from nstcore.ops.elementwise import operand

Pair = int | tuple[int, int]


@dataclass(frozen=True)
class _Axis:
    """The windows along one axis: window o starts at pixel o · stride − padding."""

    name: str
    pixels: int
    window: int
    stride: int
    padding: int
    ceil_mode: bool

    def __len__(self) -> int:
        """Number of windows; in `ceil_mode` with a last one that hangs over, unless it starts in the right padding."""
        room = self.pixels + 2 * self.padding - self.window
        if not self.ceil_mode:
            return room // self.stride + 1
        count = (room + self.stride - 1) // self.stride + 1
        return count - 1 if (count - 1) * self.stride >= self.pixels + self.padding else count

    def real(self, o: int) -> slice:
        """The pixels of window `o`."""
        start = o * self.stride - self.padding
        return slice(max(start, 0), min(start + self.window, self.pixels))

    def counted(self, o: int, padding_too: bool) -> int:
        """How many of them an average divides by."""
        if not padding_too:
            real = self.real(o)
            return int(real.stop - real.start)
        start = o * self.stride - self.padding
        return min(start + self.window, self.pixels + self.padding) - start

    @property
    def numbers(self) -> tuple[int, int, int]:
        return self.window, self.stride, self.padding

    @property
    def launched(self) -> tuple[int, int, int, int, int]:
        """As the CUDA kernels take it."""
        return (self.pixels, len(self), *self.numbers)


def max_pool2d(x: Any, size: Pair, stride: Pair | None = None, padding: Pair = 0, ceil_mode: bool = False) -> Any:
    """Largest value of each window: y_npqc = max over the window of x_nijc.

    x: (n, h, w, c) float32 or float64. size, stride, padding: pixels, one number or (down, across); stride None means
    `size`; padding counts as −∞ and is at most half of `size`. ceil_mode: keep a last window that hangs over the edge,
    if it starts inside the picture or its left padding. Gives (n, p, q, c), p = ⌊(h + 2 padding − size) / stride⌋ + 1.

    The first of equal values, row by row, takes the whole gradient. A NaN makes its windows NaN.
    Raises `ShapeError` when a window is larger than the padded picture, `ArgumentError`, `DTypeError`.

    >>> max_pool2d(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """
    return _pool(MAX_POOL2D, x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode)


def avg_pool2d(
    x: Any,
    size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Any:
    """Mean of each window: y_npqc = Σ over the window of x_nijc / count.

    Arguments and errors as `max_pool2d`; padding adds 0. count: the real pixels of the window; with count_include_pad
    its padding too (but never what hangs over the padding in ceil_mode).

    >>> avg_pool2d(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """
    return _pool(
        AVG_POOL2D,
        x,
        size=size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


def channel_peaks(x: Any) -> tuple[Array, Array]:
    """The highest value of each channel, v_nc = max over i, j of x_nijc, and the place i · w + j of it.

    x: (n, h, w, c) float32 or float64. Gives (n, c) of the same type and (n, c) int64. Of equal values it is the first,
    row by row. NaN counts as nothing; a channel that has nothing above −∞ gives −∞ and −1. There is no gradient: of
    tensors, the arrays are used.
    Raises `ShapeError`, `DTypeError`.

    >>> channel_peaks(np.array([[[[1.0, 9.0], [3.0, 9.0]]]]))
    (array([[3., 9.]]), array([[1, 0]]))
    """
    x = x.data if isinstance(x, Tensor) else as_array(x)
    check_shapes(CHANNEL_PEAKS, (x,))
    check_dtypes(CHANNEL_PEAKS, (x,))
    values, places = apply(CHANNEL_PEAKS, (x,))
    return values, places


def _pool(op: Op, x: Any, **params: Any) -> Any:
    x = operand(x, None)
    check_shapes(op, (x,))
    check_dtypes(op, (x,))
    for axis in _axes(op.name, x.shape, **params):
        if axis.pixels < 1 or axis.window > axis.pixels + 2 * axis.padding:
            raise ShapeError(
                f"[{op.name}] expects windows no larger than the padded picture, got size {axis.window} for "
                f"{axis.name} = {axis.pixels} with padding {axis.padding}"
            )
    return apply(op, (x,), **params)


def _axes(
    name: str,
    shape: tuple[int, ...],
    size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> tuple[_Axis, _Axis]:
    """The windows down and across a picture of `shape`."""
    sizes = pair(name, "size", size, 1)
    strides = sizes if stride is None else pair(name, "stride", stride, 1)
    paddings = pair(name, "padding", padding, 0)
    if any(2 * p > s for p, s in zip(paddings, sizes, strict=True)):
        raise ArgumentError(f"[{name}] expects padding of at most half of size, got padding {padding} for size {size}")
    down, across = (_Axis("hw"[i], shape[1 + i], sizes[i], strides[i], paddings[i], bool(ceil_mode)) for i in range(2))
    return down, across


def _windows(down: _Axis, across: _Axis) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """Each window, row by row: its place in the result, and the index of its pixels in the picture."""
    for p in range(len(down)):
        for q in range(len(across)):
            yield p, q, (slice(None), down.real(p), across.real(q))


def _flat(window: Array) -> Array:
    """(n, rows, columns, c) as (n, rows · columns, c)."""
    return window.reshape(window.shape[0], -1 if window.size else window.shape[1] * window.shape[2], window.shape[3])


def _max_reference(ctx: Context, x: Array, **params: Any) -> Array:
    ctx.save(x)
    down, across = _axes("max_pool2d", x.shape, **params)
    y = empty((x.shape[0], len(down), len(across), x.shape[3]), x.dtype)
    for p, q, pixels in _windows(down, across):
        y[:, p, q] = np.max(_flat(x[pixels]), axis=1)
    return y


def _max_reference_back(ctx: Context, grad: Array, **params: Any) -> tuple[Array | None, ...]:
    (x,) = ctx.saved()
    dx = np.zeros_like(x)
    for p, q, pixels in _windows(*_axes("max_pool2d", x.shape, **params)):
        window = dx[pixels]
        winner = np.argmax(_flat(x[pixels]), axis=1)  # the first of equal ones, or the first NaN
        row, column = np.divmod(winner, window.shape[2])
        n, c = np.indices(winner.shape)
        window[n, row, column, c] += grad[:, p, q]
    return (dx,)


def _peaks_reference(ctx: Context, x: Array) -> tuple[Array, Array]:
    n, h, w, c = x.shape
    known = np.where(np.isnan(x), -np.inf, x).reshape(n, h * w, c).astype(x.dtype)
    if x.size == 0:
        return beside(np.full((n, c), -np.inf, x.dtype), x), beside(np.full((n, c), -1), x)
    values, places = known.max(axis=1), np.argmax(known, axis=1)
    return values, np.where(values == -np.inf, -1, places).astype(np.int64)


def _peaks_cpu(ctx: Context, x: Array) -> tuple[Array, Array]:
    from nstcore.backend.cpu import native

    values, places = np.empty((len(x), x.shape[3]), x.dtype), np.empty((len(x), x.shape[3]), np.int64)
    native.channel_peaks_forward_cpu(np.ascontiguousarray(x), values, places)
    return values, places


def _avg_reference(ctx: Context, x: Array, **params: Any) -> Array:
    ctx.extra = x.shape
    down, across = _axes("avg_pool2d", x.shape, **params)
    padding_too = params.get("count_include_pad", False)
    y = empty((x.shape[0], len(down), len(across), x.shape[3]), x.dtype)
    for p, q, pixels in _windows(down, across):
        y[:, p, q] = np.sum(x[pixels], axis=(1, 2)) / (down.counted(p, padding_too) * across.counted(q, padding_too))
    return y


def _avg_reference_back(ctx: Context, grad: Array, **params: Any) -> tuple[Array | None, ...]:
    down, across = _axes("avg_pool2d", ctx.extra, **params)
    padding_too = params.get("count_include_pad", False)
    dx = np.zeros(ctx.extra, grad.dtype)
    for p, q, pixels in _windows(down, across):
        dx[pixels] += grad[:, p : p + 1, q : q + 1] / (down.counted(p, padding_too) * across.counted(q, padding_too))
    return (dx,)


def _max_cpu(ctx: Context, x: Array, **params: Any) -> Array:
    from nstcore.backend.cpu import native

    x = np.ascontiguousarray(x)
    down, across = _axes("max_pool2d", x.shape, **params)
    y = empty((x.shape[0], len(down), len(across), x.shape[3]), x.dtype)
    # Which tap won, in one byte: a gradient that needs neither x nor y, so that their memory can go.
    index = np.uint8 if down.window * across.window <= 256 else np.int32
    at = empty(y.shape if any(ctx.needs) else (0,), index)
    native.max_pool2d_forward_cpu(x, y, at, down.numbers, across.numbers)
    ctx.extra = (at, x.shape)
    return y


def _max_cpu_back(ctx: Context, grad: Array, **params: Any) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    at, shape = ctx.extra
    down, across = _axes("max_pool2d", shape, **params)
    dx = empty(shape, grad.dtype)
    native.max_pool2d_backward_cpu(np.ascontiguousarray(grad), at, dx, down.numbers, across.numbers)
    return (dx,)


def _avg_cpu(ctx: Context, x: Array, **params: Any) -> Array:
    from nstcore.backend.cpu import native

    x = np.ascontiguousarray(x)
    ctx.extra = x.shape
    down, across = _axes("avg_pool2d", x.shape, **params)
    y = empty((x.shape[0], len(down), len(across), x.shape[3]), x.dtype)
    native.avg_pool2d_forward_cpu(x, y, down.numbers, across.numbers, bool(params.get("count_include_pad", False)))
    return y


def _avg_cpu_back(ctx: Context, grad: Array, **params: Any) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    down, across = _axes("avg_pool2d", ctx.extra, **params)
    dx = empty(ctx.extra, grad.dtype)
    include = bool(params.get("count_include_pad", False))
    native.avg_pool2d_backward_cpu(np.ascontiguousarray(grad), dx, down.numbers, across.numbers, include)
    return (dx,)


def _max_cuda(ctx: Context, x: Array, **params: Any) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_pool import max_pool2d_forward

    down, across = (axis.launched for axis in _axes("max_pool2d", x.shape, **params))
    y: Array
    y, at = max_pool2d_forward(contiguous(x), down, across, any(ctx.needs))
    ctx.extra = (at, down, across)
    return y


def _max_cuda_back(ctx: Context, grad: Array, **params: Any) -> tuple[Array | None, ...]:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_pool import max_pool2d_backward

    return (max_pool2d_backward(contiguous(grad), *ctx.extra),)


def _avg_cuda(ctx: Context, x: Array, **params: Any) -> Array:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_pool import avg_pool2d_forward

    down, across = (axis.launched for axis in _axes("avg_pool2d", x.shape, **params))
    ctx.extra = (down, across, bool(params.get("count_include_pad", False)))
    y: Array = avg_pool2d_forward(contiguous(x), *ctx.extra)
    return y


def _avg_cuda_back(ctx: Context, grad: Array, **params: Any) -> tuple[Array | None, ...]:
    from nstcore.backend.cuda import contiguous
    from nstcore.backend.cuda_pool import avg_pool2d_backward

    return (avg_pool2d_backward(contiguous(grad), *ctx.extra),)


def _flops(name: str) -> Any:
    def flops(x: tuple[int, ...], **params: Any) -> float:
        down, across = _axes(name, x, **params)
        return 1.0 * x[0] * x[3] * len(down) * len(across) * down.window * across.window

    return flops


def _traffic(name: str) -> Any:
    def traffic(x: tuple[int, ...], **params: Any) -> float:
        down, across = _axes(name, x, **params)
        return float(x[0] * x[3] * (x[1] * x[2] + len(down) * len(across)))

    return traffic


def _reach(name: str) -> Any:
    def reach(x: tuple[int, ...], **params: Any) -> tuple[Reach, Reach]:
        down, across = (Reach(*axis.numbers) for axis in _axes(name, x, **params))
        return down, across

    return reach


def _spread(rng: np.random.Generator, shape: tuple[int, ...], _: int) -> Array:
    """A shuffled grid: no two values are closer than 0.01, so no window is nearly tied."""
    return 0.01 * (rng.permutation(int(np.prod(shape))) - 0.5 * np.prod(shape)).reshape(shape)


# Channels around a vector (2, 4, 8, 16 lanes), windows that abut, overlap, leave gaps, and stick out.
CASES = (
    Case("one window", ((1, 2, 2, 3),), {"size": 2}, _spread),
    Case("halves", ((2, 6, 8, 16),), {"size": 2}, _spread),
    Case("a row and column left over", ((1, 7, 5, 17),), {"size": 2}, _spread),
    Case("ceil mode", ((1, 7, 6, 5),), {"size": 3, "stride": 2, "ceil_mode": True}, _spread),
    Case("overlapping", ((2, 9, 8, 19),), {"size": 3, "stride": 2, "padding": 1}, _spread),
    Case("overlapping, stride 1", ((1, 5, 6, 33),), {"size": 3, "stride": 1, "padding": 1}, _spread),
    Case("oblong", ((1, 8, 9, 7),), {"size": (3, 2), "stride": (1, 3), "padding": (1, 0)}, _spread),
    Case("gaps", ((1, 8, 11, 4),), {"size": 2, "stride": 3}, _spread),
    Case("padding in ceil mode", ((1, 5, 6, 3),), {"size": 4, "stride": 3, "padding": 2, "ceil_mode": True}, _spread),
    Case("more than 256 taps", ((1, 18, 17, 2),), {"size": 17, "stride": 1}, _spread),
    Case("no images", ((0, 4, 4, 3),), {"size": 2}, _spread),
    Case("no channels", ((1, 4, 4, 0),), {"size": 2}, _spread),
)
# More than a block of the columns' channels (256), before and after.
LARGER = (
    Case("several blocks", ((2, 9, 35, 17),), {"size": 3, "stride": 2, "padding": 1}, _spread),
    Case("several blocks, more than 256 taps", ((1, 20, 41, 13),), {"size": 17, "stride": 1}, _spread),
)
MAX_POOL2D = register(
    Op(
        "max_pool2d",
        "n h w c -> n p q c",
        max_pool2d,
        Kernel(_max_reference, _max_reference_back),
        CASES,
        cpu=Kernel(_max_cpu, _max_cpu_back, ("max_pool2d_forward_cpu", "max_pool2d_backward_cpu")),
        cuda=Kernel(
            _max_cuda,
            _max_cuda_back,
            (
                "max_pool2d_forward_cuda",
                "max_pool2d_forward_wide_cuda",
                "max_pool2d_backward_cuda",
                "max_pool2d_backward_wide_cuda",
            ),
        ),
        cuda_cases=LARGER,
        tolerance=Tolerance(float32=1e-6, float64=1e-15),
        flops=_flops("max_pool2d"),
        traffic=_traffic("max_pool2d"),
        reach=_reach("max_pool2d"),
        source="Simonyan, Zisserman: Very Deep Convolutional Networks, ICLR 2015, section 2.1",
    )
)
AVG_POOL2D = register(
    Op(
        "avg_pool2d",
        "n h w c -> n p q c",
        avg_pool2d,
        Kernel(_avg_reference, _avg_reference_back),
        (
            *CASES,
            Case(
                "counting the padding",
                ((1, 6, 7, 17),),
                {"size": 3, "stride": 2, "padding": 1, "count_include_pad": True},
            ),
            Case(
                "counting the padding in ceil mode",
                ((1, 6, 5, 3),),
                {"size": 4, "stride": 3, "padding": 1, "ceil_mode": True, "count_include_pad": True},
            ),
        ),
        cpu=Kernel(_avg_cpu, _avg_cpu_back, ("avg_pool2d_forward_cpu", "avg_pool2d_backward_cpu")),
        cuda=Kernel(_avg_cuda, _avg_cuda_back, ("avg_pool2d_forward_cuda", "avg_pool2d_backward_cuda")),
        cuda_cases=LARGER,
        tolerance=Tolerance(float32=1e-6, float64=2e-15),
        flops=_flops("avg_pool2d"),
        traffic=_traffic("avg_pool2d"),
        reach=_reach("avg_pool2d"),
        source="Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, section 2",
    )
)
CHANNEL_PEAKS = register(
    Op(
        "channel_peaks",
        "n h w c -> n c",
        channel_peaks,
        Kernel(_peaks_reference, None),
        # Channels around one and around four vectors, pixels around a block of 128 KiB.
        (
            Case("one pixel", ((1, 1, 1, 3),)),
            Case("a vector and one", ((2, 5, 7, 17),)),
            Case("four vectors and more", ((1, 6, 5, 83),)),
            Case("several blocks", ((2, 33, 65, 64),)),
            Case("one channel, several blocks", ((1, 190, 177, 1),)),
            Case("no images", ((0, 4, 4, 3),)),
            Case("no pixels", ((1, 0, 4, 3),)),
            Case("no channels", ((1, 4, 4, 0),)),
        ),
        cpu=Kernel(_peaks_cpu, None, ("channel_peaks_forward_cpu",)),
        tolerance=Tolerance(float32=0.0, float64=0.0),
        gradient=False,
        flops=lambda x: float(np.prod(x)),
        traffic=lambda x: float(np.prod(x)),
        source="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014, section 4",
    )
)
