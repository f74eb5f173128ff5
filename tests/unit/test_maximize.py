"""Activation maximisation: what a unit is known to like is found, and the ascent keeps its promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import models, nn
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, ImageError
from nstcore.images import load
from nstcore.visualize import DreamStep, deconv, maximize
from nstcore.visualize.network import activations


def colour_net(bias: float = 0.0, layers: int = 1) -> Any:
    """Units that like red, and whatever is no red."""
    parts = []
    for number in range(layers):
        layer = nn.Conv2d(3 if number == 0 else 2, 2, 1, activation="relu")
        layer.weight.data[:] = np.eye(2, layer.weight.shape[3]).reshape(layer.weight.shape)
        if number == 0:
            layer.weight.data[0, 0, 0], layer.weight.data[1, 0, 0] = (3, -1, -1), (-3, 1, 1)
        layer.bias.data[:] = bias
        parts.append(layer)
    return nn.Sequential(*parts)


def test_finds_the_colour_that_a_unit_likes() -> None:
    for unit, expected in ((0, (1, 0, 0)), (1, (0, 1, 1))):
        found = maximize(colour_net(), "parts.0", unit, size=12, steps=60, learning_rate=0.05, octaves=1)
        np.testing.assert_allclose(found.image.mean((0, 1)), expected, atol=0.12)
        assert found.activations[-1] > found.activations[0]
        assert len(found.activations) == 60


def test_wakes_a_unit_that_is_silent() -> None:
    """No place of grey noise excites it, so a_k has no gradient; z_k, before the ReLU, has one."""
    net = colour_net(bias=-2.5)
    found = maximize(net, "parts.0", 0, size=10, steps=50, learning_rate=0.05, octaves=1)
    assert found.activations[0] == 0
    assert found.activations[-1] > 0.2


def test_only_the_last_relu_is_passed() -> None:
    """Below it the derivative counts: a layer whose ReLU is off everywhere lets nothing through."""
    net = colour_net(bias=-4.0, layers=2)
    found = maximize(net, "parts.1", 0, size=10, steps=4, octaves=1, decay=0, tv_weight=0, blur=0)
    start = maximize(net, "parts.1", 0, size=10, steps=1, octaves=1, decay=0, tv_weight=0, blur=0)
    np.testing.assert_array_equal(found.image, start.image)


def test_the_direction_is_the_gradient() -> None:
    """One step without pulls: the picture moves along the gradient of the mean of z_k, by the learning rate in rms."""
    net = models.vgg16(dtype=np.float64)
    photo = 0.2 + 0.6 * load(picture_path("chelsea"), size=40).astype(np.float64)
    found = maximize(
        net, "conv2_1", 5, init=photo, steps=1, learning_rate=0.01, jitter=0, blur=0, tv_weight=0, decay=0, octaves=1
    )
    with nst.no_grad():
        shape = activations(net, nst.Tensor(photo[None]), "conv2_1").shape
    moved = found.image.astype(np.float64) - photo
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(0.01, rel=1e-3)
    # The gradient of z is that of a at the places that fire; elsewhere a lower unit's own probe is needed.
    x = nst.Tensor(photo[None], requires_grad=True)
    conv = net.convolutions
    y = nst.ops.normalize_channels(x, (255.0,) * 3, (-103.939, -116.779, -123.68), reverse=True)
    y = nst.ops.max_pool2d(conv["conv1_2"](conv["conv1_1"](y)), 2)
    z = nst.ops.conv2d(y, conv["conv2_1"].weight, conv["conv2_1"].bias, padding=1)
    assert z.shape == shape
    nst.ops.mean(z[..., 5]).backward()
    direction = x.grad[0] / np.sqrt(np.mean(x.grad**2))
    np.testing.assert_allclose(moved / 0.01, direction, atol=2e-3 * np.abs(direction).max())


def test_same_seed_same_picture() -> None:
    net = models.vgg16()
    one, same, other = (maximize(net, "conv2_1", 3, size=24, steps=6, seed=s).image for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.05
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert one.max() <= 1


def test_smoothness() -> None:
    """More total variation, more blur: a smoother picture."""
    net = models.vgg16()

    def roughness(**options: Any) -> float:
        image = maximize(net, "conv1_2", 10, size=32, steps=24, octaves=1, **options).image
        return float(np.mean(np.diff(image, axis=0) ** 2) + np.mean(np.diff(image, axis=1) ** 2))

    plain = roughness(tv_weight=0, blur=0, decay=0)
    assert roughness(tv_weight=1.0, blur=0, decay=0) < 0.7 * plain
    assert roughness(tv_weight=0, blur=1.5, decay=0) < 0.7 * plain


def test_octaves_begin_small_but_not_smaller_than_half_a_field() -> None:
    sizes: list[tuple[int, int]] = []
    maximize(colour_net(), "parts.0", 0, size=(130, 200), steps=9, callback=lambda s: sizes.append(s.image.shape[:2]))
    assert sizes == [(32, 50)] * 3 + [(65, 100)] * 3 + [(130, 200)] * 3
    sizes.clear()
    maximize(models.vgg16(), "conv4_1", 0, size=64, steps=2, callback=lambda s: sizes.append(s.image.shape[:2]))
    assert sizes == [(32, 32), (64, 64)]


def test_ctrl_c_keeps_what_was_reached() -> None:
    def stop(step: DreamStep) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    found = maximize(colour_net(), "parts.0", 0, size=64, steps=9, callback=stop)
    assert (found.stopped, len(found.activations), found.image.shape) == ("interrupted", 2, (64, 64, 3))


def test_parameters_are_left_alone() -> None:
    net = colour_net()
    maximize(net, "parts.0", 0, size=8, steps=1)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_the_dream_of_a_deep_unit_excites_it_more_than_a_photograph() -> None:
    net = models.vgg16()
    found = maximize(net, "conv3_1", 7, size=64, steps=30)
    photo = load(picture_path("coffee"), size=64)
    dreamt = deconv(net, "conv3_1", 7, found.image, method="gradient").activation
    # about twice: 1.95 to 2.00, by seed and by how the convolutions round
    assert dreamt > 1.5 * deconv(net, "conv3_1", 7, photo, method="gradient").activation


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps of at least 1, got 0"), ({"size": 0}, "height of at least 1"),
        ({"octaves": 0}, "octaves of at least 1"), ({"jitter": -1}, "jitter of at least 0"),
        ({"seed": -1}, "seed of at least 0"), ({"steps": 2.5}, "steps of whole numbers"),
        ({"blur": -1}, "blur >= 0"), ({"decay": float("nan")}, "decay >= 0"),
        ({"tv_weight": float("inf")}, "tv_weight"),
        ({"learning_rate": -0.1}, "learning_rate >= 0"),
    ],
)  # fmt: skip
def test_options_outside_their_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        maximize(colour_net(), "parts.0", 0, **options)


def test_unknown_layer_unit_and_start() -> None:
    with pytest.raises(ArgumentError, match=r"no layer 'x'; it has parts\.0, output"):
        maximize(colour_net(), "x", 0)
    with pytest.raises(ArgumentError, match=r"a unit of parts\.0 from 0 to 1, got 2"):
        maximize(colour_net(), "parts.0", 2)
    with pytest.raises(ImageError, match=r"floats in \[0, 1\]"):
        maximize(colour_net(), "parts.0", 0, init=np.full((4, 4, 3), 2.0))
