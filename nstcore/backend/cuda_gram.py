"""Launches of ``csrc/gram/gram_cuda.cu``."""

from __future__ import annotations

from typing import Any

from nstcore.backend.cuda import Family, Launch, ceil_div, empty_like

TILE, THREADS = 64, 256
SLICE = 1024  # pixels that a block sums, so that few channels of many pixels fill the machine


def _tiles(channels: int) -> int:
    side = ceil_div(channels, TILE)
    return side * (side + 1) // 2


def _slices(pixels: int) -> int:
    return max(1, ceil_div(pixels, SLICE))  # no pixels: a slice of zeros


def _elements(images: int, channels: int, *_: int) -> tuple[int, ...]:
    return ceil_div(channels * channels, THREADS), 1, images


GRAM = Family(
    "gram",
    {
        "gram_forward_parts_cuda": Launch(THREADS, lambda n, c, pixels: (_tiles(c), _slices(pixels), n)),
        "gram_forward_sum_cuda": Launch(THREADS, _elements),
        "style_loss_forward_sum_cuda": Launch(THREADS, _elements),
        "style_loss_forward_total_cuda": Launch(THREADS, lambda: (1,)),
        "gram_backward_cuda": Launch(THREADS, lambda n, c, pixels: (ceil_div(pixels, TILE), ceil_div(c, TILE), n)),
    },
    tensor_cores=True,
)


def _sizes(x: Any) -> tuple[int, int, int]:
    """Images, channels and pixels of (n, h, w, c)."""
    return x.shape[0], x.shape[3], x.shape[1] * x.shape[2]


def _parts(x: Any) -> Any:
    """The tiles of every slice of every image."""
    n, c, pixels = _sizes(x)
    parts = empty_like(x, (n, _slices(pixels), _tiles(c), TILE, TILE))
    GRAM.run("gram_forward_parts_cuda", x, (n, c, pixels), x, parts, pixels, c, SLICE)
    return parts


def gram_forward(x: Any) -> Any:
    """Gram matrices (n, c, c) of x, (n, h, w, c) and contiguous."""
    n, c, pixels = _sizes(x)
    g = empty_like(x, (n, c, c))
    GRAM.run("gram_forward_sum_cuda", x, (n, c), _parts(x), g, c, _slices(pixels))
    return g


def gram_backward(x: Any, d: Any, weight: Any, into: Any = None) -> Any:
    """weight · x (d + dᵀ), added to `into` if there is one; weight: one number on the device, or None for 1."""
    n, c, pixels = _sizes(x)
    dx = empty_like(x) if into is None else into
    GRAM.run("gram_backward_cuda", x, (n, c, pixels), x, d, weight, dx, pixels, c, into is not None)
    return dx


def style_loss_forward(x: Any, target: Any, scale: float) -> tuple[Any, Any]:
    """Σ ((G(x) − target) · scale)² as an array without axes, and its derivative by G, (n, c, c)."""
    n, c, pixels = _sizes(x)
    d, loss = empty_like(target), empty_like(x, ())
    blocks, _, images = _elements(n, c)
    losses = empty_like(x, (images * blocks,), "float64")
    slices = _slices(pixels)
    GRAM.run("style_loss_forward_sum_cuda", x, (n, c), _parts(x), target, d, losses, c, slices, scale)
    GRAM.run("style_loss_forward_total_cuda", x, (), losses, loss, len(losses))
    return loss, d
