"""Layers that behave otherwise while a network learns, and what stands between features and an embedding."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from nstcore import ops
from nstcore.autograd import Tensor
from nstcore.errors import ArgumentError
from nstcore.nn.module import Module


class Affine(Module):
    """y = scale · x + shift, a number each a channel: (..., c) -> (..., c). scale: (c,), 1 at first; shift: (c,), 0."""

    def __init__(self, channels: int) -> None:
        self.scale = Tensor(np.ones(channels, np.float32), requires_grad=True)
        self.shift = Tensor(np.zeros(channels, np.float32), requires_grad=True)

    def forward(self, x: Any) -> Any:
        """x: (..., c)."""
        return x * self.scale + self.shift


class BatchNorm(Module):
    """Batch normalisation of each channel: (..., c) -> (..., c); see `nstcore.ops.batch_norm`.

    While it learns it uses the moments of the batch, and moves the running ones by `momentum` towards them:
    running ← (1 − momentum) · running + momentum · batch, the variance unbiased. As trained it uses the running ones.
    running: buffer (2, c), mean and variance. activation: "relu" or None, fused. pool: with "relu" also a max pool of
    size 2 behind it in the same pass: (n, h, w, c) -> (n, ⌊h/2⌋, ⌊w/2⌋, c); see `nstcore.ops.batch_norm_pool2d`.
    Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2.
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        activation: Literal["relu"] | None = None,
        pool: bool = False,
    ) -> None:
        if pool and activation != "relu":
            raise ArgumentError(f"[BatchNorm] expects activation 'relu' where it pools, got {activation!r}")
        self.scale = Tensor(np.ones(channels, np.float32), requires_grad=True)
        self.shift = Tensor(np.zeros(channels, np.float32), requires_grad=True)
        self.running = np.stack([np.zeros(channels, np.float32), np.ones(channels, np.float32)])
        self.eps, self.momentum, self.activation, self.pool = eps, momentum, activation, pool

    def forward(self, x: Any) -> Any:
        """x: (..., c)."""
        moments, found = None if self.training else self.running, np.zeros_like(self.running, np.float64)
        if self.pool:
            y = ops.batch_norm_pool2d(x, self.scale, self.shift, moments, self.eps, found)
        else:
            y = ops.batch_norm(x, self.scale, self.shift, moments, self.eps, self.activation, found)
        if not self.training:
            return y
        count = x.size // x.shape[-1]
        found[1] *= count / max(1, count - 1)
        self.running += (self.momentum * (found - self.running)).astype(self.running.dtype)
        return y


class Dropout(Module):
    """Elements set to 0 at random while it learns, all of them as trained; see `nstcore.ops.dropout`.

    calls: buffer, how often it was used; with `seed` it decides which elements go, so that a run goes on as it would
    have after its state was saved and loaded.
    """

    def __init__(self, rate: float, *, seed: int) -> None:
        self.rate, self.seed = rate, seed
        self.calls = np.zeros((), np.int64)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        if not self.training:
            return x
        self.calls += 1
        return ops.dropout(x, self.rate, (self.seed, int(self.calls)))


class GlobalAvgPool(Module):
    """The mean over all positions: (n, h, w, c) -> (n, c)."""

    def forward(self, x: Any) -> Any:
        """x: (n, h, w, c)."""
        return ops.mean(x, axis=(1, 2))


class Flatten(Module):
    """All features of a sample in one row, row by row and channel by channel: (n, h, w, c) -> (n, h w c)."""

    def forward(self, x: Any) -> Any:
        """x: (n, ...)."""
        return ops.reshape(x, (x.shape[0], -1))


class L2Normalize(Module):
    """Rows of length 1: (n, d) -> (n, d); see `nstcore.ops.l2_normalize`."""

    def forward(self, x: Any) -> Any:
        """x: (n, d)."""
        return ops.l2_normalize(x)
