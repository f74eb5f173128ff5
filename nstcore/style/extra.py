"""Costs that look at the pixels without the network of the style: what they add to J, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor
from nstcore.style.objective import Objective, Terms

Array = NDArray[Any]


class Extra(Protocol):
    """One more cost of the picture at one size."""

    name: str
    weight: float

    def add(self, pixels: Array, grad: Array | None) -> float:
        """The cost of `pixels` (1, h, w, 3), before the weight; adds weight × its gradient to `grad`."""
        ...


#: Gives the cost at the size of a photograph (h, w, 3).
ExtraAt = Callable[[Array], Extra]


class Combined:
    """J with more costs. They are computed one after another, so that their memory is not needed at the same time."""

    def __init__(self, objective: Objective, extras: Sequence[Extra]) -> None:
        self.objective, self.extras = objective, extras

    def evaluate(self, picture: Tensor) -> Terms:
        """As `Objective.evaluate`; the costs by name stand in ``extra``."""
        terms = self.objective.evaluate(picture)
        if not self.extras:
            return terms
        if picture.requires_grad and picture.grad is None:
            picture.grad = np.zeros_like(picture.data)
        raw = {extra.name: extra.add(picture.data, picture.grad) for extra in self.extras}
        total = terms.total + sum(extra.weight * raw[extra.name] for extra in self.extras)
        return replace(terms, total=total, extra=raw)
