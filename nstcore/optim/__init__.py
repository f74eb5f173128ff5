"""Optimisers: gradient descent with momentum, Adam, and L-BFGS."""

from __future__ import annotations

from nstcore.optim.first_order import SGD, Adam
from nstcore.optim.lbfgs import LBFGS
from nstcore.optim.optimizer import Optimizer

__all__ = ["LBFGS", "SGD", "Adam", "Optimizer"]
