"""Launches of ``csrc/conv/conv_cuda.cu``."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import Any

from nstcore.backend.cuda import Family, Launch, ceil_div, empty_like
from nstcore.errors import ArgumentError

TILE, THREADS, LANES = 64, 256, 32
SLICE = 1024  # positions that a block sums for a weight at least
ENOUGH_BLOCKS = 512  # more slices than fill the machine would only be added again
LARGEST = 2**31 - 1


def _tiles(rows: int, columns: int, *slices: int) -> tuple[int, ...]:
    return ceil_div(rows, TILE), ceil_div(columns, TILE), *slices


CONV = Family(
    "conv",
    {
        "conv2d_forward_cuda": Launch(THREADS, _tiles),
        "conv2d_backward_input_cuda": Launch(THREADS, _tiles),
        "conv2d_backward_weight_cuda": Launch(THREADS, _tiles),
        "conv2d_backward_bias_cuda": Launch(THREADS, lambda filters, slices: (ceil_div(filters, LANES), slices)),
        "conv2d_backward_sum_cuda": Launch(THREADS, lambda elements: (ceil_div(elements, THREADS),)),
    },
    tensor_cores=True,
)


@dataclass(frozen=True)
class Shape:
    """x: (n, h, w, c), the kernel: (k, r, s, c), y: (n, p, q, k); strides and the padding above and on the left."""

    n: int
    h: int
    w: int
    c: int
    k: int
    r: int
    s: int
    p: int
    q: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int

    def __post_init__(self) -> None:
        reach = (self.p - 1) * self.stride_h + self.r, (self.q - 1) * self.stride_w + self.s
        if max(self.positions, self.n * self.h * self.w, self.depth, *reach, self.r * self.s * self.k) > LARGEST:
            raise ArgumentError(
                f"[conv2d] expects fewer than 2^31 positions, pixels and taps on a GPU, got x "
                f"({self.n}, {self.h}, {self.w}, {self.c}), w ({self.k}, {self.r}, {self.s}, {self.c})"
            )

    @property
    def positions(self) -> int:
        return self.n * self.p * self.q

    @property
    def depth(self) -> int:
        """Taps of a result."""
        return self.r * self.s * self.c

    @property
    def numbers(self) -> tuple[int, ...]:
        return astuple(self)


def conv2d_forward(shape: Shape, x: Any, w: Any, b: Any, relu: bool, mask: bool) -> tuple[Any, Any]:
    """y, and where it is above 0, a byte an element, if that is wanted; arrays contiguous, b may be None."""
    y = empty_like(x, (shape.n, shape.p, shape.q, shape.k))
    positive = empty_like(x, y.shape, "uint8") if mask else None
    sizes = (shape.positions, shape.k)
    CONV.run("conv2d_forward_cuda", x, sizes, x, w, b, y, positive, relu, *shape.numbers)
    return y, positive


def conv2d_backward_input(shape: Shape, dy: Any, positive: Any, w: Any) -> Any:
    """The gradient by x."""
    dx = empty_like(dy, (shape.n, shape.h, shape.w, shape.c))
    sizes = (shape.n * shape.h * shape.w, shape.c)
    CONV.run("conv2d_backward_input_cuda", dy, sizes, dy, positive, w, dx, *shape.numbers)
    return dx


def _sum_of_parts(parts: Any, to: Any) -> Any:
    CONV.run("conv2d_backward_sum_cuda", to, (to.size,), parts, to, to.size, len(parts))
    return to


def _slices(positions: int, tiles: int) -> tuple[int, int]:
    """How many slices the positions are cut into, and how long they are."""
    wanted = min(ceil_div(positions, SLICE), ENOUGH_BLOCKS // max(1, tiles))
    length = max(1, ceil_div(positions, max(1, wanted)))
    return max(1, ceil_div(positions, length)), length  # no positions: a slice of zeros


def conv2d_backward_weight(shape: Shape, x: Any, dy: Any, positive: Any) -> Any:
    """The gradient by the kernel."""
    rows, columns = _tiles(shape.k, shape.depth)
    slices, length = _slices(shape.positions, rows * columns)
    parts = empty_like(dy, (slices, shape.k, shape.depth))
    sizes = (shape.k, shape.depth, slices)
    CONV.run("conv2d_backward_weight_cuda", dy, sizes, x, dy, positive, parts, length, *shape.numbers)
    return _sum_of_parts(parts, empty_like(dy, (shape.k, shape.r, shape.s, shape.c)))


def conv2d_backward_bias(dy: Any, positive: Any) -> Any:
    """The gradient by the bias."""
    filters = dy.shape[3]
    positions = math.prod(dy.shape[:3])
    slices, length = _slices(positions, ceil_div(filters, LANES))
    parts = empty_like(dy, (slices, filters))
    sizes = (filters, slices)
    CONV.run("conv2d_backward_bias_cuda", dy, sizes, dy, positive, parts, length, positions, filters)
    return _sum_of_parts(parts, empty_like(dy, (filters,)))
