"""Learning rates that change from step to step, and gradients held to a length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from nstcore.autograd import Tensor
from nstcore.errors import ArgumentError
from nstcore.optim.optimizer import positive


def step_schedule(rate: float, step: int, milestones: Sequence[int], factor: float = 0.1) -> float:
    """The rate, multiplied by `factor` at each of the `milestones` that `step` (from 0) has reached.

    >>> [step_schedule(1.0, i, (2, 4), 0.5) for i in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    passed = sum(step >= milestone for milestone in milestones)
    return positive("step_schedule", "rate", rate) * float(positive("step_schedule", "factor", factor) ** passed)


def cosine_schedule(rate: float, step: int, steps: int, warm_up: int = 0, least: float = 0.0) -> float:
    """Up from 0 in a straight line over `warm_up` steps, then down to `least` · rate along half a cosine.

    step: from 0; from `steps` on the rate stays at its end. Raises `ArgumentError` unless 0 ≤ warm_up < steps.
    Source: Loshchilov, Hutter, "SGDR", ICLR 2017, equation 5; Goyal et al., 2017, section 2.2 (the warm-up).

    >>> [round(cosine_schedule(1.0, i, 5, warm_up=2), 3) for i in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.25, 0.0]
    """
    if not 0 <= warm_up < steps:
        raise ArgumentError(f"[cosine_schedule] expects 0 <= warm_up < steps, got {warm_up} and {steps}")
    rate = positive("cosine_schedule", "rate", rate)
    if step < warm_up:
        return rate * (step + 1) / warm_up
    done = min(1.0, (step - warm_up) / (steps - warm_up))
    return rate * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * done)))


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> float:
    """Scale all gradients by one number so that their common length ‖g‖₂ is at most `largest`; gives it as it was.

    A length that is NaN or infinite is returned as it is, and nothing is changed.
    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, algorithm 1.
    """
    largest = positive("clip_gradients", "largest", largest)
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in gradients))
    if math.isfinite(norm) and norm > largest:
        for g in gradients:
            g *= g.dtype.type(largest / norm)
    return norm
