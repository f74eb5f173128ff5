"""Launches of ``csrc/pool/pool_cuda.cu``."""

from __future__ import annotations

from typing import Any

from nstcore.backend.cuda import Family, Launch, ceil_div, empty_like

THREADS = 256
MOST_BLOCKS = 65535  # of a grid, but along its first axis
BYTE_TAPS = 256  # of a window whose winner is kept in a byte

Axis = tuple[int, int, int, int, int]  # pixels, windows, size of a window, stride, padding


def _elements(images: int, rows: int, columns: int, channels: int) -> tuple[int, ...]:
    return ceil_div(columns * channels, THREADS), min(rows, MOST_BLOCKS), min(images, MOST_BLOCKS)


POOL = Family(
    "pool",
    {
        f"{name}_cuda": Launch(THREADS, _elements)
        for name in (
            "max_pool2d_forward", "max_pool2d_forward_wide", "max_pool2d_backward", "max_pool2d_backward_wide",
            "avg_pool2d_forward", "avg_pool2d_backward",
        )
    },
)  # fmt: skip


def _wide(down: Axis, across: Axis) -> str:
    return "" if down[2] * across[2] <= BYTE_TAPS else "_wide"


def _result(x: Any, down: Axis, across: Axis, dtype: Any = None) -> Any:
    return empty_like(x, (x.shape[0], down[1], across[1], x.shape[3]), dtype)


def max_pool2d_forward(x: Any, down: Axis, across: Axis, winners: bool) -> tuple[Any, Any]:
    """The largest of each window of x, (n, h, w, c) and contiguous, and which tap it is, if that is wanted."""
    y, wide = _result(x, down, across), _wide(down, across)
    at = _result(x, down, across, "int32" if wide else "uint8") if winners else None
    POOL.run(f"max_pool2d_forward{wide}_cuda", x, y.shape, x, y, at, y.shape[0], y.shape[3], *down, *across)
    return y, at


def max_pool2d_backward(dy: Any, at: Any, down: Axis, across: Axis) -> Any:
    """The gradient by x of that of y."""
    n, _, _, c = dy.shape
    dx = empty_like(dy, (n, down[0], across[0], c))
    kernel = f"max_pool2d_backward{_wide(down, across)}_cuda"
    POOL.run(kernel, dy, dx.shape, dy, at, dx, n, c, *down, *across)
    return dx


def avg_pool2d_forward(x: Any, down: Axis, across: Axis, padding_too: bool) -> Any:
    """The mean of each window of x, (n, h, w, c) and contiguous."""
    y = _result(x, down, across)
    POOL.run("avg_pool2d_forward_cuda", x, y.shape, x, y, y.shape[0], y.shape[3], *down, *across, padding_too)
    return y


def avg_pool2d_backward(dy: Any, down: Axis, across: Axis, padding_too: bool) -> Any:
    """The gradient by x of that of y."""
    n, _, _, c = dy.shape
    dx = empty_like(dy, (n, down[0], across[0], c))
    POOL.run("avg_pool2d_backward_cuda", dy, dx.shape, dy, dx, n, c, *down, *across, padding_too)
    return dx
