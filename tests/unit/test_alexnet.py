"""AlexNet on random weights against an independent computation, its gradients, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import gradcheck, models, nn, ops
from nstcore.errors import ArgumentError, DTypeError, ShapeError, WeightsError
from nstcore.models.alexnet_layout import parameter_shapes

# After Krizhevsky et al., section 3.5, and Caffe's bvlc_alexnet: kernel, stride, padding, groups.
ORIGINAL = {
    "conv1": (11, 4, 0, 1),
    "conv2": (5, 1, 2, 2),
    "conv3": (3, 1, 1, 1),
    "conv4": (3, 1, 1, 2),
    "conv5": (3, 1, 1, 2),
}
# After torchvision.models.alexnet.
TORCHVISION = {name: (*facts[:3], 1) for name, facts in ORIGINAL.items()} | {"conv1": (11, 4, 2, 1)}


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """(h, w, c) with (k, r, s, c), window by window."""
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], axis=(0, 1))[::stride, ::stride]
    return np.einsum("pqcrs,krsc->pqk", windows, w) + b


def normalised(x: np.ndarray) -> np.ndarray:
    """Caffe's: alpha 1e-4 over the five channels of the window, beta 0.75, k 1."""
    y = np.empty_like(x)
    for i in range(x.shape[2]):
        window = x[:, :, max(0, i - 2) : i + 3]
        y[:, :, i] = x[:, :, i] / (1 + 1e-4 / 5 * np.sum(window**2, axis=2)) ** 0.75
    return y


def pooled(x: np.ndarray, ceil: bool) -> np.ndarray:
    """3 × 3, stride 2; Caffe counts a last window that hangs over."""
    sides = [(n - 3 + ceil) // 2 + 1 for n in x.shape[:2]]
    return np.array(
        [[x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(sides[1])] for i in range(sides[0])]
    )


def plain(net: models.AlexNet, rgb: np.ndarray) -> dict[str, np.ndarray]:
    """All layers of one picture (h, w, 3), from first principles in float64."""
    original = net.variant == "original"
    weights = {name: array.astype(np.float64) for name, array in net.state_dict().items()}
    if original:
        x = 255 * rgb[:, :, ::-1] - [104.007, 116.669, 122.679]
    else:
        x = (rgb - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = {}
    for number, (name, (_, stride, padding, groups)) in enumerate((ORIGINAL if original else TORCHVISION).items(), 1):
        w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
        parts = zip(np.split(x, groups, 2), np.split(w, groups), np.split(b, groups), strict=True)
        x = np.maximum(np.concatenate([correlate(*part, stride, padding) for part in parts], 2), 0)
        found[name] = x
        if original and number <= 2:
            x = found[f"norm{number}"] = normalised(x)
        if number in (1, 2, 5):
            x = found[f"pool{number}"] = pooled(x, ceil=original)
    return found


def random_net(variant: Any, dtype: str = "float64") -> models.AlexNet:
    rng = np.random.default_rng(3)
    net = models.AlexNet(variant, dtype=dtype, rng=rng)
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            p.data[:] = 0.1 * rng.standard_normal(p.shape)
    return net


@pytest.mark.parametrize(("variant", "size"), [("original", (91, 100)), ("torchvision", (92, 99))])
def test_every_layer(variant: Any, size: tuple[int, int]) -> None:
    net = random_net(variant)
    picture = np.random.default_rng(0).random((*size, 3))
    expected = plain(net, picture)
    found = net.features(picture, net.layers)
    assert list(found) == net.layers == list(expected)
    for name, values in expected.items():
        assert found[name].shape == (1, *values.shape)
        np.testing.assert_allclose(found[name][0], values, rtol=0, atol=1e-11 * np.abs(values).max())


def test_shapes_at_the_sizes_of_the_paper() -> None:
    shapes = {
        name: f.shape[1:]
        for name, f in random_net("original", "float32")
        .features(np.zeros((227, 227, 3)), ["conv1", "pool1", "conv2", "pool2", "conv5", "pool5"])
        .items()
    }
    assert shapes == {
        "conv1": (55, 55, 96), "pool1": (27, 27, 96), "conv2": (27, 27, 256), "pool2": (13, 13, 256),
        "conv5": (13, 13, 256), "pool5": (6, 6, 256),
    }  # fmt: skip
    found = random_net("torchvision", "float32")(np.zeros((224, 224, 3), np.uint8))
    assert found.shape == (1, 6, 6, 256)


def test_gradients() -> None:
    net = random_net("original")
    x = np.random.default_rng(1).uniform(0.1, 0.9, (1, 67, 71, 3))
    gradcheck(lambda t: ops.mean(net.features(t, ["conv3"])["conv3"]), x, directions=1)


def test_grouped_convolution_is_one_with_zeros() -> None:
    """Between the groups: the same convolution, and the same gradients, with a block-diagonal weight."""
    rng = np.random.default_rng(0)
    grouped = nn.Conv2d(6, 8, 3, padding=1, stride=2, groups=2, activation="relu", rng=rng)
    grouped.astype("float64")
    grouped.bias.data[:] = rng.standard_normal(8)
    whole = np.zeros((8, 3, 3, 6))
    whole[:4, :, :, :3], whole[4:, :, :, 3:] = grouped.weight.data[:4], grouped.weight.data[4:]
    x, seed = rng.standard_normal((2, 7, 6, 6)), rng.standard_normal((2, 4, 3, 8))
    one, other, w = (
        nst.Tensor(x, requires_grad=True),
        nst.Tensor(x, requires_grad=True),
        nst.Tensor(whole, requires_grad=True),
    )
    y, expected = grouped(one), ops.conv2d(other, w, grouped.bias.data, 2, 1, "relu")
    np.testing.assert_allclose(y.data, expected.data, atol=1e-13)
    y.backward(seed)
    expected.backward(seed)
    np.testing.assert_allclose(one.grad, other.grad, atol=1e-13)
    np.testing.assert_allclose(grouped.weight.grad[:4], w.grad[:4, :, :, :3], atol=1e-12)
    np.testing.assert_allclose(grouped.weight.grad[4:], w.grad[4:, :, :, 3:], atol=1e-12)


def test_grouped_convolution_refuses() -> None:
    for channels, filters, groups in ((6, 8, 4), (6, 8, 3), (6, 8, 0)):
        with pytest.raises(ArgumentError, match="groups that divide 6 channels and 8 filters"):
            nn.Conv2d(channels, filters, 3, groups=groups)
    with pytest.raises(ShapeError, match=r"expects \(n, h, w, 6\), got \(1, 5, 5, 3\)"):
        nn.Conv2d(6, 8, 3, groups=2)(np.zeros((1, 5, 5, 3), np.float32))


@pytest.mark.parametrize("variant", ["original", "torchvision"])
def test_a_file_says_which_of_the_two_it_is(tmp_path: Path, variant: Any) -> None:
    net = random_net(variant, "float32")
    net.save(tmp_path / "net.npz", source="a test")
    again = models.alexnet(tmp_path / "net.npz")
    assert again.variant == variant
    picture = np.random.default_rng(0).random((80, 80, 3)).astype(np.float32)
    np.testing.assert_array_equal(again(picture), net(picture))
    assert {name: array.shape for name, array in again.state_dict().items()} == parameter_shapes(net.architecture)
    assert not any(p.requires_grad for p in again.parameters())


def test_errors(tmp_path: Path) -> None:
    from nstcore.weights import embedded

    net = models.AlexNet()
    for arguments, error, words in (
        ((np.zeros((99, 99, 3)), ["conv6"]), ArgumentError, "no layer 'conv6'; it has conv1, norm1, pool1"),
        ((np.zeros((99, 99, 3)), "conv1"), ArgumentError, "layers as a list of names"),
        ((np.zeros((10, 99, 3)), ["conv1"]), ShapeError, r"larger pictures for conv1, got 10 x 99"),
        ((nst.Tensor(np.zeros((1, 99, 99, 1), np.float32)), ["conv1"]), ShapeError, r"\(n, h, w, 3\)"),
        ((nst.Tensor(np.zeros((1, 99, 99, 3))), ["conv1"]), DTypeError, "a tensor of float32, got float64"),
    ):
        with pytest.raises(error, match=words):
            net.features(*arguments)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="no weights are embedded; convert a file"):
        models.alexnet()
    with pytest.raises(WeightsError, match="expects weights of alexnet, got vgg16"):
        models.alexnet(embedded("vgg16"))
    with pytest.raises(ArgumentError, match="variant original or torchvision, got 'caffe'"):
        models.AlexNet("caffe")  # type: ignore[arg-type]


def test_local_response_norm_refuses() -> None:
    x = np.ones((1, 2, 2, 4))
    for options, words in (
        ({"size": 4}, "an odd size, got 4"), ({"size": 0}, "an odd size, got 0"), ({"size": 2.0}, "whole numbers"),
        ({"alpha": -1}, "alpha >= 0"), ({"beta": float("nan")}, "beta >= 0"), ({"k": 0}, "k > 0"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=words):
            ops.local_response_norm(x, **options)  # type: ignore[arg-type]
