"""Colours that stay, and styles that go where a mask says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nstcore as nst
from nstcore import models
from nstcore.demo import picture_path
from nstcore.demo.painter import paint
from nstcore.errors import ArgumentError, ImageError
from nstcore.images import load, resize_to
from nstcore.style import Settings, colors, transfer
from nstcore.style.descent import optimizer_for
from nstcore.style.objective import Objective, layer_mask
from nstcore.style.scene import Scene

Array = NDArray[Any]
SIZE = 48
SHALLOW: dict[str, Any] = {
    "size": SIZE, "content_layers": ["conv2_2"], "style_layers": ["conv1_1", "conv2_1", "conv3_1"],
}  # fmt: skip
FLAT = {
    "grey": np.full((SIZE, SIZE, 3), 0.5, np.float32),
    "black": np.zeros((SIZE, SIZE, 3), np.float32),
    "white": np.ones((SIZE, SIZE, 3), np.float32),
    "red": np.zeros((SIZE, SIZE, 3), np.float32) + np.array([1, 0, 0], np.float32),
    "grey ramp": np.repeat(np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE, 1), 3, axis=2),
}


@pytest.fixture(scope="module")
def net() -> models.VGG:
    return models.vgg16()


@pytest.fixture(scope="module")
def photo() -> Array:
    return load(picture_path("chelsea"), size=SIZE)


@pytest.fixture(scope="module")
def painting() -> Array:
    return paint("swirl", 40, SIZE)


def moments(picture: Array) -> tuple[Array, Array]:
    flat = picture.reshape(-1, 3).astype(np.float64)
    return flat.mean(0), np.cov(flat.T, bias=True)


def test_matched_colours_have_the_mean_and_covariance_of_the_photograph() -> None:
    """Of pictures in the middle of the range, where nothing is clipped."""
    rng = np.random.default_rng(0)
    mix = 0.04 * np.eye(3) + 0.03 * rng.random((2, 3, 3))
    painting, photo = (0.5 + rng.standard_normal((40, 40, 3)).clip(-2, 2) @ m for m in mix)
    matched = colors.match_colors(painting, photo)
    for ours, theirs in zip(moments(matched), moments(photo), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_matched_brightness() -> None:
    rng = np.random.default_rng(1)
    painting, photo = 0.3 + 0.3 * rng.random((30, 30, 3)), 0.4 + 0.2 * rng.random((20, 50, 3))
    matched = colors.match_luminance(painting, photo)
    assert np.ptp(matched, axis=2).max() == 0
    ours, theirs = (colors.luminance(x) for x in (matched, photo))
    assert ours.mean() == pytest.approx(theirs.mean(), abs=1e-5)
    assert ours.std() == pytest.approx(theirs.std(), rel=1e-3)


@pytest.mark.parametrize("way", ["luminance", "match"])
@pytest.mark.parametrize("which", FLAT)
def test_pictures_without_colour_give_finite_results(net: models.VGG, painting: Array, way: str, which: str) -> None:
    flat = FLAT[which]
    for content, style in ((flat, painting), (painting, flat), (flat, flat)):
        result = transfer(content, style, net=net, steps=2, colors=way, **SHALLOW)
        assert np.isfinite(result.image).all()
        assert all(np.isfinite(row.total) for row in result.history)


def test_faint_noise_is_not_made_into_colours(photo: Array) -> None:
    """A grey painting with the noise of a JPEG keeps its noise at that strength, and takes the mean colour."""
    noise = 0.5 + 1e-3 * np.random.default_rng(0).standard_normal((40, 40, 3)).astype(np.float32)
    matched = colors.match_colors(noise, photo)
    np.testing.assert_allclose(matched.mean((0, 1)), photo.mean((0, 1)), atol=1e-3)
    assert matched.std((0, 1)).max() < 0.1


def test_painting_brightness_alone_keeps_the_colours(net: models.VGG, photo: Array, painting: Array) -> None:
    """Differences of the channels, which is what I and Q of the colour are made of, stay where nothing is clipped."""
    soft = 0.35 + 0.3 * photo
    result = transfer(soft, painting, net=net, steps=8, colors="luminance", **SHALLOW)
    inner = (result.image > 0.01).all(2) & (result.image < 0.99).all(2)
    assert inner.mean() > 0.5
    for a, b in ((0, 1), (1, 2)):
        np.testing.assert_allclose((result.image[..., a] - result.image[..., b])[inner],
                                   (soft[..., a] - soft[..., b])[inner], atol=1e-5)  # fmt: skip
    assert not np.allclose(colors.luminance(result.image), colors.luminance(soft), atol=0.05)


def halves() -> list[Array]:
    left = np.zeros((SIZE, SIZE), np.float32)
    left[:, : SIZE // 2] = 1
    return [left, 1 - left]


def test_a_mask_of_ones_is_no_mask(net: models.VGG, photo: Array, painting: Array) -> None:
    options: dict[str, Any] = {"net": net, "steps": 3, **SHALLOW}
    plain = transfer(photo, painting, **options)
    masked = transfer(photo, painting, regions=[np.ones((5, 7))], style_masks=[None], **options)
    for one, other in zip(plain.history, masked.history, strict=True):
        assert one.total == pytest.approx(other.total, rel=1e-3)
    np.testing.assert_allclose(masked.image, plain.image, atol=0.02)


def test_the_cost_of_a_region_by_hand(net: models.VGG, photo: Array, painting: Array) -> None:
    """Mean Gram matrices under the masks; a region of half the area counts half."""
    settings = Settings(style_layers=["conv2_1"], content_weight=0, size=SIZE)
    regions, source = halves(), np.zeros(painting.shape[:2], np.float32)
    source[:20] = 1
    regions = [resize_to(region, *photo.shape[:2]) for region in regions]
    objective = Objective(net, photo, [painting, painting], settings, regions, [source, None])
    row = objective.evaluate(nst.Tensor(photo[None]))
    a, b = (net.features(x, ["conv2_1"])["conv2_1"][0].astype(np.float64) for x in (photo, painting))
    expected = 0.0
    for region, mask in zip(regions, (source, np.ones_like(source)), strict=True):
        m, s = (layer_mask(x, "conv2_1")[0] for x in (region, mask))
        ours, theirs = ((np.einsum("hwi,hwj->ij", x * w, x * w) / np.square(w).sum()) for x, w in ((a, m), (b, s)))
        expected += np.square(m).mean() * np.square((ours - theirs) / (2 * a.shape[2])).sum()
    assert row.style["conv2_1"] == pytest.approx(expected, rel=1e-4)


def test_each_style_goes_where_its_mask_is_bright(net: models.VGG, photo: Array) -> None:
    """Two paintings of one colour each draw the halves apart, and the mask's black leaves the photograph."""
    grey = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    paintings = [FLAT["red"], np.zeros((SIZE, SIZE, 3), np.float32) + np.array([0, 0, 1], np.float32)]
    options: dict[str, Any] = {"net": net, "steps": 30, "style_weight": 1.0, **SHALLOW}
    left, right = np.split(transfer(grey, paintings, regions=halves(), **options).image, 2, axis=1)
    assert left[..., 0].mean() > right[..., 0].mean() + 0.1
    assert right[..., 2].mean() > left[..., 2].mean() + 0.1
    alone = transfer(grey, paintings[0], regions=halves()[:1], **options).image
    assert np.abs(alone[:, -12:] - 0.5).max() < 0.05
    assert alone[:, :24, 0].mean() > 0.6


def test_only_where_every_part_takes_a_style_is_a_step_spread_by_frequency(photo: Array) -> None:
    """A mask's black would move with the rest; halves that meet leave no black."""
    left, right = halves()
    pixels = nst.tensor(photo[None], requires_grad=True)
    for regions, everywhere in (([], True), ([left, right], True), ([left], False), ([left, 0.5 * left], False)):
        scene = Scene(photo, [photo] * len(regions), regions=regions)
        assert scene.everywhere == everywhere
        optimizer = optimizer_for(pixels, Settings(), scene.everywhere)
        assert isinstance(optimizer, nst.optim.LBFGS)
        assert (optimizer.scaling is not None) == everywhere


def test_a_region_can_be_stronger(net: models.VGG, photo: Array, painting: Array) -> None:
    options: dict[str, Any] = {"net": net, "steps": 6, "regions": halves(), **SHALLOW}
    images = [transfer(photo, [painting, painting], blend=b, **options).image for b in ([1, 1], [1, 30])]
    moved = [np.abs(image - photo).mean((0, 2)) for image in images]
    assert moved[1][30:].mean() / moved[1][:18].mean() > 1.2 * moved[0][30:].mean() / moved[0][:18].mean()


def test_soft_edges_have_gradients_between(net: models.VGG) -> None:
    ramp = np.repeat(np.linspace(0, 1, SIZE, dtype=np.float32)[None], SIZE, axis=0)
    small = layer_mask(ramp, "conv3_1")
    assert small.shape == (1, SIZE // 4, SIZE // 4, 1)
    np.testing.assert_allclose(small[0, 0, :, 0], ramp[0].reshape(-1, 4).mean(1), rtol=1e-6)
    border = np.zeros((17, 17), np.float32)
    border[16] = 1
    assert (layer_mask(border, "conv5_1") > 0).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"regions": []}, ArgumentError, r"one region a painting, got 0 for 1 painting"),
        ({"regions": halves()}, ArgumentError, r"one region a painting, got 2 for 1 painting"),
        ({"style_masks": [None, None]}, ArgumentError, r"one style mask a painting, got 2 for 1"),
        ({"regions": [np.zeros((9, 9))]}, ImageError, "region 1 is black everywhere"),
        ({"style_masks": [np.zeros((9, 9))]}, ImageError, "style mask 1 is black everywhere"),
        ({"regions": ["absent.png"]}, ImageError, r"absent\.png does not exist"),
        ({"start": "absent.png"}, ImageError, r"absent\.png does not exist"),
    ],
)
def test_masks_that_cannot_work(
    net: models.VGG, photo: Array, painting: Array, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        transfer(photo, painting, net=net, steps=1, **options, **SHALLOW)


def test_where_a_mask_is_transparent_it_is_black(net: models.VGG, photo: Array, painting: Array) -> None:
    """White on nothing, as drawing programs make it."""
    half = np.zeros((*photo.shape[:2], 4), np.uint8)
    half[:, : photo.shape[1] // 2] = 255
    options: dict[str, Any] = {"net": net, "size": 48, "steps": 2}
    both = [transfer(photo, painting, regions=[mask], **options).image for mask in (half, half[:, :, 3])]
    np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.parametrize("masks", ["sky.png", 3, np.ones(3)])
def test_what_are_no_masks(net: models.VGG, photo: Array, painting: Array, masks: Any) -> None:
    with pytest.raises(ArgumentError, match=r"expects (a list of masks, one a painting|one region a painting), got"):
        transfer(photo, painting, net=net, size=48, regions=masks)


def test_masks_may_be_one_array(net: models.VGG, photo: Array, painting: Array) -> None:
    half = np.arange(photo.shape[1])[None].repeat(photo.shape[0], 0) > 20
    both = [
        transfer(photo, painting, net=net, size=48, steps=1, regions=masks).image
        for masks in (np.stack([half]), [half.astype(np.float32)])
    ]
    np.testing.assert_array_equal(*both)


def test_what_is_no_network(photo: Array, painting: Array) -> None:
    with pytest.raises(ArgumentError, match=r"expects net as a VGG .*, got str"):
        transfer(photo, painting, net="vgg16")  # type: ignore[arg-type]
