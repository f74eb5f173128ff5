"""Launches of ``csrc/gram/gram_cuda.cu``."""

from __future__ import annotations

from typing import Any

from nstcore.backend.cuda import MOST_BLOCKS, Family, Launch, ceil_div, empty_like, stretches

TILE, THREADS = 64, 256
SLICE = 1024  # pixels that a block sums, so that few channels of many pixels fill the machine


def _tiles(channels: int) -> int:
    side = ceil_div(channels, TILE)
    return side * (side + 1) // 2


def _length(pixels: int) -> int:
    """Pixels of a slice."""
    return max(SLICE, ceil_div(pixels, MOST_BLOCKS[1]))


def _slices(pixels: int) -> int:
    return max(1, ceil_div(pixels, _length(pixels)))  # no pixels: a slice of zeros


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
    GRAM.run("gram_forward_parts_cuda", x, (n, c, pixels), x, parts, pixels, c, _length(pixels))
    return parts


def gram_forward(x: Any) -> Any:
    """Gram matrices (n, c, c) of x, (n, h, w, c) and contiguous."""
    n, c, pixels = _sizes(x)
    g = empty_like(x, (n, c, c))
    for images, to in stretches(MOST_BLOCKS[2], x, g):
        GRAM.run("gram_forward_sum_cuda", x, (len(images), c), _parts(images), to, c, _slices(pixels))
    return g


def gram_backward(x: Any, d: Any, weight: Any, into: Any = None) -> Any:
    """weight · x (d + dᵀ), added to `into` if there is one; weight: one number on the device, or None for 1."""
    _, c, pixels = _sizes(x)
    dx = empty_like(x) if into is None else into
    for images, of_d, to in stretches(MOST_BLOCKS[2], x, d, dx):
        sizes = (len(images), c, pixels)
        GRAM.run("gram_backward_cuda", x, sizes, images, of_d, weight, to, pixels, c, into is not None)
    return dx


def style_loss_forward(x: Any, target: Any, scale: float) -> tuple[Any, Any]:
    """Σ ((G(x) − target) · scale)² as an array without axes, and its derivative by G, (n, c, c)."""
    n, c, pixels = _sizes(x)
    d, loss = empty_like(target), empty_like(x, ())
    losses = empty_like(x, (n, _elements(n, c)[0]), "float64")
    for images, goal, to, part in stretches(MOST_BLOCKS[2], x, target, d, losses):
        sizes, slices = (len(images), c), _slices(pixels)
        GRAM.run("style_loss_forward_sum_cuda", x, sizes, _parts(images), goal, to, part, c, slices, scale)
    GRAM.run("style_loss_forward_total_cuda", x, (), losses, loss, losses.size)
    return loss, d
