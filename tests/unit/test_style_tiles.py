"""Tiles are exact: the same costs and the same gradient as of the whole picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nstcore as nst
from nstcore import models
from nstcore.demo import picture_path
from nstcore.demo.painter import paint
from nstcore.errors import ArgumentError
from nstcore.images import load
from nstcore.style import Settings
from nstcore.style.objective import Objective, white_noise
from nstcore.style.tiles import TiledObjective, halo, tiles

Array = NDArray[Any]
DEFAULTS = Settings()


@pytest.fixture(scope="module")
def nets() -> dict[str, models.VGG]:
    return {"float32": models.vgg16(), "float64": models.vgg16(dtype="float64")}


@pytest.fixture(scope="module")
def photo() -> Array:
    return load(picture_path("rocket"), size=230)


@pytest.fixture(scope="module")
def paintings() -> list[Array]:
    return [paint("swirl", 150, 200), paint("woodcut", 210, 140)]


def both(net: models.VGG, photo: Array, paintings: list[Array], settings: Settings, masks: Any, **how: Any) -> Any:
    """Terms and gradient of a picture that is neither start nor target, whole and in tiles."""
    picture = (0.7 * photo + 0.3 * white_noise(photo.shape, 1)).astype(net.dtype)[None]
    found = []
    for kind, options in ((Objective, {}), (TiledObjective, how)):
        x = nst.Tensor(picture.copy(), requires_grad=True)
        terms = kind(net, photo, paintings, settings, *masks, **options).evaluate(x)
        assert x.grad is not None
        found += [terms, x.grad]
    return found


def difference(a: Array, b: Array) -> float:
    """Relative, in norm over the whole picture."""
    return float(np.linalg.norm((a - b).ravel().astype(np.float64)) / np.linalg.norm(b.ravel().astype(np.float64)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("tile", "keep_content"), [(64, True), (128, False)])
def test_the_gradient_is_that_of_the_whole_picture(
    nets: dict[str, models.VGG], photo: Array, paintings: list[Array], dtype: str, tile: int, keep_content: bool
) -> None:
    settings = Settings(tv_weight=10.0)
    whole, expected, terms, grad = both(
        nets[dtype], photo, paintings[:1], settings, (), tile=tile, keep_content=keep_content
    )
    exact = 1e-5 if dtype == "float32" else 1e-12
    assert difference(grad, expected) < exact
    assert terms.total == pytest.approx(whole.total, rel=10 * exact)
    assert terms.content == pytest.approx(whole.content, rel=10 * exact)
    assert terms.variation == whole.variation
    for name, cost in whole.style.items():
        assert terms.style[name] == pytest.approx(cost, rel=10 * exact)


def test_no_seam_stands_out(nets: dict[str, models.VGG], photo: Array, paintings: list[Array]) -> None:
    """The error next to the cuts is no larger than elsewhere by more than chance allows."""
    _, expected, _, grad = both(nets["float64"], photo, paintings[:1], DEFAULTS, (), tile=64)
    error = np.abs(grad - expected)[0].max(2)
    rows = error.max(1)
    assert rows.max() < 1e-10 * np.abs(expected).max()


def test_regions_and_blends_in_tiles(nets: dict[str, models.VGG], photo: Array, paintings: list[Array]) -> None:
    """Two regions with soft edges, one of them ending inside of a tile, and a masked painting."""
    height, width, _ = photo.shape
    ramp = np.clip((np.arange(width, dtype=np.float32) - 70) / 40, 0, 1)[None].repeat(height, 0)
    source = np.zeros(paintings[0].shape[:2], np.float32)
    source[20:90, 30:] = 1
    settings = Settings(blend=[1, 2])
    for masks in ((), ([ramp, 1 - ramp], [source, None])):
        _, expected, _, grad = both(nets["float64"], photo, paintings, settings, masks, tile=128)
        assert difference(grad, expected) < 1e-12


def test_layers_that_are_shorter_than_the_last_tile(nets: dict[str, models.VGG], paintings: list[Array]) -> None:
    """Of 195 pixels, the last tile has a core of three: it has no place on conv3_1 and above."""
    picture = white_noise((195, 70, 3), 3)
    _, expected, _, grad = both(nets["float64"], picture, paintings[:1], DEFAULTS, (), tile=64)
    assert difference(grad, expected) < 1e-12


def test_the_halo_is_what_a_place_sees(nets: dict[str, models.VGG]) -> None:
    """By the gradient of one place of conv5_1, which is that far from the border of its own 16 pixels."""
    net = nets["float64"]
    x = nst.Tensor(white_noise((192, 16, 3), 0).astype(np.float64)[None], requires_grad=True)
    ((_, a),) = net.walk(x, ["conv5_1"])
    a[:, 6].sum().backward()
    assert x.grad is not None
    moved = np.abs(x.grad).sum((0, 2, 3))
    (rows,) = np.nonzero(moved > 1e-12 * moved.max())  # Winograd's tiles round beyond the field
    assert 96 - 58 <= rows.min() < 96 <= rows.max() < 112 + 58
    assert halo(net, ["conv5_1"]) == 64
    assert halo(net, ["conv5_3"]) == 128


@pytest.mark.parametrize("shape", [(64, 64), (65, 1), (500, 333), (1024, 768), (16, 4000)])
@pytest.mark.parametrize(("side", "step"), [(64, 64), (192, 192), (500, 192), (50, 192)])
def test_cores_cover_the_picture_once(shape: tuple[int, int], side: int, step: int) -> None:
    covered = np.zeros(shape, int)
    for tile in tiles(shape, side, 64, step):
        covered[slice(*tile.rows.core), slice(*tile.columns.core)] += 1
        for span, length in ((tile.rows, shape[0]), (tile.columns, shape[1])):
            assert span.core[0] % step == span.seen[0] % step == 0
            assert span.core[1] - span.core[0] <= max(side, step) + step
            assert span.seen[0] <= max(0, span.core[0] - 64)
            assert span.seen[1] == min(length, span.core[1] + 64)
    assert (covered == 1).all()


def test_tiles_without_pixels_are_refused() -> None:
    with pytest.raises(ArgumentError, match="tiles of at least 1 pixel, got 0"):
        tiles((100, 100), 0, 64)
