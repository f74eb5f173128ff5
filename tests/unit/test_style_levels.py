"""From coarse to fine: which sizes, how many steps, and what it is good for."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nstcore import models
from nstcore.demo import picture_path
from nstcore.demo.painter import paint
from nstcore.errors import ArgumentError
from nstcore.images import load, resize, resize_to
from nstcore.style import Progress, Settings, transfer

Array = NDArray[Any]
SHALLOW: dict[str, Any] = {"content_layers": ["conv2_2"], "style_layers": ["conv1_1", "conv2_1", "conv3_1"]}


@pytest.fixture(scope="module")
def net() -> models.VGG:
    return models.vgg16()


@pytest.fixture(scope="module")
def photo() -> Array:
    return load(picture_path("chelsea"), size=96)


@pytest.fixture(scope="module")
def painting() -> Array:
    return paint("swirl", 80, 96)


def test_a_preview_passes_through_the_sizes_of_the_final_picture() -> None:
    preview, final = (Settings(size=size).levels() for size in (256, 1024))
    assert final[: len(preview)] == preview
    assert [level.size for level in final] == [256, 362, 512, 724, 1024]
    assert [level.steps for level in final] == sorted((level.steps for level in final), reverse=True)


@pytest.mark.parametrize("size", [16, 100, 256, 257, 300, 307, 308, 511, 777, 16384])
def test_the_last_size_is_the_one_that_was_asked_for(size: int) -> None:
    sizes = [level.size for level in Settings(size=size).levels()]
    assert sizes[-1] == size
    assert all(1.2 <= larger / smaller < 1.75 for smaller, larger in itertools.pairwise(sizes))
    assert all(level.steps >= 1 for level in Settings(size=size, steps=1).levels())


def test_one_size_alone() -> None:
    assert Settings(size=512, start_size=512).levels() == [(512, Settings().steps)]
    assert Settings(size=512, start_size=4000, steps=7).levels() == [(512, 7)]


def test_sizes_at_which_a_thin_picture_has_too_few_pixels_are_left_out() -> None:
    levels = Settings(size=512, start_size=128, steps=10).levels((60, 600), least=16)
    assert [level.size for level in levels] == [181, 256, 362, 512]
    assert levels[0].steps == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start_size": 15}, "start_size as a whole number from 16"),
        ({"until": -0.1}, "until as a number from 0 to 1"),
        ({"until": math.nan}, "until as a number from 0 to 1"),
        ({"style_scale": 0}, "style_scale as a number from 0.0625 to 16"),
        ({"average": 1, "optimizer": "adam"}, "average as a number from 0 to 0.9999"),
        ({"average": 0.9}, "average is for optimizer adam or gd"),
        ({"colors": "sepia"}, "colors to be one of style, luminance, match"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        Settings(**options)


def test_it_grows_to_the_final_size(net: models.VGG, photo: Array, painting: Array) -> None:
    sizes: list[tuple[int, int]] = []

    def callback(progress: Progress) -> None:
        sizes.append((progress.row.size, max(progress.image.shape)))
        assert progress.steps == 8 + 6 + 4

    result = transfer(photo, painting, net=net, size=96, start_size=48, steps=8, callback=callback, **SHALLOW)
    assert sizes == [(48, 48)] * 8 + [(68, 68)] * 6 + [(96, 96)] * 4
    assert [row.step for row in result.history] == list(range(1, 19))
    assert result.image.shape == photo.shape


def test_until_ends_a_size_when_the_loss_hardly_falls(net: models.VGG, photo: Array, painting: Array) -> None:
    options: dict[str, Any] = {"net": net, "size": 64, "start_size": 48, "steps": 400, **SHALLOW}
    result = transfer(photo, painting, until=0.1, **options)
    assert result.stopped == "settled"
    assert len(result.history) < 200
    for size in (48, 64):
        losses = [row.total for row in result.history if row.size == size]
        gains = [1 - now / before for before, now in zip(losses, losses[10:], strict=False)]
        assert gains[-1] < 0.1
        assert min(gains[:-1], default=1) >= 0.1


def test_larger_paintings_give_larger_strokes(net: models.VGG, photo: Array, painting: Array) -> None:
    """Without content, the picture takes the painting's texture at the scale asked for."""
    small, large = (
        transfer(photo, painting, net=net, size=96, start_size=96, steps=40, style_scale=scale, content_weight=0,
                 init="noise", **SHALLOW).image
        for scale in (0.4, 1.6)
    )  # fmt: skip
    fine = [float(np.square(x - resize_to(resize(x, 32), *x.shape[:2])).mean() / x.var()) for x in (small, large)]
    assert fine[1] < 0.9 * fine[0]


def test_the_average_of_the_pictures_on_the_way(net: models.VGG, photo: Array, painting: Array) -> None:
    """The result is Σ d^(n−i) x_i over its sum, of the pictures before they are clipped: here nearly so."""
    options: dict[str, Any] = {"net": net, "size": 48, "steps": 6, "optimizer": "adam", "learning_rate": 1e-3}
    on_the_way: list[Array] = []
    transfer(photo * 0.5 + 0.25, painting, callback=lambda p: on_the_way.append(p.image), **options, **SHALLOW)
    averaged = transfer(photo * 0.5 + 0.25, painting, average=0.7, **options, **SHALLOW)
    weights = 0.7 ** np.arange(5, -1, -1)
    expected = np.tensordot(weights / weights.sum(), np.stack(on_the_way), 1)
    np.testing.assert_allclose(averaged.image, expected, atol=1e-6)
    assert not np.allclose(averaged.image, on_the_way[-1], atol=1e-4)


def test_any_picture_can_be_the_start(net: models.VGG, photo: Array, painting: Array) -> None:
    start = paint("woodcut", 30, 40)
    result = transfer(photo, painting, net=net, size=48, steps=1, start=start, style_weight=0, **SHALLOW)
    assert result.history[0].content > 0
    again = transfer(photo, painting, net=net, size=48, steps=1, start=photo, style_weight=0, **SHALLOW)
    assert again.history[0].content < 1e-2 * result.history[0].content
