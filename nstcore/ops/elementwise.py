"""Operations on each element, with NumPy's broadcasting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np

from nstcore.autograd.engine import NUMERIC, Context, apply
from nstcore.autograd.tensor import Tensor
from nstcore.backend.arrays import as_array
from nstcore.errors import ArgumentError, DTypeError, ShapeError
from nstcore.ops._op import FLOATS, Array, Case, Kernel, Op, reach_in_place, register

Shape = tuple[int, ...]

SHAPES = (((3, 4),), ((1,),), ((),), ((0, 3),), ((2, 3, 5),))
PAIRS = (
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((3, 1), (1, 4)),
    ((2, 3, 4), (1, 4)),
    ((), (2, 3)),
    ((0, 3), (3,)),
)


def operand(x: Any, like: Any) -> Any:
    """`x` as a tensor or array; a number, or an array without axes, takes the float type of `like`, if it has one."""
    if isinstance(x, Tensor):
        return x
    array = as_array(x)
    like_type = getattr(like, "dtype", None)
    if array.ndim == 0 and array.dtype.kind in NUMERIC and like_type is not None and like_type.kind == "f":
        return array.astype(like_type)
    return array


def numeric_operand(name: str, x: Any) -> Any:
    """`x` as a tensor or array of real numbers; `DTypeError` for anything else."""
    x = operand(x, None)
    if x.dtype.kind not in NUMERIC:
        raise DTypeError(f"[{name}] expects an array of real numbers, got {x.dtype} {x.shape}")
    return x


def float_operand(name: str, x: Any) -> Any:
    """`x` as a float32 or float64 tensor or array; a Python number becomes float64. `DTypeError` for other arrays."""
    x = np.asarray(x, np.float64) if isinstance(x, (int, float)) else operand(x, None)
    if x.dtype.name not in FLOATS:
        raise DTypeError(f"[{name}] expects {' or '.join(FLOATS)}, got {x.dtype} {x.shape}")
    return x


def unbroadcast(grad: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Sum `grad` over the axes along which an input of this shape was repeated."""
    if grad.ndim > len(shape):
        grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    repeated = tuple(i for i, size in enumerate(shape) if size == 1 and grad.shape[i] != 1)
    if repeated:
        grad = grad.sum(axis=repeated, keepdims=True)
    return grad.astype(dtype, copy=False)


def _binary(
    forward: Callable[[Array, Array], Array],
    grad_a: Callable[[Array, Array, Array], Array],
    grad_b: Callable[[Array, Array, Array], Array],
    uses: tuple[str, str] = ("", ""),
) -> Kernel:
    """A kernel for a function of two arrays, from its two partial derivatives times the incoming gradient.

    `uses` names the arrays, "a" and "b", that each derivative reads; the others are not kept.
    """

    def run(ctx: Context, a: Array, b: Array) -> Array:
        kept = "".join(names for names, need in zip(uses, ctx.needs, strict=True) if need)
        ctx.save(a if "a" in kept else None, b if "b" in kept else None)
        ctx.extra = (a.shape, a.dtype), (b.shape, b.dtype)
        return forward(a, b)

    def back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
        a, b = ctx.saved()
        like_a, like_b = ctx.extra
        return (
            unbroadcast(grad_a(grad, a, b), *like_a) if ctx.needs[0] else None,
            unbroadcast(grad_b(grad, a, b), *like_b) if ctx.needs[1] else None,
        )

    return Kernel(run, back)


def _unary(forward: Callable[[Array], Array], derivative: Callable[[Array], Array], of: str = "result") -> Kernel:
    """A kernel for a function of one array, from its derivative as a function of its "input" or its "result"."""

    def run(ctx: Context, x: Array) -> Array:
        y: Array = as_array(forward(x), x.dtype)
        ctx.save(x if of == "input" else y)
        return y

    def back(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
        (kept,) = ctx.saved()
        return ((grad * derivative(kept)).astype(kept.dtype, copy=False),)

    return Kernel(run, back)


def check_broadcast(name: str, a: Shape, b: Shape, a_axes: Shape, b_axes: Shape) -> None:
    """Raise `ShapeError`, naming the shapes `a` and `b`, unless the axes broadcast together."""
    try:
        np.broadcast_shapes(a_axes, b_axes)
    except ValueError:
        raise ShapeError(f"[{name}] expects shapes that broadcast together, got {a} and {b}") from None


def _apply_binary(op: Op, a: Any, b: Any) -> Any:
    a, b = operand(a, b), operand(b, a)
    check_broadcast(op.name, a.shape, b.shape, a.shape, b.shape)
    return apply(op, (a, b))


def add(a: Any, b: Any) -> Any:
    """a + b, broadcast."""
    return _apply_binary(ADD, a, b)


def sub(a: Any, b: Any) -> Any:
    """a − b, broadcast; of two booleans, which have no difference, it is an error."""
    a, b = operand(a, b), operand(b, a)
    if a.dtype == b.dtype == np.bool_:
        raise DTypeError(f"[sub] expects numbers, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    return _apply_binary(SUB, a, b)


def mul(a: Any, b: Any) -> Any:
    """a · b for each element, broadcast."""
    return _apply_binary(MUL, a, b)


def div(a: Any, b: Any) -> Any:
    """a / b for each element, broadcast; 0 in `b` gives infinity or NaN, without a warning."""
    return _apply_binary(DIV, a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of a and b for each element, broadcast; where they are equal the gradient goes to `a`."""
    return _apply_binary(MAXIMUM, a, b)


def power(x: Any, exponent: float) -> Any:
    """x to a constant power; the derivative at x = 0 is taken as 0 where it is infinite (0 < exponent < 1).

    The result has the type of x. A negative x to a power that is no whole number is NaN, as in NumPy.
    """
    if not isinstance(exponent, (int, float, np.integer, np.floating)):
        raise ArgumentError(f"[power] expects a number as exponent, got {type(exponent).__name__}")
    return apply(POWER, (float_operand("power", x),), exponent=float(exponent))


def exp(x: Any) -> Any:
    """e to the power of x."""
    return apply(EXP, (float_operand("exp", x),))


def log(x: Any) -> Any:
    """Natural logarithm; log 0 is −inf, and the derivative there is taken as 0 (so that no NaN spreads)."""
    return apply(LOG, (float_operand("log", x),))


def sqrt(x: Any) -> Any:
    """Square root; the derivative at 0, infinite in the limit, is taken as 0."""
    return apply(SQRT, (float_operand("sqrt", x),))


def absolute(x: Any) -> Any:
    """|x|; the derivative at 0 is taken as 0."""
    return apply(ABSOLUTE, (float_operand("absolute", x),))


def relu(x: Any) -> Any:
    """max(x, 0); the derivative at 0 is taken as 0. Inside of `relu_backward` its way back follows another rule."""
    return apply(RELU, (float_operand("relu", x),), rule=relu_rule())


ReluRule = Literal["gradient", "deconvnet", "guided", "straight"]


class _Rule(threading.local):
    name: ReluRule = "gradient"


_rule = _Rule()


def relu_rule() -> ReluRule:
    """Not an op: the rule by which ReLUs that are computed now will pass their gradient back."""
    return _rule.name


@contextmanager
def relu_backward(rule: ReluRule) -> Iterator[None]:
    """Not an op: let the ReLUs computed in a ``with`` block, also those fused into convolutions, follow `rule` back.

    Of the gradient R of y = max(x, 0): ``"gradient"`` passes R · [y > 0], the derivative; ``"deconvnet"`` max(R, 0),
    whatever x was; ``"guided"`` max(R, 0) · [y > 0]; ``"straight"`` R. Holds for this thread, and for the pass back of
    what was computed.
    Raises `ArgumentError` for any other rule.
    Source: Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity", ICLR 2015 workshop, section 3.4.

    >>> x = Tensor(np.array([1.0, -1.0, 2.0]), requires_grad=True)
    >>> with relu_backward("guided"):
    ...     y = relu(x)
    >>> y.backward(np.array([-1.0, 3.0, 3.0]))
    >>> x.grad
    array([0., 0., 3.])
    """
    if rule not in get_args(ReluRule):
        raise ArgumentError(f"[relu_backward] expects one of {', '.join(get_args(ReluRule))}, got {rule!r}")
    before, _rule.name = _rule.name, rule
    try:
        yield
    finally:
        _rule.name = before


def _relu_kernel() -> Kernel:
    def run(ctx: Context, x: Array, rule: ReluRule) -> Array:
        y: Array = as_array(np.maximum(x, 0), x.dtype)
        ctx.save(None if rule == "deconvnet" else y)
        return y

    def back(ctx: Context, grad: Array, rule: ReluRule) -> tuple[Array | None, ...]:
        (y,) = ctx.saved()
        if rule == "deconvnet":
            return (np.maximum(grad, 0),)
        if rule == "straight":
            return (grad,)
        passed = grad if rule == "gradient" else np.maximum(grad, 0)
        return ((passed * (y > 0)).astype(y.dtype, copy=False),)

    return Kernel(run, back)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^−x), without overflow for any x."""
    return apply(SIGMOID, (float_operand("sigmoid", x),))


def softplus(x: Any) -> Any:
    """log(1 + e^x), without overflow for any x."""
    return apply(SOFTPLUS, (float_operand("softplus", x),))


def _stable_sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _zero_where(condition: Array, value: Array) -> Array:
    return np.where(condition, value.dtype.type(0), value)


def _power_kernel() -> Kernel:
    def run(ctx: Context, x: Array, exponent: float) -> Array:
        ctx.save(x)
        y: Array = as_array(x**exponent, x.dtype)
        return y

    def back(ctx: Context, grad: Array, exponent: float) -> tuple[Array | None, ...]:
        (x,) = ctx.saved()
        slope = exponent * x ** (exponent - 1)
        if 0 <= exponent < 1:
            slope = _zero_where(x == 0, slope)
        return ((grad * slope).astype(x.dtype, copy=False),)

    return Kernel(run, back)


def _nonzero(rng: np.random.Generator, shape: tuple[int, ...], _: int) -> Array:
    """Numbers of either sign, at least 0.1 away from 0."""
    return rng.choice([-1.0, 1.0], shape) * (0.1 + rng.random(shape))


def _positive(rng: np.random.Generator, shape: tuple[int, ...], _: int) -> Array:
    return 0.2 + rng.random(shape)


def _distinct(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Array:
    """Values on two grids that are never closer than 0.25, so that no pair is tied."""
    return rng.integers(-4, 5, shape) + 0.5 * index


def _cases(draw: Any = None, pairs: bool = False) -> tuple[Case, ...]:
    return tuple(Case(" ".join(map(str, shapes)), shapes, draw=draw) for shapes in (PAIRS if pairs else SHAPES))


def _register_binary(name: str, public: Any, kernel: Kernel, draw: Any = None) -> Op:
    return register(Op(name, "..., ... -> ...", public, kernel, _cases(draw, pairs=True), reach=reach_in_place))


def _register_unary(name: str, public: Any, kernel: Kernel, draw: Any = None) -> Op:
    return register(Op(name, "... -> ...", public, kernel, _cases(draw), reach=reach_in_place))


ADD = _register_binary("add", add, _binary(np.add, lambda g, a, b: g, lambda g, a, b: g))
SUB = _register_binary("sub", sub, _binary(np.subtract, lambda g, a, b: g, lambda g, a, b: -g))
MUL = _register_binary("mul", mul, _binary(np.multiply, lambda g, a, b: g * b, lambda g, a, b: g * a, ("b", "a")))
DIV = _register_binary(
    "div",
    div,
    _binary(np.divide, lambda g, a, b: g / b, lambda g, a, b: -g * (a / b) / b, ("b", "ab")),
    _nonzero,
)
MAXIMUM = _register_binary(
    "maximum",
    maximum,
    _binary(np.maximum, lambda g, a, b: g * (a >= b), lambda g, a, b: g * (a < b), ("ab", "ab")),
    _distinct,
)
POWER = register(
    Op(
        "power",
        "... -> ...",
        power,
        _power_kernel(),
        (
            Case("square", ((3, 4),), {"exponent": 2}),
            Case("cube", ((2, 3),), {"exponent": 3.0}),
            Case("root", ((3, 4),), {"exponent": 0.5}, _positive),
            Case("inverse", ((3, 4),), {"exponent": -1}, _nonzero),
        ),
        reach=reach_in_place,
    )
)
EXP = _register_unary("exp", exp, _unary(np.exp, lambda y: y))
LOG = _register_unary("log", log, _unary(np.log, lambda x: _zero_where(x == 0, 1 / x), "input"), _positive)
SQRT = _register_unary("sqrt", sqrt, _unary(np.sqrt, lambda y: _zero_where(y == 0, 0.5 / y)), _positive)
ABSOLUTE = _register_unary("absolute", absolute, _unary(np.abs, np.sign, "input"), _nonzero)
RELU = _register_unary("relu", relu, _relu_kernel(), _nonzero)
SIGMOID = _register_unary("sigmoid", sigmoid, _unary(_stable_sigmoid, lambda y: y * (1 - y)))
SOFTPLUS = _register_unary("softplus", softplus, _unary(lambda x: np.logaddexp(0, x), _stable_sigmoid, "input"))
