"""Layers with parameters, and the pools between them."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from nstcore import ops
from nstcore.autograd import Tensor
from nstcore.errors import ArgumentError, ShapeError
from nstcore.nn.module import Module

Pair = tuple[int, int]


def he_normal(shape: tuple[int, ...], fan_in: int, rng: np.random.Generator) -> Tensor:
    """A float32 parameter drawn from N(0, 2 / fan_in).

    Source: He et al., "Delving Deep into Rectifiers", 2015, equation 10.
    """
    values = rng.standard_normal(shape) * np.sqrt(2.0 / max(1, fan_in))
    return Tensor(values.astype(np.float32), requires_grad=True)


def glorot_uniform(shape: tuple[int, ...], fan_in: int, fan_out: int, rng: np.random.Generator) -> Tensor:
    """A float32 parameter drawn from U(−a, a), a = √(6 / (fan_in + fan_out)): for a layer without a ReLU behind it.

    Source: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010,
    equation 16.
    """
    limit = np.sqrt(6.0 / max(1, fan_in + fan_out))
    return Tensor(rng.uniform(-limit, limit, shape).astype(np.float32), requires_grad=True)


class Conv2d(Module):
    """Convolution (n, h, w, c) -> (n, p, q, k); see `nstcore.ops.conv2d`.

    weight: (k, r, s, c / groups), bias: (k,), or None with ``bias=False`` (a normalisation that follows has a shift of
    its own). Without `rng` the parameters are zero, to be loaded.
    groups: the channels and the filters are cut into so many parts, each part of the filters sees its part of the
    channels (Krizhevsky, Sutskever, Hinton, NIPS 2012, section 3.5, for two GPUs). Raises `ArgumentError` unless it
    divides both.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair | Literal["same"] = 0,
        activation: Literal["relu"] | None = None,
        bias: bool = True,
        groups: int = 1,
        rng: np.random.Generator | None = None,
    ) -> None:
        if groups < 1 or channels % groups or filters % groups:
            raise ArgumentError(
                f"[conv2d] expects groups that divide {channels} channels and {filters} filters, got {groups}"
            )
        r, s = (size, size) if isinstance(size, int) else size
        shape = (filters, r, s, channels // groups)
        self.weight = (
            he_normal(shape, math.prod(shape[1:]), rng)
            if rng
            else Tensor(np.zeros(shape, np.float32), requires_grad=True)
        )
        self.bias = Tensor(np.zeros(filters, np.float32), requires_grad=True) if bias else None
        self.stride, self.padding, self.activation, self.groups = stride, padding, activation, groups

    def forward(self, x: Any, pool: bool = False) -> Any:
        """x: (n, h, w, c). pool: with a max pool of 2×2 behind it, in one pass where the kernels can."""
        if self.groups == 1:
            return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.activation, pool=pool)
        channels, filters = self.weight.shape[3], self.weight.shape[0] // self.groups
        if x.ndim != 4 or x.shape[3] != channels * self.groups:
            raise ShapeError(f"[conv2d] expects (n, h, w, {channels * self.groups}), got {x.shape}")
        parts = []
        for group in range(self.groups):
            mine = slice(group * filters, (group + 1) * filters)
            seen = ops.getitem(x, (..., slice(group * channels, (group + 1) * channels)))
            w, b = ops.getitem(self.weight, mine), None if self.bias is None else ops.getitem(self.bias, mine)
            parts.append(ops.conv2d(seen, w, b, self.stride, self.padding, self.activation, pool=pool))
        return ops.concat(parts, 3)


class Linear(Module):
    """x W + b: (n, d) -> (n, k). weight: (d, k), bias: (k,)."""

    def __init__(self, inputs: int, outputs: int, *, rng: np.random.Generator) -> None:
        self.weight = he_normal((inputs, outputs), inputs, rng)
        self.bias = Tensor(np.zeros(outputs, np.float32), requires_grad=True)

    def forward(self, x: Any) -> Any:
        """x: (n, d)."""
        return ops.matmul(x, self.weight) + self.bias


class PReLU(Module):
    """See `nstcore.ops.prelu`. slope: (c,), 0.25 to begin with, as its authors do."""

    def __init__(self, channels: int) -> None:
        self.slope = Tensor(np.full(channels, 0.25, np.float32), requires_grad=True)

    def forward(self, x: Any) -> Any:
        """x: (..., c)."""
        return ops.prelu(x, self.slope)


class MaxPool2d(Module):
    """See `nstcore.ops.max_pool2d`."""

    def __init__(self, size: int | Pair, stride: int | Pair | None = None, ceil_mode: bool = False) -> None:
        self.size, self.stride, self.ceil_mode = size, stride, ceil_mode

    def forward(self, x: Any) -> Any:
        """x: (n, h, w, c)."""
        return ops.max_pool2d(x, self.size, self.stride, ceil_mode=self.ceil_mode)


class AvgPool2d(Module):
    """See `nstcore.ops.avg_pool2d`."""

    def __init__(self, size: int | Pair, stride: int | Pair | None = None, ceil_mode: bool = False) -> None:
        self.size, self.stride, self.ceil_mode = size, stride, ceil_mode

    def forward(self, x: Any) -> Any:
        """x: (n, h, w, c)."""
        return ops.avg_pool2d(x, self.size, self.stride, ceil_mode=self.ceil_mode)


class Sequential(Module):
    """One part after the other."""

    def __init__(self, *parts: Module) -> None:
        self.parts = list(parts)

    def forward(self, x: Any) -> Any:
        """x: whatever the first part takes."""
        for part in self.parts:
            x = part(x)
        return x
