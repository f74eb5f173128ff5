"""What the optimisers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor
from nstcore.autograd.engine import NUMERIC
from nstcore.backend.arrays import beside, on_device, to_host
from nstcore.errors import ArgumentError

Closure = Callable[[], float]
State = dict[str, Any]

REAL = (int, float, np.integer, np.floating)


class Optimizer:
    """Changes parameters in place so that a loss falls.

    ``step(closure)`` takes one step; `closure` computes the loss, adds its gradient to ``grad`` of the parameters,
    which ``step`` has cleared, and returns the loss as a number. A parameter that is given twice counts once.
    ``state_dict()`` is everything that the next step depends on but the parameters: with both restored, the run
    continues bit for bit.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list({id(p): p for p in parameters if p.requires_grad}.values())
        if not self.parameters:
            raise ArgumentError(
                f"[{type(self).__name__}] expects at least one parameter with requires_grad=True, got none"
            )
        self._check_writable()

    def step(self, closure: Closure) -> float:
        """Take one step; returns the loss before it."""
        raise NotImplementedError

    def _check_writable(self) -> None:
        """Raise `ArgumentError` when a parameter cannot be changed, such as one over an array that a file gave."""
        for i, p in enumerate(self.parameters):
            if not (on_device(p.data) or p.data.flags.writeable):
                raise ArgumentError(
                    f"[{type(self).__name__}] expects parameters that can be changed, got a read-only array for "
                    f"parameter {i}, {p.dtype} {p.shape}; give a copy of it"
                )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    def state_dict(self) -> State:
        """Numbers and arrays (copies) that `load_state_dict` restores."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; `ArgumentError`, and nothing changed, when it is of other parameters."""
        raise NotImplementedError

    def _restored(self, state: Mapping[str, Any], name: str) -> list[NDArray[Any]]:
        """Copies of the arrays ``name.0``, ``name.1`` … of `state`, one of each parameter's shape, in its type."""
        return [
            beside(np.array(self._entry(state, f"{name}.{i}", p.shape), p.dtype.newbyteorder("="), order="C"), p.data)
            for i, p in enumerate(self.parameters)
        ]

    def _entry(self, state: Mapping[str, Any], key: str, shape: tuple[int, ...] = ()) -> NDArray[Any]:
        """One entry of `state` as an array of `shape`."""
        got: NDArray[Any] | None = to_host(state[key]) if key in state else None
        if got is None or got.shape != shape or got.dtype.kind not in NUMERIC:
            found = "nothing" if got is None else f"{got.dtype} {got.shape}"
            raise ArgumentError(f"[{type(self).__name__}] expects a state with {key} of shape {shape}, got {found}")
        return got


def positive(op: str, name: str, value: float) -> float:
    """`value` as a float; `ArgumentError` unless it is finite and above 0."""
    if not (isinstance(value, REAL) and np.isfinite(value) and value > 0):
        raise ArgumentError(f"[{op}] expects {name} above 0, got {value!r}")
    return float(value)


def not_negative(op: str, name: str, value: float) -> float:
    """`value` as a float; `ArgumentError` unless it is finite and at least 0."""
    if not (isinstance(value, REAL) and np.isfinite(value) and value >= 0):
        raise ArgumentError(f"[{op}] expects {name} of at least 0, got {value!r}")
    return float(value)


def fraction(op: str, name: str, value: float) -> float:
    """`value` as a float; `ArgumentError` unless it lies in [0, 1)."""
    if not (isinstance(value, REAL) and 0 <= value < 1):
        raise ArgumentError(f"[{op}] expects {name} in [0, 1), got {value!r}")
    return float(value)
