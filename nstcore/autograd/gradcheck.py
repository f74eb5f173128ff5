"""Gradients against central finite differences, in float64.

The function's result is turned into a number by fixed random weights. Along a random direction d of the inputs, its
derivative is ⟨gradient, d⟩; the finite difference is (f(x + h d) − f(x − h d)) / 2h. Where the two disagree the
function is first asked whether it has a kink there (a ReLU at 0, a tied maximum): its one-sided differences then stay
apart however small h is, the check moves a little to the side and says so. If they still disagree, every element is
differenced and the worst one is named. Steps are fractions of each element, so that numbers of any size may stand in
one input; a function that is not finite within a step cannot be checked, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd.engine import no_grad
from nstcore.autograd.tensor import Tensor
from nstcore.errors import ArgumentError, DTypeError, GradientError

Array = NDArray[np.float64]

STEP = 1e-5  # of each element's own scale; truncation error ~ h^2, rounding ~ 1e-16 / h
ASIDE = 1e-2  # how far to move away from a kink, of each element's own scale
LEAST_SCALE = 1e-3  # of an input: a step of smaller numbers would drown in the rounding of the result
LEAST_SHARE = 1e-4  # of the input's scale: a wrong gradient of a smaller element would not be seen beside the others
MOST_MOVES = 6
MOST_ELEMENTS = 2000  # of one input that are differenced one by one after a failure


@dataclass(frozen=True)
class GradReport:
    """What `gradcheck` found: the largest relative error over all directions, and how many kinks it went round.

    Where the rounding of the function's result alone can be more than `tolerance`, so can `max_error`.
    """

    inputs: tuple[tuple[int, ...], ...]
    directions: int
    max_error: float
    tolerance: float
    kinks: int

    def __str__(self) -> str:
        shapes = ", ".join(map(str, self.inputs))
        beside = f", checked beside {self.kinks} kink{'s' * (self.kinks != 1)}" if self.kinks else ""
        rounding = " and the rounding of the result" if self.max_error > self.tolerance else ""
        return (
            f"gradcheck passed: inputs {shapes}, {self.directions} directions, "
            f"largest relative error {self.max_error:.1e} (allowed {self.tolerance:.0e}{rounding}){beside}"
        )


class _Function:
    """`fn` as a function of one flat vector, giving the weighted sum of its results."""

    def __init__(self, fn: Callable[..., Any], inputs: list[Array], rng: np.random.Generator) -> None:
        self.fn = fn
        self.shapes = [x.shape for x in inputs]
        self.scales = np.concatenate([_scales(x).ravel() for x in inputs])
        with no_grad():
            result = fn(*[Tensor(x.copy()) for x in inputs])
        if not isinstance(result, Tensor):
            raise ArgumentError(f"[gradcheck] the function must return a Tensor, got {type(result).__name__}")
        if result.dtype.kind != "f":
            raise ArgumentError(f"[gradcheck] the function must return floats, got {result.dtype} {result.shape}")
        _check_finite(result.data)
        self.weights = rng.standard_normal(result.shape)
        with no_grad():
            again = fn(*[Tensor(x.copy()) for x in inputs])
        if not np.array_equal(result.data, again.data):
            raise GradientError("[gradcheck] the function is random: it gave two results for the same inputs")

    def split(self, flat: Array) -> list[Array]:
        """The flat vector as the function's inputs."""
        ends = np.cumsum([int(np.prod(s)) for s in self.shapes])[:-1]
        return [part.reshape(s) for part, s in zip(np.split(flat, ends), self.shapes, strict=True)]

    def value(self, flat: Array) -> float:
        """The weighted sum at `flat`; `GradientError` where it is not finite."""
        with no_grad():
            result = self.fn(*map(Tensor, self.split(flat.copy()))).data
        _check_finite(result)
        with np.errstate(over="ignore"):
            total = np.sum(result * self.weights)
        _check_finite(total)
        return float(total)

    def gradient(self, flat: Array) -> Array:
        inputs = [Tensor(x, requires_grad=True) for x in self.split(flat.copy())]
        result = self.fn(*inputs)
        if result.requires_grad:
            result.backward(self.weights)
        parts = [np.zeros(x.shape) if x.grad is None else x.grad for x in inputs]
        return np.concatenate([p.ravel() for p in parts]) if parts else np.zeros(0)

    def slope(self, flat: Array, direction: Array, h: float) -> float:
        """Central difference along `direction`."""
        return (self.value(flat + h * direction) - self.value(flat - h * direction)) / (2 * h)

    def has_kink(self, flat: Array, direction: Array, h: float, gap: float) -> bool:
        """Whether the one-sided slopes along `direction` differ by `gap`, and not as those of a smooth function do.

        An eighth of the step brings those eight times closer; at a kink they stay apart, and where the kink lies
        between the two steps they meet.
        """
        here = self.value(flat)
        gaps = []
        for step in (h, h / 8):
            right = (self.value(flat + step * direction) - here) / step
            left = (here - self.value(flat - step * direction)) / step
            gaps.append(abs(right - left))
        return gaps[0] > gap and not gaps[0] / 20 < gaps[1] < gaps[0] / 3


def gradcheck(
    fn: Callable[..., Any], *inputs: Any, directions: int = 4, tolerance: float = 1e-6, seed: int = 0
) -> GradReport:
    """Compare the gradients of `fn` with central finite differences in float64.

    fn: takes one `Tensor` for each of `inputs` and returns a `Tensor` of any shape; it must be deterministic.
    inputs: tensors or float arrays; they are converted to float64 and not changed.
    directions: random directions along which the derivative is compared. tolerance: largest relative error allowed.

    Returns a `GradReport` that prints. Raises `GradientError` naming the worst element with both values, or because
    the function is NaN or infinite at the inputs or a step (1e-5 of each element) beside them.

    >>> from nstcore import ops
    >>> gradcheck(ops.exp, np.array([0.0, 1.0])).max_error < 1e-6
    True
    """
    arrays = [_as_float64(x) for x in inputs]
    if not arrays or directions < 1:
        raise ArgumentError(f"[gradcheck] expects inputs and directions >= 1, got {len(arrays)} and {directions}")
    if not all(np.all(np.isfinite(a)) for a in arrays):
        raise ArgumentError("[gradcheck] expects finite inputs, got NaN or infinity")
    rng = np.random.default_rng(seed)
    function = _Function(fn, arrays, rng)
    flat = np.concatenate([a.ravel() for a in arrays])
    worst, kinks = 0.0, 0
    for _ in range(directions):
        error, moves = _check_direction(function, flat, rng, tolerance)
        worst, kinks = max(worst, error), max(kinks, moves)
    return GradReport(tuple(a.shape for a in arrays), directions, worst, tolerance, kinks)


def _as_float64(x: Any) -> Array:
    data = np.asarray(x.data if isinstance(x, Tensor) else x)
    if data.dtype.kind != "f":
        raise DTypeError(f"[gradcheck] expects float inputs, got {data.dtype}; bind indices and labels with a lambda")
    return data.astype(np.float64)


def _scales(x: Array) -> Array:
    """How large each element of `x` is; a 0 has no size of its own and takes that of the largest."""
    largest = float(np.max(np.abs(x), initial=0.0))
    whole = max(largest, LEAST_SCALE) if largest > 0 else 1.0
    return np.where(x == 0, whole, np.maximum(np.abs(x), LEAST_SHARE * whole))


def _check_finite(values: Any) -> None:
    """A difference of NaNs or infinities says nothing, so it must not pass for one."""
    finite = np.isfinite(values)
    if not np.all(finite):
        found = np.asarray(values)[~finite].flat[0]
        raise GradientError(f"[gradcheck] expects a function that is finite at and beside the inputs, got {found}")


@dataclass(frozen=True)
class _Comparison:
    """One direction's derivative, both ways."""

    analytic: float
    numeric: float
    size: float  # that a derivative along the direction has
    rounding: float  # of the numeric one, at most

    @property
    def error(self) -> float:
        """|analytic − numeric|, relative."""
        error = abs(self.analytic - self.numeric) / self.size
        return error if np.isfinite(error) else float("inf")

    def agrees(self, tolerance: float) -> bool:
        """Whether the error is within `tolerance`, or no more than rounding."""
        return self.error <= tolerance + self.rounding / self.size


def _check_direction(
    function: _Function, start: Array, rng: np.random.Generator, tolerance: float
) -> tuple[float, int]:
    """Relative error along one random direction, and how many kinks were left behind to measure it."""
    flat = start
    for moves in range(MOST_MOVES):
        direction = function.scales * rng.standard_normal(flat.shape) / max(1.0, np.sqrt(flat.size))
        gradient = function.gradient(flat)
        found = _compare(function, flat, direction, gradient)
        if found.agrees(tolerance):
            return found.error, moves
        if not function.has_kink(flat, direction, STEP, abs(found.analytic - found.numeric)):
            raise GradientError(_describe_worst(function, flat, gradient, found.error, tolerance))
        flat = start + ASIDE * function.scales * rng.uniform(-1, 1, flat.shape)
    raise GradientError(
        f"[gradcheck] found a kink at each of {MOST_MOVES} nearby points; the function may not be continuous"
    )


def _compare(function: _Function, flat: Array, direction: Array, gradient: Array) -> _Comparison:
    """The derivative along `direction`, which has the size ‖gradient‖·‖direction‖.

    Both norms are taken with each element in units of its own scale.
    """
    analytic, numeric = float(gradient @ direction), function.slope(flat, direction, STEP)
    length = float(np.linalg.norm(gradient * function.scales) * np.linalg.norm(direction / function.scales))
    rounding = 4e-16 * abs(function.value(flat)) / STEP
    return _Comparison(analytic, numeric, max(length, abs(numeric), 1e-12), rounding)


def _describe_worst(function: _Function, flat: Array, gradient: Array, error: float, tolerance: float) -> str:
    """Difference the elements one by one and name the one that is furthest off."""
    order = np.argsort(-np.abs(np.nan_to_num(gradient, nan=np.inf)))[:MOST_ELEMENTS]
    if len(order) < flat.size:  # half of them the steepest, half at random: a missing gradient is a zero one
        spread = np.random.default_rng(0).choice(flat.size, MOST_ELEMENTS // 2, replace=False)
        order = np.union1d(order[: MOST_ELEMENTS // 2], spread)
    steps = function.scales * STEP
    numeric = np.array([function.slope(flat, _unit(flat.size, int(i)), steps[i]) for i in order])
    gaps = np.nan_to_num(np.abs(numeric - gradient[order]) * steps[order], nan=np.inf)
    worst = int(order[int(np.argmax(gaps))])
    values = dict(zip(order.tolist(), numeric.tolist(), strict=True))
    which = worst
    for index, shape in enumerate(function.shapes):
        count = int(np.prod(shape))
        if which < count:
            where = tuple(int(i) for i in np.unravel_index(which, shape))
            return (
                f"[gradcheck] relative error {error:.1e} exceeds {tolerance:.0e}; "
                f"worst element: input {index} at {where}: gradient {gradient[worst]:.9g}, "
                f"finite difference {values[worst]:.9g}"
            )
        which -= count
    raise AssertionError("unreachable: the worst element belongs to some input")


def _unit(size: int, i: int) -> Array:
    e = np.zeros(size)
    e[i] = 1.0
    return e
