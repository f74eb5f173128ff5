"""Layers, the `Module` that holds their parameters, and what these are drawn from."""

from __future__ import annotations

from nstcore.nn.layers import AvgPool2d, Conv2d, Linear, MaxPool2d, PReLU, Sequential, glorot_uniform, he_normal
from nstcore.nn.module import Module
from nstcore.nn.normalisation import Affine, BatchNorm, Dropout, Flatten, GlobalAvgPool, L2Normalize

__all__ = [
    "Affine", "AvgPool2d", "BatchNorm", "Conv2d", "Dropout", "Flatten", "GlobalAvgPool", "L2Normalize", "Linear",
    "MaxPool2d", "Module", "PReLU", "Sequential", "glorot_uniform", "he_normal",
]  # fmt: skip
