"""Launches of ``csrc/conv/winograd_cuda.cu``, and when they are used."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.backend.cuda import Family, Launch, ceil_div, empty_like, get_precision
from nstcore.backend.cuda_conv import LARGEST, Shape

THREADS, TILES, FILTERS, POINTS, EDGE = 256, 32, 32, 16, 2
OF_CHANNELS, OF_FILTERS = 32, 8  # whose weights a block transforms

# From so many channels, filters and positions on "auto" takes it: a block computes 32 filters (channels, in the
# gradient), and to transform the weights takes as long as what is saved on about 300 positions (docs/kernels/cuda.md).
LEAST_CHANNELS, LEAST_POSITIONS = 32, 1024


def _tiles(tiles: int, filters: int) -> tuple[int, int]:
    return ceil_div(tiles, TILES), ceil_div(filters, FILTERS)


WINOGRAD = Family(
    "winograd",
    {
        "conv2d_forward_winograd_cuda": Launch(THREADS, _tiles),
        "conv2d_backward_winograd_cuda": Launch(THREADS, _tiles),
        "conv2d_forward_winograd_weights_cuda": Launch(
            THREADS, lambda channels, filters: (ceil_div(channels, OF_CHANNELS), ceil_div(filters, OF_FILTERS))
        ),
        "conv2d_backward_winograd_weights_cuda": Launch(
            THREADS, lambda channels, filters: (ceil_div(channels * filters, THREADS),)
        ),
    },
    folder="conv",
)


def uses_winograd(shape: Shape, algorithm: str, dtype: Any) -> bool:
    """Whether a convolution, and its gradient by x, are computed by F(2×2, 3×3).

    3×3 and stride 1, and either one of the Winograd algorithms by name, or "auto" and 32 channels, 32 filters and 1024
    positions. Never with a precision of tensor cores, which the tiles of ``conv_cuda.cu`` compute with.
    """
    steps = 3 * (max(shape.w, shape.q) + 1) * max(shape.c, shape.k), POINTS * shape.c * shape.k  # in 32 bits there
    if (shape.r, shape.s, shape.stride_h, shape.stride_w) != (3, 3, 1, 1) or max(steps) > LARGEST:
        return False
    if algorithm == "direct" or (dtype == np.float32 and get_precision() != "float32"):
        return False
    large = min(shape.c, shape.k) >= LEAST_CHANNELS and shape.positions >= LEAST_POSITIONS
    return algorithm != "auto" or large


def _count(n: int, rows: int, columns: int) -> int:
    return n * ceil_div(rows, EDGE) * ceil_div(columns, EDGE)


def conv2d_forward(shape: Shape, x: Any, w: Any, b: Any, relu: bool, mask: bool) -> tuple[Any, Any]:
    """As `cuda_conv.conv2d_forward`."""
    points = empty_like(w, (POINTS, shape.c, shape.k))
    WINOGRAD.run("conv2d_forward_winograd_weights_cuda", w, (shape.c, shape.k), w, points, shape.c, shape.k)
    y = empty_like(x, (shape.n, shape.p, shape.q, shape.k))
    positive = empty_like(x, y.shape, "uint8") if mask else None
    tiles = _count(shape.n, shape.p, shape.q)
    sizes = shape.h, shape.w, shape.c, shape.p, shape.q, shape.k, shape.pad_top, shape.pad_left, tiles
    arguments = x, points, b, y, positive, relu, *sizes
    WINOGRAD.run("conv2d_forward_winograd_cuda", x, (tiles, shape.k), *arguments)
    return y, positive


def conv2d_backward_input(shape: Shape, dy: Any, positive: Any, w: Any) -> Any:
    """As `cuda_conv.conv2d_backward_input`."""
    points = empty_like(w, (POINTS, shape.k, shape.c))
    WINOGRAD.run("conv2d_backward_winograd_weights_cuda", w, (shape.c, shape.k), w, points, shape.c, shape.k)
    dx = empty_like(dy, (shape.n, shape.h, shape.w, shape.c))
    tiles = _count(shape.n, shape.h, shape.w)
    padding = 2 - shape.pad_top, 2 - shape.pad_left
    sizes = shape.p, shape.q, shape.k, shape.h, shape.w, shape.c, *padding, tiles
    WINOGRAD.run("conv2d_backward_winograd_cuda", dy, (tiles, shape.c), dy, positive, points, dx, *sizes)
    return dx
