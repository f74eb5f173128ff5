"""Gradient descent whose step size follows the loss, and the optimiser that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nstcore import optim
from nstcore.autograd import Tensor
from nstcore.style.settings import LBFGS_HISTORY, Settings

ADAM_RATE, DESCENT_RATE = 0.02, 0.02  # pixels, of a range of 1, that the first step moves at most


def optimizer_for(pixels: Tensor, settings: Settings, everywhere: bool = True) -> optim.Optimizer:
    """A new optimiser of `pixels`; everywhere: whether the style goes into every part of the picture.

    Where it does not, what lies outside its regions has to stay as it is, so no step may be spread over the picture by
    its frequencies, though that would end sooner.
    """
    if settings.optimizer == "lbfgs" and not everywhere:
        return optim.LBFGS([pixels], LBFGS_HISTORY)
    if settings.optimizer == "lbfgs":
        return optim.LBFGS([pixels], LBFGS_HISTORY, scaling=optim.SpectralScaling(pixels.shape[1:]))
    if settings.optimizer == "adam":
        return optim.Adam([pixels], settings.learning_rate or ADAM_RATE)
    return Descent([pixels], settings.learning_rate or DESCENT_RATE)


class Descent(optim.SGD):
    """Gradient descent with momentum whose step size follows the loss.

    The gradient of J shrinks by orders of magnitude on the way, so no fixed step size serves a whole run: it grows a
    little while the loss falls; when the loss rises it is halved and the momentum forgotten.
    first_move: largest change of a pixel in the first step.
    Source: Vogl et al., "Accelerating the convergence of the back-propagation method", 1988 (the "bold driver").
    """

    GROW, SHRINK = 1.05, 0.5

    def __init__(self, parameters: list[Tensor], first_move: float) -> None:
        super().__init__(parameters, learning_rate=1.0, momentum=0.9)
        self.first_move = first_move
        self._last = np.inf

    def step(self, closure: Callable[[], float]) -> float:
        """Take one step; returns the loss before it."""

        def adapted() -> float:
            loss = closure()
            if np.isinf(self._last):
                slopes = (p.grad for p in self.parameters if p.grad is not None and p.size)
                largest = max((float(np.max(np.abs(slope))) for slope in slopes), default=0.0)
                self.learning_rate = self.first_move / max(largest, 1e-30)
            elif loss < self._last:
                self.learning_rate *= self.GROW
            else:
                self.learning_rate *= self.SHRINK
                for v in self._velocity:
                    v[...] = 0
            self._last = loss
            return loss

        return super().step(adapted)

    def state_dict(self) -> dict[str, Any]:
        """The velocities, the step size and the last loss."""
        return {**super().state_dict(), "learning_rate": self.learning_rate, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        rate, last = float(self._entry(state, "learning_rate")), float(self._entry(state, "last"))
        super().load_state_dict(state)
        self.learning_rate, self._last = rate, last
