"""Gradient descent with momentum, and Adam."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nstcore.autograd import Tensor
from nstcore.backend.arrays import empty_beside
from nstcore.optim.optimizer import Closure, Optimizer, State, fraction, positive


class SGD(Optimizer):
    """Gradient descent: v ← μ v + g, θ ← θ − η v.

    learning_rate: η > 0. momentum: μ in [0, 1).
    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013, equations 1–2
    (with η outside of v, as is usual now).
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, momentum: float = 0.9) -> None:
        super().__init__(parameters)
        self.learning_rate = positive("SGD", "learning_rate", learning_rate)
        self.momentum = fraction("SGD", "momentum", momentum)
        self._velocity = [np.zeros_like(p.data) for p in self.parameters]

    def step(self, closure: Closure) -> float:
        """Take one step; parameters without a gradient stay as they are."""
        self.zero_grad()
        loss = closure()
        for p, v in zip(self.parameters, self._velocity, strict=True):
            if p.grad is None:
                continue
            v *= self.momentum
            v += p.grad
            p.data -= np.multiply(v, p.dtype.type(self.learning_rate), out=empty_beside(p.data))
        return loss

    def state_dict(self) -> State:
        """The velocities."""
        return {f"velocity.{i}": v.copy() for i, v in enumerate(self._velocity)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the velocities."""
        self._velocity = self._restored(state, "velocity")


class Adam(Optimizer):
    """Adam: m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², θ ← θ − η m̂ / (√v̂ + ε).

    m̂ and v̂ are m and v corrected for their start at 0.

    learning_rate: η > 0. betas: (β₁, β₂), each in [0, 1). eps: ε > 0.
    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters)
        self.learning_rate = positive("Adam", "learning_rate", learning_rate)
        self.betas = fraction("Adam", "betas[0]", betas[0]), fraction("Adam", "betas[1]", betas[1])
        self.eps = positive("Adam", "eps", eps)
        self._steps = 0
        self._mean = [np.zeros_like(p.data) for p in self.parameters]
        self._square = [np.zeros_like(p.data) for p in self.parameters]

    def step(self, closure: Closure) -> float:
        """Take one step; parameters without a gradient stay as they are."""
        self.zero_grad()
        loss = closure()
        self._steps += 1
        b1, b2 = self.betas
        rate = self.learning_rate * float(np.sqrt(1 - b2**self._steps)) / (1 - b1**self._steps)
        eps = self.eps * float(np.sqrt(1 - b2**self._steps))
        for p, m, v in zip(self.parameters, self._mean, self._square, strict=True):
            if p.grad is None:
                continue
            change, root = empty_beside(p.data), empty_beside(p.data)
            np.subtract(p.grad, m, out=change)
            change *= 1 - b1
            m += change
            np.multiply(p.grad, p.grad, out=change)
            change -= v
            change *= 1 - b2
            v += change
            np.sqrt(v, out=root)
            root += eps
            np.multiply(m, rate, out=change)
            change /= root
            p.data -= change
        return loss

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
