"""The rectifier whose negative side has a slope of its own in each channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstcore.autograd.engine import Context, apply
from nstcore.backend.memory import empty
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_shapes, reach_in_place, register
from nstcore.ops.elementwise import operand


def prelu(x: Any, slope: Any) -> Any:
    """y_…k = x_…k where it is above 0, else slope_k · x_…k; the derivative at 0 is taken as slope_k.

    x: (..., c), slope: (c,), both float32 or both float64. Gives the shape and type of x.
    Raises `ShapeError`, `DTypeError`.
    Source: He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 1.

    >>> prelu(np.array([[-2.0, -2.0], [2.0, 2.0]]), np.array([0.5, 0.0]))
    array([[-1., -0.],
           [ 2.,  2.]])
    """
    x, slope = operand(x, None), operand(slope, None)
    check_shapes(PRELU, (x, slope))
    check_dtypes(PRELU, (x, slope))
    return apply(PRELU, (x, slope))


def _reference(ctx: Context, x: Array, slope: Array) -> Array:
    ctx.save(x, slope)
    return np.where(x > 0, x, slope * x)


def _reference_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    x, slope = ctx.saved()
    dx = np.where(x > 0, grad, slope * grad) if ctx.needs[0] else None
    dslope = np.where(x > 0, 0, grad * x).sum(axis=tuple(range(x.ndim - 1))) if ctx.needs[1] else None
    return dx, dslope


def _cpu(ctx: Context, x: Array, slope: Array) -> Array:
    from nstcore.backend.cpu import native

    x, slope = np.ascontiguousarray(x), np.ascontiguousarray(slope)
    ctx.save(x, slope)
    y = empty(x.shape, x.dtype)
    native.prelu_forward_cpu(_rows(x, slope), slope, _rows(y, slope))
    return y


def _cpu_back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    from nstcore.backend.cpu import native

    x, slope = ctx.saved()
    dx = empty(x.shape, x.dtype) if ctx.needs[0] else None
    dslope = empty(slope.shape, x.dtype) if ctx.needs[1] else None
    dy = _rows(np.ascontiguousarray(grad), slope)
    native.prelu_backward_cpu(_rows(x, slope), slope, dy, None if dx is None else _rows(dx, slope), dslope)
    return dx, dslope


def _rows(x: Array, slope: Array) -> Array:
    """`x` as (rows, c), the same memory."""
    return x.reshape(x.size // max(len(slope), 1), len(slope))


def _away(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    """Inputs of either sign, at least 0.1 away from the kink; slopes of either sign."""
    return rng.choice([-1.0, 1.0], shape) * (0.1 + rng.random(shape)) if index == 0 else rng.standard_normal(shape)


PRELU = register(
    Op(
        "prelu",
        "... c, c -> ... c",
        prelu,
        Kernel(_reference, _reference_back),
        tuple(
            Case(label, (shape, shape[-1:]), draw=_away)
            for label, shape in (
                ("one element", (1,)),
                ("a row", (7, 10)),
                ("a vector of channels", (2, 3, 5, 16)),
                ("one channel more", (1, 4, 4, 17)),
                ("prime", (3, 31, 29)),
                ("a chunk of rows and one more", (3289, 10)),
                ("no rows", (0, 5, 3)),
                ("no channels", (2, 0)),
            )
        ),
        cpu=Kernel(_cpu, _cpu_back, ("prelu_forward_cpu", "prelu_backward_cpu")),
        tolerance=Tolerance(float32=1e-6, float64=1e-14),
        flops=lambda x, slope: float(np.prod(x)),
        traffic=lambda x, slope: 2.0 * float(np.prod(x)),
        reach=reach_in_place,
        source="He, Zhang, Ren, Sun: Delving Deep into Rectifiers, ICCV 2015, equation 1",
    )
)
