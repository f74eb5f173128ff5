"""More rows, images and pixels than a grid has blocks along an axis: the launches of small grids, on the emulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import launcher

from nstcore import Tensor, ops, use_backend
from nstcore.backend import cuda_gram, cuda_pairwise
from nstcore.backend.arrays import to_host

MOST = 2**31 - 1, 2, 2


@pytest.fixture(autouse=True)
def _small_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "GRID_LIMITS", MOST)
    for module in (cuda_gram, cuda_pairwise):
        monkeypatch.setattr(module, "MOST_BLOCKS", MOST)


def both(function: Any, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Result and gradient of the sum of its squares, on the emulator and by the reference."""
    found = []
    for backend in ("cuda-on-cpu", "reference"):
        with use_backend(backend):
            t = Tensor(x, requires_grad=True)
            y = function(t)
            (y * y).sum().backward()
            found.append((to_host(y.data), to_host(t.grad)))
    return found


def check(function: Any, x: np.ndarray) -> None:
    here, there = both(function, x)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize("distance", [ops.pairwise_sqdist, ops.pairwise_inner, ops.pairwise_cosine])
def test_rows(distance: Any) -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((3, 5))
    check(lambda t: distance(t, points), rng.standard_normal((2 * 2 * 64 + 3, 5)))


@pytest.mark.parametrize(("images", "pixels"), [(5, 3), (1, 2 * 1024 + 300)], ids=["images", "pixels"])
def test_gram(images: int, pixels: int) -> None:
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((images, 1, pixels, 3)), rng.standard_normal((images, 3, 3))
    check(ops.gram, x)
    check(lambda t: ops.style_loss(t, target), x)
