"""Launches of ``csrc/triplet/triplet_cuda.cu``."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.backend.cuda import Family, Launch, ceil_div, empty_like
from nstcore.backend.cuda_pairwise import pairwise_forward

TILE, THREADS = 64, 256
WARPS = THREADS // 32


def _one_block() -> tuple[int, ...]:
    return (1,)


def _anchors(batch: int) -> tuple[int, ...]:
    return (batch,)


def _elements(elements: int) -> tuple[int, ...]:
    return (ceil_div(elements, THREADS),)


TRIPLET = Family(
    "triplet",
    {
        "triplet_loss_forward_cuda": Launch(THREADS, lambda n: (ceil_div(n, WARPS),)),
        "triplet_loss_forward_total_cuda": Launch(THREADS, _one_block),
        "triplet_loss_backward_cuda": Launch(THREADS, _elements),
        "batch_triplet_loss_forward_all_cuda": Launch(THREADS, _anchors),
        "batch_triplet_loss_forward_semi_hard_cuda": Launch(THREADS, _anchors),
        "batch_triplet_loss_forward_hard_cuda": Launch(THREADS, _anchors),
        "batch_triplet_loss_forward_total_cuda": Launch(THREADS, _one_block),
        "batch_triplet_loss_forward_gradient_cuda": Launch(
            THREADS, lambda batch, depth: (ceil_div(batch, TILE), ceil_div(depth, TILE))
        ),
        "batch_triplet_loss_backward_cuda": Launch(THREADS, _elements),
    },
)
MINES = {"batch_all": "all", "semi_hard": "semi_hard", "batch_hard": "hard"}


def triplet_loss_forward(a: Any, p: Any, n: Any, margin: float, reduction: int) -> tuple[Any, Any, Any]:
    """The reduced loss of the rows of a, p and n, (count, depth) and contiguous; each loss; and their share in it."""
    count, depth = a.shape
    losses, value, share = empty_like(a, (count,)), empty_like(a, ()), empty_like(a, (), "float64")
    TRIPLET.run("triplet_loss_forward_cuda", a, (count,), a, p, n, losses, count, depth, margin)
    TRIPLET.run("triplet_loss_forward_total_cuda", a, (), losses, value, share, count, reduction)
    return value, losses, share


def triplet_loss_backward(
    rows: tuple[Any, Any, Any], losses: Any, share: Any, grad: Any, needs: tuple[bool, ...]
) -> tuple[Any, ...]:
    """The gradients by a, p and n; None for those that are not needed."""
    a = rows[0]
    gradients = tuple(empty_like(a) if need else None for need in needs)
    sizes = (np.int64(a.size), a.shape[1])
    TRIPLET.run("triplet_loss_backward_cuda", a, (a.size,), *rows, losses, share, grad, *gradients, *sizes)
    return gradients


def batch_triplet_loss_forward(
    z: Any, labels: Any, margin: float, mining: str, reduction: int, gradient: bool
) -> tuple[Any, Any, Any]:
    """The reduced loss of z, (batch, depth), and labels, int64, both contiguous; half the gradient of the sum, if it is
    wanted; and the share of a triplet in the loss."""
    batch, depth = z.shape
    distances = pairwise_forward("pairwise_sqdist", z, z)
    weights = empty_like(z, (batch, batch)) if gradient else None
    losses, share = empty_like(z, (batch,), "float64"), empty_like(z, (), "float64")
    triplets, active = empty_like(z, (batch,), "int64"), empty_like(z, (batch,), "int64")
    of_anchors = (losses, triplets, active)
    kernel = f"batch_triplet_loss_forward_{MINES[mining]}_cuda"
    TRIPLET.run(kernel, z, (batch,), distances, labels, weights, *of_anchors, batch, margin)
    value = empty_like(z, ())
    TRIPLET.run("batch_triplet_loss_forward_total_cuda", z, (), *of_anchors, value, share, batch, reduction)
    half = empty_like(z) if gradient else None
    if gradient:
        sizes = (batch, depth)
        TRIPLET.run("batch_triplet_loss_forward_gradient_cuda", z, sizes, z, weights, half, batch, depth)
    return value, half, share


def batch_triplet_loss_backward(half: Any, share: Any, grad: Any) -> Any:
    """The gradient by z."""
    dz = empty_like(half)
    TRIPLET.run("batch_triplet_loss_backward_cuda", half, (half.size,), half, share, grad, dz, np.int64(half.size))
    return dz
