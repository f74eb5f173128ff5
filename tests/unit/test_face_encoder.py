"""The face encoder and its converter: a synthetic .dat of dlib's layout against plain NumPy, and dlib's numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import nstcore as nst
from nstcore import models, weights
from nstcore.errors import ArgumentError, DTypeError, ImageError, ShapeError, WeightsError
from nstcore.models.face_encoder import ResidualBlock
from nstcore.models.face_layout import parameter_shapes
from nstcore.weights.convert import convert
from nstcore.weights.convert import dlib as reader

Array = NDArray[Any]
MEAN = (122.782, 117.001, 104.298)
# (input channels, filters, halves); source: anet_type in dlib's examples/dnn_face_recognition_ex.cpp
BLOCKS = [(32, 32, False)] * 3 + [(32, 64, True)] + [(64, 64, False)] * 3 + [(64, 128, True)] + [(128, 128, False)] * 2
BLOCKS += [(128, 256, True)] + [(256, 256, False)] * 2 + [(256, 256, True)]


# ---- dlib's file, written from its serialize.h ----


def integer(value: int) -> bytes:
    count = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([count | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(count, "little")


def integers(*values: int) -> bytes:
    return b"".join(map(integer, values))


def real(value: float) -> bytes:
    mantissa, exponent = math.frexp(np.float32(value))
    return integers(int(mantissa * 2**24), exponent - 24)


def text(value: str) -> bytes:
    return integer(len(value)) + value.encode()


def tensor(values: Array) -> bytes:
    return integers(2, values.size, 1, 1, 1) + values.astype("<f4").tobytes()


RATES = real(1) + real(1) + real(1) + real(0)
END = b"110" + 3 * integers(2, 0, 0, 0, 0)


def plain_layer(name: str, *sizes: int) -> bytes:
    return text(name) + integers(*sizes) + END


def convolution(layer: dict[str, Array], stride: int, padding: int, first: bool = False) -> bytes:
    """A convolution (OIHW) and the affine layer behind it."""
    w = layer["weight"]
    k, c, r, s = w.shape
    return b"".join([
        text("con_4"), tensor(np.concatenate([w.ravel(), layer["bias"]])),
        integers(k, r, s, stride, stride, padding, padding, 1, k, c, r, s, 1, 1, k, 1, 1), RATES, END,
        integer(1) if first else b"",
        text("affine_"), tensor(np.concatenate([layer["gamma"], layer["beta"]])),
        integers(1, 1, k, 1, 1, 1, 1, k, 1, 1, 0), END,
    ])  # fmt: skip


def head(mean: tuple[float, ...] = MEAN) -> bytes:
    versions = integer(1) + text("loss_metric_2") + real(0.04) + real(0.6) + integers(*[2, 2, 1] * 43, 3)
    return versions + text("input_rgb_image_sized") + b"".join(map(real, mean)) + integers(150, 150)


def dat(net: dict[str, Any]) -> bytes:
    parts = [head(), convolution(net["stem"], 2, 0, first=True), plain_layer("relu_")]
    parts.append(plain_layer("max_pool_2", 3, 3, 2, 2, 0, 0))
    for (_, _, halves), (first, second) in zip(BLOCKS, net["blocks"], strict=True):
        parts += [convolution(first, *((2, 0) if halves else (1, 1))), plain_layer("relu_"), convolution(second, 1, 1)]
        parts += [plain_layer("avg_pool_2", 2, 2, 2, 2, 0, 0)] * halves
        parts += [text("add_prev_") + b"111" + END[3:], plain_layer("relu_")]
    parts += [plain_layer("avg_pool_2", 0, 0, 1, 1, 0, 0), text("fc_2"), integers(128, 256)]
    matrix = integers(2, 256, 128, 1, 1) + net["matrix"].astype("<f4").tobytes()
    return b"".join([*parts, matrix, integers(1, 256, 128, 1, 1, 1, 0, 0, 0, 0, 1), RATES, END])


# ---- a network with random weights, and what it computes, from first principles ----


def random_layer(rng: np.random.Generator, channels: int, filters: int, size: int, gain: float) -> dict[str, Array]:
    scale = np.sqrt(2 / (channels * size * size))
    layer = {
        "weight": scale * rng.standard_normal((filters, channels, size, size)),
        "bias": 0.1 * rng.standard_normal(filters),
        "gamma": gain * rng.uniform(0.5, 1.5, filters),
        "beta": 0.1 * rng.standard_normal(filters),
    }
    return {name: a.astype(np.float32).astype(np.float64) for name, a in layer.items()}


@pytest.fixture(scope="module")
def net() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    blocks = [(random_layer(rng, c, k, 3, 1), random_layer(rng, k, k, 3, 0.4)) for c, k, _ in BLOCKS]
    matrix = (rng.standard_normal((256, 128)) / 16).astype(np.float32).astype(np.float64)
    return {"stem": random_layer(rng, 3, 32, 7, 1), "blocks": blocks, "matrix": matrix}


@pytest.fixture(scope="module")
def file(net: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dlib") / "encoder.dat"
    path.write_bytes(dat(net))
    return path


@pytest.fixture(scope="module")
def converted(file: Path) -> Path:
    output = file.with_name("encoder32.npz")
    convert(file, output, dtype="float32", architecture="face_encoder")
    return output


def convolved(x: Array, layer: dict[str, Array], stride: int, padding: int) -> Array:
    """x: (c, h, w); the convolution, then scale and shift."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    size = layer["weight"].shape[2:]
    windows = sliding_window_view(x, size, axis=(1, 2))[:, ::stride, ::stride]
    y = np.tensordot(layer["weight"], windows, axes=([1, 2, 3], [0, 3, 4])) + layer["bias"][:, None, None]
    return np.asarray(y * layer["gamma"][:, None, None] + layer["beta"][:, None, None])


def plain_encoding(net: dict[str, Any], rgb: Array) -> Array:
    """rgb: (150, 150, 3), 0–255."""
    x = ((rgb - np.array(MEAN)) / 256).transpose(2, 0, 1)
    x = np.maximum(convolved(x, net["stem"], 2, 0), 0)
    x = sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))
    for (_, _, halves), (first, second) in zip(BLOCKS, net["blocks"], strict=True):
        y = convolved(np.maximum(convolved(x, first, *((2, 0) if halves else (1, 1))), 0), second, 1, 1)
        if halves:
            x = sliding_window_view(x, (2, 2), axis=(1, 2))[:, ::2, ::2].mean(axis=(3, 4))
        total = np.zeros(np.maximum(x.shape, y.shape))
        for term in (x, y):
            c, h, w = term.shape
            total[:c, :h, :w] += term
        x = np.maximum(total, 0)
    return np.asarray(x.mean(axis=(1, 2)) @ net["matrix"])


def chips(count: int = 1) -> NDArray[np.uint8]:
    """Smooth random pictures, so that not all is noise."""
    coarse = np.random.default_rng(1).integers(0, 256, (count, 10, 10, 3))
    return np.repeat(np.repeat(coarse, 15, axis=1), 15, axis=2).astype(np.uint8)


def worst(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


# ---- values ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_converted_file_computes_what_plain_numpy_does(net: dict[str, Any], converted: Path, dtype: str) -> None:
    pictures = chips(2)
    expected = np.stack([plain_encoding(net, picture.astype(np.float64)) for picture in pictures])
    found = models.face_encoder(converted, dtype=dtype).encode(pictures)
    assert (found.shape, found.dtype) == ((2, 128), dtype)
    assert worst(found, expected) < 1e-5


def test_float16_is_the_default_and_close(net: dict[str, Any], file: Path, tmp_path: Path) -> None:
    found = convert(file, tmp_path / "out.npz", origin="a test")
    assert (found.architecture, found.meta["dtype"], found.parameters) == ("face_encoder", "float16", 5_607_488)
    assert found.meta["encoding"] == {"size": 128, "norm": "none", "distance": "euclidean", "threshold": 0.6}
    assert found.preprocessing == {"color_order": "RGB", "scale": 255.0, "mean": [*MEAN], "std": [256.0] * 3}
    assert found.meta["source"].startswith("dlib file encoder.dat, sha256 ")
    assert found.meta["source"].endswith(", from a test")
    assert found.meta["licence"].startswith("CC0 1.0")
    picture = chips()
    expected = plain_encoding(net, picture[0].astype(np.float64))
    assert worst(models.face_encoder(tmp_path / "out.npz").encode(picture)[0], expected) < 5e-3


@pytest.mark.data
def test_embedded_weights_give_the_descriptors_of_dlib(test_data: Path) -> None:
    with np.load(test_data / "faces" / "dlib_reference.npz") as reference:
        pictures, expected, names = (reference[key] for key in ("chips", "descriptors", "names"))
    found = models.face_encoder().encode(pictures)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    distances = np.sqrt(np.maximum(nst.ops.pairwise_sqdist(found, found), 0))
    np.testing.assert_array_equal(distances < 0.6, names[:, None] == names[None])


def test_embedded_file_says_what_it_is() -> None:
    found = weights.load(weights.embedded("face_encoder"))
    assert (found.meta["dtype"], found.parameters) == ("float16", 5_607_488)
    assert {key: array.shape for key, array in found.arrays.items()} == parameter_shapes()
    assert "face-recognition-models 0.3.0" in found.meta["source"]
    assert found.meta["encoding"]["threshold"] == 0.6


def test_pictures_of_every_kind_and_batch_give_the_same(converted: Path) -> None:
    net = models.face_encoder(converted)
    pictures = chips(3)
    expected = net.encode(pictures)
    floats = (pictures / 255).astype(np.float32)
    for found in (
        net.encode(pictures, batch=2),
        net.encode(floats),
        net.encode(pictures / 255),
        net(pictures),
        net(nst.tensor(floats)).data,
        np.stack([net.encode(picture)[0] for picture in pictures]),
    ):
        assert found.dtype == np.float32
        assert worst(found, expected) < 1e-5
    assert net.encode(pictures[:0]).shape == (0, 128)


# ---- gradients ----


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("side", [5, 6, 8])
def test_gradient_of_a_block(halves: bool, side: int) -> None:
    """Sides at which the shortcut (5) and at which the convolutions (6, 8) are the smaller or equal term."""
    rng = np.random.default_rng(side)
    block = ResidualBlock(3, 5 if halves else 3, halves)
    for p in block.parameters():
        p.data = 0.3 * rng.standard_normal(p.shape)
    nst.gradcheck(block, rng.standard_normal((2, side, side, 3)))


def test_gradient_for_the_picture(converted: Path) -> None:
    net = models.face_encoder(converted, dtype="float64")
    mix = nst.tensor(np.random.default_rng(0).standard_normal((1, 128)))
    picture = chips() / 255 + np.random.default_rng(2).uniform(0, 0.01, (1, 150, 150, 3))
    x = nst.tensor(picture, requires_grad=True)
    (net(x) * mix).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in net.parameters())
    for seed in range(3):  # one direction at a time, with a step so small that few ReLUs switch
        direction = np.random.default_rng(seed).standard_normal(picture.shape)
        step = 1e-8 * direction
        ahead, behind = (float(np.sum(net(nst.tensor(picture + s * step)).data * mix.data)) for s in (1, -1))
        assert (ahead - behind) / 2e-8 == pytest.approx(float(np.sum(x.grad * direction)), rel=1e-4)


# ---- what is refused ----


def refused(path: Path, *parts: str) -> None:
    output = path.with_name("refused.npz")
    with pytest.raises(WeightsError) as caught:
        convert(path, output)
    for part in ("[weights convert]", str(path), *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not output.exists()


@pytest.mark.parametrize("content", [b"", b"\x01", b"\x00" * 50, b"\xff" * 50, b"PK\x03\x04" * 20, b"\x01\x01\x08" * 9])
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dat").write_bytes(content)
    refused(tmp_path / "a.dat", "is not dlib's face encoder")


def cuts(length: int) -> Iterator[int]:
    yield from (5, 17, 40, 280, 300, 340, 600, 19_400, 20_000, length // 2, length - 100, length - 1)


def test_truncated_files(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for cut in cuts(len(whole)):
        (tmp_path / "a.dat").write_bytes(whole[:cut])
        refused(tmp_path / "a.dat", "the file ends")
    (tmp_path / "a.dat").write_bytes(whole + b"\0")
    refused(tmp_path / "a.dat", "1 bytes too many")


STEM = text("con_4") + integers(2, 4736, 1, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (text("affine_"), text("bn_con2"), "'bn_con2' where 'affine_' is expected"),
        (text("loss_metric_2"), text("loss_multi_99"), "where 'loss_metric_2' is expected"),
        (STEM, text("con_4") + integers(2, 1 << 56, 1 << 56, 1, 1), "a tensor of sizes"),
        (STEM, text("con_4") + integers(2, -4736, -1, 1, 1), "a tensor of sizes"),
        (STEM, text("con_4") + integers(3, 4736, 1, 1, 1), "the numbers (3,), expected (2,)"),
        (STEM, integer(1 << 40) + STEM[1:], "a name of 1099511627776 characters"),
        (STEM, b"\x7f" + STEM[1:], "0x7f begins no number"),
        (integers(32, 7, 7, 2, 2, 0, 0), integers(32, 7, 7, 1, 2, 0, 0), "the numbers (32, 7, 7, 1, 2, 0, 0)"),
        (END, b"1x0" + END[3:], "no bool"),
        (END, b"110" + integers(2, 1 << 40, 1, 1, 1) + END[3:], "the file ends"),
        (head(), head((-3.0, 1.0, 1.0)), "the mean colour"),
        (real(0.6), integers(1, 32000), "a number that is not finite"),
        (real(0.6), real(-0.6), "the distance threshold"),
        (integers(150, 150), integers(96, 96), "the numbers (96, 96)"),
        (integers(*[2, 2, 1] * 43, 3), integers(*[2] * 2000), "where 'input_rgb_image_sized' is expected"),
    ],
)
def test_altered_files(file: Path, old: bytes, new: bytes, rule: str) -> None:
    whole = file.read_bytes()
    assert old in whole
    path = file.with_name("altered.dat")
    path.write_bytes(whole.replace(old, new, 1))
    refused(path, "is not dlib's face encoder", rule)


def test_weights_that_are_no_numbers(file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    start = content.index(STEM) + len(STEM)
    content[start : start + 4] = np.array([np.nan], "<f4").tobytes()
    (tmp_path / "a.dat").write_bytes(content)
    refused(tmp_path / "a.dat", "stem.weight", "not finite")


def test_size_and_architecture_are_checked(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="expects vgg16, got face_encoder"):
        convert(file, tmp_path / "out.npz", architecture="vgg16")
    monkeypatch.setattr(reader, "MAX_BYTES", 1 << 20)
    refused(file, "is larger than 1048576 bytes")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="expects weights of face_encoder, got vgg16"):
        models.face_encoder(weights.embedded("vgg16"))
    arrays = dict(weights.load(weights.embedded("face_encoder")).arrays)
    arrays["projection"] = arrays["projection"].T
    weights.save(tmp_path / "a.npz", arrays, {"architecture": "face_encoder"})
    with pytest.raises(WeightsError, match=r"projection: face_encoder expects shape \(256, 128\), got \(128, 256\)"):
        models.face_encoder(tmp_path / "a.npz")


def test_a_saved_network_can_be_loaded_again(converted: Path, tmp_path: Path) -> None:
    net = models.face_encoder(converted)
    net.save(tmp_path / "copy.npz", source="a copy")
    again = models.face_encoder(tmp_path / "copy.npz")
    np.testing.assert_array_equal(again.encode(chips()), net.encode(chips()))


@pytest.mark.parametrize(
    ("pictures", "error", "words"),
    [
        (np.zeros((2, 96, 96, 3)), ShapeError, r"chips \(n, 150, 150, 3\), got \(2, 96, 96, 3\)"),
        (np.zeros((150, 150)), ShapeError, r"got \(150, 150\)"),
        (np.zeros((1, 150, 150, 4)), ShapeError, r"got \(1, 150, 150, 4\)"),
        (np.full((1, 150, 150, 3), 1.5), ImageError, r"\[0, 1\]"),
        (np.zeros((1, 150, 150, 3), np.int32), DTypeError, "uint8"),
        (nst.Tensor(np.zeros((150, 150, 3), np.float32)), ShapeError, r"got \(150, 150, 3\)"),
        (nst.Tensor(np.zeros((1, 150, 150, 3))), DTypeError, "a tensor of float32, got float64"),
    ],
)
def test_pictures_that_cannot_be_used(pictures: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        models.FaceEncoder()(pictures)


def test_a_batch_has_at_least_one() -> None:
    with pytest.raises(ArgumentError, match="a batch of at least 1, got 0"):
        models.FaceEncoder().encode(chips(), batch=0)
