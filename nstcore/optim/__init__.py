"""Optimisers: gradient descent with momentum, Adam, AdamW, and L-BFGS; schedules of the learning rate."""

from __future__ import annotations

from nstcore.optim.first_order import SGD, Adam, AdamW
from nstcore.optim.lbfgs import LBFGS
from nstcore.optim.optimizer import Optimizer
from nstcore.optim.schedule import clip_gradients, cosine_schedule, step_schedule
from nstcore.optim.spectrum import SpectralScaling

__all__ = [
    "LBFGS", "SGD", "Adam", "AdamW", "Optimizer", "SpectralScaling",
    "clip_gradients", "cosine_schedule", "step_schedule",
]  # fmt: skip
