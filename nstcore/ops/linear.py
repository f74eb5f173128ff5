"""Matrix products, normalised rows and the logistic loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.autograd.engine import NUMERIC, Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.backend.arrays import as_array
from nstcore.errors import ArgumentError, DTypeError, ShapeError
from nstcore.ops._op import Array, Case, Kernel, Op, check_shapes, register, whole
from nstcore.ops.elementwise import check_broadcast, float_operand, mul, operand, softplus, sub, unbroadcast
from nstcore.ops.reduce import sum as sum_of


def matmul(a: Any, b: Any) -> Any:
    """Matrix product of the last two axes; leading axes broadcast.

    a: (..., m, k), b: (..., k, n); gives (..., m, n). Both need at least two axes.
    """
    a, b = operand(a, None), operand(b, None)
    check_shapes(MATMUL, (a, b))
    check_broadcast("matmul", a.shape, b.shape, a.shape[:-2], b.shape[:-2])
    return apply(MATMUL, (a, b))


def l2_normalize(x: Any, axis: int = -1, eps: float = 1e-12) -> Any:
    """x / max(‖x‖₂, eps) along `axis`; a zero row stays zero and gets the finite gradient grad / eps.

    x: (..., d) float. Source: FaceNet, Schroff et al. 2015, section 3 (the embedding lives on the unit sphere).
    """
    x, axis = float_operand("l2_normalize", x), whole("l2_normalize", "an axis", axis)
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"[l2_normalize] expects an axis of {x.shape}, got axis {axis}")
    if not eps > 0:
        raise ArgumentError(f"[l2_normalize] expects eps above 0, got {eps}")
    return apply(L2_NORMALIZE, (x,), axis=axis, eps=float(eps))


def logistic_loss(logits: Any, labels: Any) -> Any:
    """Cross-entropy of the sigmoid, summed: Σ log(1 + e^z) − y z, without overflow for any z.

    logits: (n,) float; labels: (n,) of 0 and 1, not differentiated. Gives a scalar.
    """
    logits = float_operand("logistic_loss", logits)
    y = as_array(labels.data if isinstance(labels, Tensor) else labels)
    if y.dtype.kind not in NUMERIC:
        raise DTypeError(f"[logistic_loss] expects labels 0 and 1, got {y.dtype} {y.shape}")
    y = y.astype(logits.dtype)
    if y.shape != logits.shape:
        raise ShapeError(f"[logistic_loss] expects labels of shape {logits.shape}, got {y.shape}")
    return sum_of(sub(softplus(logits), mul(logits, y)))


def _matmul(ctx: Context, a: Array, b: Array) -> Array:
    ctx.save(a if ctx.needs[1] else None, b if ctx.needs[0] else None)
    ctx.extra = (a.shape, a.dtype), (b.shape, b.dtype)
    product: Array = np.matmul(a, b)
    return product


def _matmul_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    (a, b), (like_a, like_b) = ctx.saved(), ctx.extra
    da = unbroadcast(np.matmul(grad, np.swapaxes(b, -1, -2)), *like_a) if ctx.needs[0] else None
    db = unbroadcast(np.matmul(np.swapaxes(a, -1, -2), grad), *like_b) if ctx.needs[1] else None
    return da, db


def _l2_normalize(ctx: Context, x: Array, axis: int, eps: float) -> Array:
    # Rows with large elements are taken by a power of two smaller: their squares stay finite, and no bit changes.
    sizes = np.abs(x)  # CuPy takes the largest of something only
    largest = np.max(sizes, axis=axis, keepdims=True) if x.size else np.sum(sizes, axis=axis, keepdims=True)
    down = -np.where(np.isfinite(largest), np.maximum(np.frexp(largest)[1], 0), 0)
    scaled, least = np.ldexp(x, down), np.ldexp(x.dtype.type(eps), down)
    norm = np.maximum(np.sqrt(np.sum(scaled * scaled, axis=axis, keepdims=True)), least)
    y: Array = scaled / norm
    ctx.save(y, norm)
    ctx.extra = down, least
    return y


def _l2_normalize_back(ctx: Context, grad: Array, axis: int, eps: float) -> tuple[Array | None, ...]:
    (y, norm), (down, least) = ctx.saved(), ctx.extra
    along = np.where(norm > least, np.sum(grad * y, axis=axis, keepdims=True), 0)
    return (np.ldexp((grad - y * along) / norm, down).astype(y.dtype, copy=False),)


def _logits_and_labels(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    return rng.integers(0, 2, shape) if index else rng.standard_normal(shape)


MATMUL = register(
    Op(
        "matmul",
        "... m k, ... k n -> ... m n",
        matmul,
        Kernel(_matmul, _matmul_back),
        (
            Case("matrices", ((3, 4), (4, 5))),
            Case("batched", ((2, 3, 4), (2, 4, 5))),
            Case("broadcast", ((2, 3, 4), (4, 1))),
            Case("empty", ((0, 4), (4, 2))),
        ),
    )
)
L2_NORMALIZE = register(
    Op(
        "l2_normalize",
        "... -> ...",
        l2_normalize,
        Kernel(_l2_normalize, _l2_normalize_back),
        (Case("rows", ((5, 8),)), Case("columns", ((3, 4),), {"axis": 0}), Case("one", ((1, 1),))),
        source="Schroff, Kalenichenko, Philbin: FaceNet, CVPR 2015, section 3",
    )
)
LOGISTIC_LOSS = register(
    Op(
        "logistic_loss",
        "n, n -> ",
        logistic_loss,
        Kernel(lambda ctx, z, y: np.sum(np.log1p(np.exp(z)) - y * z), None),
        (Case("pairs", ((6,), (6,)), draw=_logits_and_labels, integers=(1,)),),
    )
)
