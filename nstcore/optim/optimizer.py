"""What the optimisers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nstcore.autograd import Tensor
from nstcore.errors import ArgumentError

Closure = Callable[[], float]
State = dict[str, Any]


class Optimizer:
    """Changes parameters in place so that a loss falls.

    ``step(closure)`` takes one step; `closure` computes the loss, leaves its gradient in ``grad`` of the parameters
    and returns the loss as a number. ``state_dict()`` is everything that the next step depends on but the parameters:
    with both restored, the run continues bit for bit.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        if not self.parameters:
            raise ArgumentError(f"[{type(self).__name__}] expects at least one parameter with requires_grad=True, got none")

    def step(self, closure: Closure) -> float:
        """Take one step; returns the loss before it."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    def state_dict(self) -> State:
        """Numbers and arrays (copies) that `load_state_dict` restores."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        raise NotImplementedError


def positive(op: str, name: str, value: float) -> float:
    """`value` as a float; `ArgumentError` unless it is finite and above 0."""
    if not (np.isfinite(value) and value > 0):
        raise ArgumentError(f"[{op}] expects {name} above 0, got {value}")
    return float(value)


def fraction(op: str, name: str, value: float) -> float:
    """`value` as a float; `ArgumentError` unless it lies in [0, 1)."""
    if not 0 <= value < 1:
        raise ArgumentError(f"[{op}] expects {name} in [0, 1), got {value}")
    return float(value)
