"""Launches of ``csrc/style/style_cuda.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.backend.cuda import Family, Launch, ceil_div, empty_like, module_of

THREADS = 256
MOST_SUMS = (
    1024  # blocks that share the elements of a sum: their number, and with it the order, hangs on the size alone
)


def _elements(elements: int) -> tuple[int, ...]:
    return (ceil_div(elements, THREADS),)


def _sums(elements: int) -> int:
    return min(MOST_SUMS, max(1, ceil_div(elements, THREADS)))  # nothing to add: a sum of 0


STYLE = Family(
    "style",
    {
        "content_loss_forward_cuda": Launch(THREADS, lambda elements: (_sums(elements),)),
        "content_loss_forward_total_cuda": Launch(THREADS, lambda: (1,)),
        "content_loss_backward_cuda": Launch(THREADS, _elements),
        "total_variation_forward_cuda": Launch(THREADS, lambda elements: (_sums(elements),)),
        "total_variation_forward_total_cuda": Launch(THREADS, lambda: (1,)),
        "total_variation_backward_cuda": Launch(THREADS, _elements),
        "normalize_channels_forward_cuda": Launch(THREADS, _elements),
        "normalize_channels_backward_cuda": Launch(THREADS, _elements),
    },
)


def _loss(name: str, arrays: tuple[Any, ...], sizes: tuple[int, ...] = ()) -> Any:
    """The scalar that op `name` gives for these arrays."""
    x = arrays[0]
    count, loss = _sums(x.size), empty_like(x, ())
    sums = empty_like(x, (count,), "float64")
    STYLE.run(f"{name}_forward_cuda", x, (x.size,), *arrays, sums, np.int64(x.size), *sizes)
    STYLE.run(f"{name}_forward_total_cuda", x, (), sums, loss, count)
    return loss


def content_loss_forward(a: Any, target: Any) -> Any:
    """½ Σ (a − target)² of contiguous arrays, as an array without axes."""
    return _loss("content_loss", (a, target))


def content_loss_backward(a: Any, target: Any, grad: Any, sign: float, into: Any = None) -> Any:
    """sign · grad · (a − target), added to `into` if there is one; grad: one number on the device."""
    to = empty_like(a) if into is None else into
    sizes = (np.int64(a.size), sign, into is not None)
    STYLE.run("content_loss_backward_cuda", a, (a.size,), a, target, grad, to, *sizes)
    return to


def total_variation_forward(x: Any) -> Any:
    """Σ of the squared differences of neighbours of x, (n, h, w, c) and contiguous."""
    return _loss("total_variation", (x,), x.shape[1:])


def total_variation_backward(x: Any, grad: Any) -> Any:
    """The gradient by x; grad: one number on the device."""
    dx = empty_like(x)
    STYLE.run("total_variation_backward_cuda", x, (x.size,), x, grad, dx, np.int64(x.size), *x.shape[1:])
    return dx


def _numbers(values: tuple[float, ...], like: Any) -> Any:
    return module_of(like).asarray(np.array(values, like.dtype))


def normalize_channels_forward(x: Any, scale: tuple[float, ...], shift: tuple[float, ...], reverse: bool) -> Any:
    """x · scale + shift by channel, x contiguous; with `reverse`, of x's channels in the other order."""
    y, sizes = empty_like(x), (np.int64(x.size), x.shape[3], reverse)
    STYLE.run("normalize_channels_forward_cuda", x, (x.size,), x, _numbers(scale, x), _numbers(shift, x), y, *sizes)
    return y


def normalize_channels_backward(dy: Any, scale: tuple[float, ...], reverse: bool) -> Any:
    """The gradient by x."""
    dx, sizes = empty_like(dy), (np.int64(dy.size), dy.shape[3], reverse)
    STYLE.run("normalize_channels_backward_cuda", dy, (dy.size,), dy, _numbers(scale, dy), dx, *sizes)
    return dx
