"""Layers, and the `Module` that holds their parameters."""

from __future__ import annotations

from nstcore.nn.layers import AvgPool2d, Conv2d, Linear, MaxPool2d, PReLU, Sequential
from nstcore.nn.module import Module

__all__ = ["AvgPool2d", "Conv2d", "Linear", "MaxPool2d", "Module", "PReLU", "Sequential"]
