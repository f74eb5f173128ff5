"""Gradient descent with momentum, Adam, and AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor
from nstcore.backend.arrays import on_device
from nstcore.optim.optimizer import Closure, Optimizer, State, fraction, not_negative, positive

Array = NDArray[Any]


def _zeros(p: Tensor) -> Array:
    """Where the parameter is, and of its type in the machine's order of bytes."""
    return np.zeros_like(p.data, p.dtype.newbyteorder("="), order="C")


@contextmanager
def _in_place(p: Tensor) -> Iterator[tuple[Array, Array]]:
    """The gradient and the values of `p` as the kernels take them; a parameter that does not lie so is written back."""
    kind = p.dtype.newbyteorder("=")
    theta = np.ascontiguousarray(p.data, kind)
    yield np.ascontiguousarray(p.grad, kind), theta
    if theta is not p.data:
        p.data[...] = theta


class SGD(Optimizer):
    """Gradient descent: v ← μ v + g, θ ← θ − η v, with g ← g + λ θ first.

    learning_rate: η > 0. momentum: μ in [0, 1). weight_decay: λ ≥ 0. nesterov: θ ← θ − η (g + μ v) instead.
    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013, equations 1–4
    (with η outside of v, as is usual now).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        momentum: float = 0.9,
        *,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters)
        self.learning_rate = positive("SGD", "learning_rate", learning_rate)
        self.momentum = fraction("SGD", "momentum", momentum)
        self.weight_decay, self.nesterov = not_negative("SGD", "weight_decay", weight_decay), nesterov
        self._velocity = [_zeros(p) for p in self.parameters]

    def step(self, closure: Closure) -> float:
        """Take one step; parameters without a gradient stay as they are."""
        from nstcore.backend.cpu import native

        self._check_writable()
        self.zero_grad()
        loss = closure()
        for p, v in zip(self.parameters, self._velocity, strict=True):
            if p.grad is None:
                continue
            if on_device(v):
                slope = p.grad + p.dtype.type(self.weight_decay) * p.data
                v *= p.dtype.type(self.momentum)
                v += slope
                ahead = slope + p.dtype.type(self.momentum) * v if self.nesterov else v
                p.data -= p.dtype.type(self.learning_rate) * ahead
                continue
            with _in_place(p) as (slope, theta):
                native.sgd_step(slope, self.momentum, self.learning_rate, self.weight_decay, self.nesterov, v, theta)
        return loss

    def state_dict(self) -> State:
        """The velocities."""
        return {f"velocity.{i}": v.copy() for i, v in enumerate(self._velocity)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the velocities."""
        self._velocity = self._restored(state, "velocity")


class Adam(Optimizer):
    """Adam: m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², θ ← θ − η m̂ / (√v̂ + ε).

    m̂ and v̂ are m and v corrected for their start at 0, and g ← g + λ θ comes first.

    learning_rate: η > 0. betas: (β₁, β₂), each in [0, 1). eps: ε > 0. weight_decay: λ ≥ 0.
    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters)
        self.weight_decay = not_negative("Adam", "weight_decay", weight_decay)
        self.learning_rate = positive("Adam", "learning_rate", learning_rate)
        self.betas = fraction("Adam", "betas[0]", betas[0]), fraction("Adam", "betas[1]", betas[1])
        self.eps = positive("Adam", "eps", eps)
        self._steps = 0
        self._mean = [_zeros(p) for p in self.parameters]
        self._square = [_zeros(p) for p in self.parameters]

    def step(self, closure: Closure) -> float:
        """Take one step; parameters without a gradient stay as they are."""
        from nstcore.backend.cpu import native

        self._check_writable()
        self.zero_grad()
        loss = closure()
        self._steps += 1
        b1, b2 = self.betas
        rate = self.learning_rate * float(np.sqrt(1 - b2**self._steps)) / (1 - b1**self._steps)
        eps = self.eps * float(np.sqrt(1 - b2**self._steps))
        for p, m, v in zip(self.parameters, self._mean, self._square, strict=True):
            if p.grad is None:
                continue
            decay, keep = self._decay(p)
            if on_device(v):
                slope = p.grad + p.dtype.type(decay) * p.data
                m += p.dtype.type(1 - b1) * (slope - m)
                v += p.dtype.type(1 - b2) * (slope * slope - v)
                p.data *= p.dtype.type(keep)
                p.data -= p.dtype.type(rate) * m / (np.sqrt(v) + p.dtype.type(eps))
                continue
            with _in_place(p) as (slope, theta):
                native.adam_step(slope, 1 - b1, 1 - b2, rate, eps, decay, keep, m, v, theta)
        return loss

    def _decay(self, p: Tensor) -> tuple[float, float]:
        """How much of the parameter its gradient gets, and how much of it stays before the step."""
        return self.weight_decay, 1.0

    def state_dict(self) -> State:
        """Step count and both moments."""
        state: State = {"steps": self._steps}
        for i, (m, v) in enumerate(zip(self._mean, self._square, strict=True)):
            state[f"mean.{i}"], state[f"square.{i}"] = m.copy(), v.copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore step count and moments."""
        mean, square = self._restored(state, "mean"), self._restored(state, "square")
        self._steps, self._mean, self._square = int(self._entry(state, "steps")), mean, square


class AdamW(Adam):
    """Adam whose weight decay acts on the parameter itself, not through the moments: θ ← θ − η λ θ before the step.

    Only weights decay: parameters with one axis (biases, scales, shifts) do not.
    Source: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2 (with η λ).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, learning_rate, betas, eps, weight_decay)

    def _decay(self, p: Tensor) -> tuple[float, float]:
        return 0.0, 1 - self.learning_rate * self.weight_decay if p.ndim > 1 else 1.0
