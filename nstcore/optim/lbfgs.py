"""L-BFGS: quasi-Newton steps from the last few changes of the parameters and of the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor
from nstcore.backend.arrays import beside, empty_beside, on_device
from nstcore.errors import ArgumentError
from nstcore.optim.optimizer import Closure, Optimizer, State, positive
from nstcore.optim.spectrum import SpectralScaling

Vector = NDArray[Any]

SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.9  # the two weak Wolfe conditions
MOST_TRIALS = 12  # of one line search


def dot(a: Vector, b: Vector) -> float:
    """⟨a, b⟩ in float64 and in a fixed order of summation, so that it does not depend on the number of threads."""
    if on_device(a):
        return float(np.sum(np.multiply(a, b, dtype=np.float64)))
    from nstcore.backend.cpu import native

    return float(native.dot(a, b))


def add_scaled(y: Vector, weight: float, x: Vector) -> None:
    """y ← y + weight · x, in place."""
    if on_device(y):
        y += x.dtype.type(weight) * x
        return
    from nstcore.backend.cpu import native

    native.add_scaled(x, weight, y)


def scaled(x: Vector, weight: float) -> Vector:
    """weight · x as a new vector."""
    y: Vector = np.multiply(x, x.dtype.type(weight), out=empty_beside(x))
    return y


class LBFGS(Optimizer):
    """Limited-memory BFGS with a weak Wolfe line search.

    history: how many past steps are kept; each takes twice the parameters' memory, in their own type.
    first_step: largest change of any parameter in the first step, before there is any history.
    scaling: the inverse Hessian that the recursion starts from, for a picture; without it, a multiple of the identity.

    ``step`` evaluates the closure once or, when the line search has to look further, more often. It never leaves
    the parameters at a point with a higher or non-finite loss; ``converged`` is True once no step lowers the loss.
    Source: Nocedal, Wright, "Numerical Optimization", 2nd edition, algorithms 7.4 and 7.5; line search by bisection
    from Lewis, Overton, "Nonsmooth optimization via quasi-Newton methods", 2013, algorithm 2.6.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        history: int = 10,
        first_step: float = 0.05,
        scaling: SpectralScaling | None = None,
    ) -> None:
        super().__init__(parameters)
        types = sorted({p.dtype.name for p in self.parameters})
        if len(types) != 1:
            raise ArgumentError(f"[LBFGS] expects parameters of one type, got {', '.join(types)}")
        if isinstance(history, bool) or not isinstance(history, (int, np.integer)) or history < 1:
            raise ArgumentError(f"[LBFGS] expects history as a whole number of at least 1, got {history!r}")
        size = sum(p.size for p in self.parameters)
        if scaling and np.prod(scaling.shape) != size:
            raise ArgumentError(f"[LBFGS] expects a scaling of {size} parameters, got one of {scaling.shape}")
        self.history, self.scaling = history, scaling
        self.first_step = positive("LBFGS", "first_step", first_step)
        self.converged = False
        self._pairs: list[tuple[Vector, Vector, float]] = []  # (s, y, 1 / ⟨s, y⟩), oldest first
        self._loss: float | None = None  # at the current point
        self._gradient: Vector = np.zeros(0)

    @property
    def loss(self) -> float | None:
        """What the next `step` returns, the loss of the parameters as they are; None before the first."""
        return self._loss

    def step(self, closure: Closure) -> float:
        """Take one step; returns the loss before it."""
        self._check_writable()
        if self._loss is None:
            self._loss, self._gradient = self._evaluate(closure)
        before = self._loss
        if not self.converged:
            self._descend(closure)
        return before

    def _descend(self, closure: Closure) -> None:
        """Search along the quasi-Newton direction, and along the steepest one if that leads nowhere."""
        start = self._read()
        for fresh in (False, True) if self._pairs else (True,):
            if fresh:
                self._pairs.clear()
            direction = self._direction()
            slope = dot(self._gradient, direction)
            if not slope < 0:
                continue
            found = self._search(
                closure, start, direction, slope, 1.0 if self._pairs else self._first_length(direction)
            )
            if found:
                length, loss, gradient = found
                change = np.subtract(gradient, self._gradient, out=empty_beside(gradient))
                self._remember(scaled(direction, length), change)
                self._loss, self._gradient = loss, gradient
                return
        self._write(start)
        self.converged = True

    def _search(
        self, closure: Closure, start: Vector, direction: Vector, slope: float, length: float
    ) -> tuple[float, float, Vector] | None:
        """A length that meets both Wolfe conditions, else the best that lowers the loss; the parameters stay there."""
        assert self._loss is not None
        low, high = 0.0, np.inf
        best: tuple[float, float, Vector] | None = None
        for _ in range(MOST_TRIALS):
            self._move(start, length, direction)
            loss, gradient = self._evaluate(closure)
            there = dot(gradient, direction)
            if not np.isfinite([loss, there]).all() or loss > self._loss + SUFFICIENT_DECREASE * length * slope:
                high = length
            else:
                best = (length, loss, gradient)
                if there >= CURVATURE * slope:
                    return best
                low = length
            length = (low + high) / 2 if np.isfinite(high) else 2 * low
        if best:
            self._move(start, best[0], direction)
        return best

    def _direction(self) -> Vector:
        """−H g by the two-loop recursion."""
        q = scaled(self._gradient, -1.0)
        weights = []
        for s, y, rho in reversed(self._pairs):
            weights.append(rho * dot(s, q))
            add_scaled(q, -weights[-1], y)
        if self._pairs and self.scaling:
            q = self.scaling.apply(q)
        elif self._pairs:
            s, y, rho = self._pairs[-1]
            q *= q.dtype.type(1.0 / (rho * dot(y, y)))
        for (s, y, rho), weight in zip(self._pairs, reversed(weights), strict=True):
            add_scaled(q, weight - rho * dot(y, q), s)
        return q

    def _first_length(self, direction: Vector) -> float:
        return self.first_step / max(float(max(np.max(direction), -np.min(direction))), 1e-30)

    def _remember(self, s: Vector, y: Vector) -> None:
        """Keep a pair when its curvature is safely positive."""
        curvature = dot(s, y)
        if curvature > 1e-10 * np.sqrt(dot(s, s) * dot(y, y)):
            self._pairs.append((s, y, 1.0 / curvature))
            del self._pairs[: -self.history]
            if self.scaling:
                self.scaling.observe(s, y, curvature)

    def _evaluate(self, closure: Closure) -> tuple[float, Vector]:
        self.zero_grad()
        loss = closure()
        parts = [np.zeros_like(p.data).ravel() if p.grad is None else p.grad.ravel() for p in self.parameters]
        return loss, self._joined(parts)

    def _read(self) -> Vector:
        return self._joined([p.data.ravel() for p in self.parameters])

    def _joined(self, parts: list[Vector]) -> Vector:
        return np.concatenate(parts, out=empty_beside(parts[0], (sum(part.size for part in parts),)))

    def _move(self, start: Vector, length: float, direction: Vector) -> None:
        """Put the parameters at start + length · direction."""
        there = scaled(direction, length)
        there += start
        self._write(there)

    def _write(self, flat: Vector) -> None:
        at = 0
        for p in self.parameters:
            p.data[...] = flat[at : at + p.size].reshape(p.shape)
            at += p.size

    def state_dict(self) -> State:
        """Loss and gradient at the current point, the history, and what the scaling has learned."""
        state: State = {"loss": self._loss, "gradient": self._gradient.copy(), "converged": self.converged}
        for i, (s, y, rho) in enumerate(self._pairs):
            state[f"s.{i}"], state[f"y.{i}"], state[f"rho.{i}"] = s.copy(), y.copy(), rho
        learned = self.scaling.state_dict() if self.scaling else {}
        return {**state, **{f"scaling.{key}": a for key, a in learned.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore loss, gradient, history and scaling."""
        if state.get("loss") is None:
            self._loss, self._gradient, self._pairs, self.converged = None, np.zeros(0), [], False
            self.scaling = SpectralScaling(self.scaling.shape) if self.scaling else None
            return
        dtype = self.parameters[0].dtype
        shape = (sum(p.size for p in self.parameters),)
        loss, converged = float(self._entry(state, "loss")), bool(self._entry(state, "converged"))
        like = self.parameters[0].data
        gradient = beside(self._entry(state, "gradient", shape).astype(dtype), like)
        count = sum(key.startswith("s.") for key in state)
        pairs = [
            (
                beside(self._entry(state, f"s.{i}", shape).astype(dtype), like),
                beside(self._entry(state, f"y.{i}", shape).astype(dtype), like),
                float(self._entry(state, f"rho.{i}")),
            )
            for i in range(count)
        ]
        if self.scaling:
            self.scaling.load_state_dict({key.removeprefix("scaling."): a for key, a in state.items()})
        self._loss, self._gradient, self._pairs, self.converged = loss, gradient, pairs, converged
