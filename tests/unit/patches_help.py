"""What the tests of patches and of their index share."""

from __future__ import annotations

import numpy as np

from nstcore import nn


def small_net(seed: int = 0) -> nn.Module:
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, activation="relu", rng=rng), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, activation="relu", rng=rng),
    )  # fmt: skip


def some_pictures(count: int = 30, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.random((int(rng.integers(6, 15)), int(rng.integers(6, 15)), 3)).astype(np.float32) for _ in range(count)
    ]
