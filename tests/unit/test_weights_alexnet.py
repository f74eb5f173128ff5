"""AlexNet from Caffe's and torchvision's files: true layouts written by hand, and files that are damaged or lie."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from nstcore import models
from nstcore.errors import WeightsError
from nstcore.models import alexnet_layout, vgg_layout
from nstcore.weights import load
from nstcore.weights.convert import convert
from nstcore.weights.convert.caffe import read

Arrays = dict[str, np.ndarray]


def random_arrays(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def varint(n: int) -> bytes:
    found = bytearray()
    while n > 127:
        found.append(n & 127 | 128)
        n >>= 7
    return bytes([*found, n])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array: np.ndarray, old: bool) -> bytes:
    """A BlobProto: float data packed, its shape in the new or the old way (four numbers, ones in front)."""
    if old:
        sides = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(field(i, n) for i, n in enumerate(sides, 1))
    else:
        shape = field(7, field(1, b"".join(varint(n) for n in array.shape)))
    return shape + field(5, np.ascontiguousarray(array, "<f4").tobytes())


def caffemodel(arrays: Arrays, old: bool) -> bytes:
    """A NetParameter with these convolutions, data, ReLUs and a dense layer around them."""
    number, kind, blobs, name_field = (2, 5, 6, 4) if old else (100, 2, 7, 1)
    found = field(1, b"the network")

    def layer(name: str, type_: int | bytes, *arrays: np.ndarray) -> bytes:
        body = field(name_field, name.encode()) + field(kind, type_)
        return field(number, body + b"".join(field(blobs, blob(a, old)) for a in arrays))

    found += layer("data", 5 if old else b"Data")
    for key in arrays:
        name, _, part = key.partition(".")
        if part == "weight":
            weight = arrays[key].transpose(0, 3, 1, 2)
            found += layer(name, 4 if old else b"Convolution", weight, arrays[f"{name}.bias"])
            found += layer(f"relu_{name}", 18 if old else b"ReLU")
    dense = np.ones((5, 7), np.float32)
    return found + layer("fc6", 14 if old else b"InnerProduct", dense, np.ones(5, np.float32))


@pytest.mark.parametrize("old", [False, True])
def test_caffe_alexnet(tmp_path: Path, old: bool) -> None:
    arrays = random_arrays(alexnet_layout.parameter_shapes("alexnet"))
    (tmp_path / "bvlc_alexnet.caffemodel").write_bytes(caffemodel(arrays, old))
    found = convert(tmp_path / "bvlc_alexnet.caffemodel", tmp_path / "alexnet.npz", dtype="float32")
    assert found.architecture == "alexnet"
    assert found.preprocessing == models.alexnet(tmp_path / "alexnet.npz")._preprocessing
    assert found.preprocessing["color_order"] == "BGR"
    assert found.preprocessing["mean"] == [104.007, 116.669, 122.679]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def test_caffe_vgg(tmp_path: Path) -> None:
    """The original files of the VGG authors are of the old layout."""
    arrays = {name: np.zeros(shape, np.float32) for name, shape in vgg_layout.parameter_shapes("vgg16").items()}
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(arrays, old=True))
    found = convert(tmp_path / "a.caffemodel", tmp_path / "vgg16.npz")
    assert (found.architecture, found.meta["licence"].split(",")[0]) == ("vgg16", "CC BY 4.0")
    assert found.preprocessing["mean"] == [103.939, 116.779, 123.68]


def safetensors(arrays: Arrays) -> bytes:
    table, body = {}, b""
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).tobytes()
        table[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + body


def torchvision_names(arrays: Arrays) -> Arrays:
    """features.0, 3, 6, 8, 10 with weights (k, c, r, s), and a dense layer."""
    numbers = dict(zip(("conv1", "conv2", "conv3", "conv4", "conv5"), (0, 3, 6, 8, 10), strict=True))
    found = {}
    for key, array in arrays.items():
        name, _, part = key.partition(".")
        found[f"features.{numbers[name]}.{part}"] = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
    return found | {"classifier.1.weight": np.ones((4, 4), np.float32)}


def test_torchvision(tmp_path: Path) -> None:
    arrays = random_arrays(alexnet_layout.parameter_shapes("alexnet_torchvision"))
    (tmp_path / "a.safetensors").write_bytes(safetensors(torchvision_names(arrays)))
    found = convert(
        tmp_path / "a.safetensors", tmp_path / "net.npz", dtype="float32", architecture="alexnet_torchvision"
    )
    assert found.preprocessing["std"] == [0.229, 0.224, 0.225]
    net = models.alexnet(tmp_path / "net.npz")
    assert net.variant == "torchvision"
    for name, array in arrays.items():
        np.testing.assert_array_equal(net.state_dict()[name], array)


def test_another_network_is_refused(tmp_path: Path) -> None:
    arrays = random_arrays(alexnet_layout.parameter_shapes("alexnet_torchvision"))
    (tmp_path / "a.safetensors").write_bytes(safetensors(torchvision_names(arrays)))
    with pytest.raises(WeightsError, match=r"expects \(96, 11, 11, 3\) .* as conv1.weight of alexnet, got"):
        convert(tmp_path / "a.safetensors", tmp_path / "net.npz", architecture="alexnet")
    with pytest.raises(WeightsError, match=r"13 \(vgg16\), got 5"):
        convert(tmp_path / "a.safetensors", tmp_path / "net.npz", architecture="vgg16")
    assert not (tmp_path / "net.npz").exists()


class TestDamage:
    @pytest.fixture
    def good(self) -> bytes:
        return caffemodel(random_arrays({"a.weight": (2, 3, 3, 2), "a.bias": (2,)}), old=False)

    def test_the_fixture_is_good(self, tmp_path: Path, good: bytes) -> None:
        (tmp_path / "a.caffemodel").write_bytes(good)
        (found,) = read(tmp_path / "a.caffemodel").convolutions
        assert (found.name, found.weight.shape, found.bias.shape) == ("a", (2, 3, 3, 2), (2,))

    def test_cut_off_anywhere(self, tmp_path: Path, good: bytes) -> None:
        """Cut between two fields it is a smaller network; anywhere else it is damaged. It is never anything else."""
        for end in range(len(good)):
            (tmp_path / "a.caffemodel").write_bytes(good[:end])
            with pytest.raises(WeightsError):
                convert(tmp_path / "a.caffemodel", tmp_path / "out.npz")

    def test_any_byte_changed(self, tmp_path: Path, good: bytes) -> None:
        rng = np.random.default_rng(0)
        for at in range(len(good)):
            bad = bytearray(good)
            bad[at] ^= int(rng.integers(1, 256))
            (tmp_path / "a.caffemodel").write_bytes(bad)
            with pytest.raises(WeightsError):  # one convolution makes no network, whatever else it is
                convert(tmp_path / "a.caffemodel", tmp_path / "out.npz")

    @pytest.mark.parametrize(
        ("layer", "rule"),
        [
            (field(7, field(7, field(1, varint(1 << 40))) + field(5, b"")) * 2, "claims shape (1099511627776,)"),
            (field(7, field(5, b"abc")) * 2, "a blob of 3 bytes"),
            (field(7, b"") * 2, "claims shape ()"),
            (field(7, field(5, bytes(4))), "expects a weight and a bias, got 1 blobs"),
            (field(7, field(7, field(1, varint(1) * 9)) + field(5, bytes(4))) * 2, "9 axes"),
            (b"\xff" * 11, "more than 64 bits"),
            (varint(7 << 3 | 3), "unknown kind 3"),
            (varint(2), "is cut off"),
        ],
    )
    def test_layers_that_lie(self, tmp_path: Path, layer: bytes, rule: str) -> None:
        body = field(1, b"conv") + field(2, b"Convolution") + layer
        (tmp_path / "a.caffemodel").write_bytes(field(100, body))
        with pytest.raises(WeightsError) as caught:
            convert(tmp_path / "a.caffemodel", tmp_path / "out.npz")
        assert rule in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.caffemodel").write_bytes(b"")
        with pytest.raises(WeightsError, match="is empty"):
            convert(tmp_path / "a.caffemodel", tmp_path / "out.npz")


def test_known_layouts_are_checked_when_loaded(tmp_path: Path) -> None:
    from nstcore.weights import save

    arrays = random_arrays(alexnet_layout.parameter_shapes("alexnet"))
    del arrays["conv4.bias"]
    save(tmp_path / "a.npz", arrays, {"architecture": "alexnet"})
    with pytest.raises(WeightsError, match=r"conv4\.bias: is missing"):
        load(tmp_path / "a.npz")
