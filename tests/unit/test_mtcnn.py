"""MTCNN's networks and their converter: a synthetic wheel of the true layout against plain NumPy."""

from __future__ import annotations

import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import nstcore as nst
from nstcore import models, weights
from nstcore.errors import ShapeError, WeightsError
from nstcore.models.mtcnn_layout import parameter_shapes
from nstcore.weights.convert import convert
from nstcore.weights.convert import mtcnn as reader

from .torch_files import stand_in, tensors, torch_pickle, write_legacy

Array = NDArray[Any]
FOLDER = "facenet_pytorch/data"
# (filters, size, pool window or 0); source: facenet-pytorch 2.6.0, models/mtcnn.py
NETS: dict[str, Any] = {
    "pnet": ([(10, 3, 2), (16, 3, 0), (32, 3, 0)], None, (2, 4)),
    "rnet": ([(28, 3, 3), (48, 3, 3), (64, 2, 0)], (576, 128), (2, 4)),
    "onet": ([(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)], (1152, 256), (2, 4, 10)),
}


def state(name: str) -> dict[str, Array]:
    """A state dict with the original's names and shapes, and random values."""
    rng, found, channels = np.random.default_rng(len(name) + ord(name[0])), {}, 3
    layers, dense, heads = NETS[name]

    def layer(key: str, shape: tuple[int, ...]) -> None:
        found[f"{key}.weight"] = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        found[f"{key}.bias"] = (0.1 * rng.standard_normal(shape[0])).astype(np.float32)

    for i, (filters, size, _) in enumerate(layers, 1):
        layer(f"conv{i}", (filters, channels, size, size))
        found[f"prelu{i}.weight"] = rng.uniform(-0.5, 0.5, filters).astype(np.float32)
        channels = filters
    number = len(layers) + 1
    if dense is not None:
        layer(f"dense{number}", dense[::-1])
        found[f"prelu{number}.weight"] = rng.uniform(-0.5, 0.5, dense[1]).astype(np.float32)
        channels, number = dense[1], number + 1
    for i, size in enumerate(heads, 1):
        shape = (size, channels) if dense else (size, channels, 1, 1)
        layer(f"{'dense' if dense else 'conv'}{number}_{i}", shape)
    return found


def plain(name: str, x: Array) -> list[Array]:
    """What the original computes of one window or picture x (h, w, 3): probability, box and, from O-Net, landmarks."""
    s = {key: a.astype(np.float64) for key, a in state(name).items()}
    layers, dense, heads = NETS[name]
    x = x.transpose(2, 0, 1).astype(np.float64)

    def prelu(a: Array, key: str) -> Array:
        slope = s[f"{key}.weight"].reshape(-1, *[1] * (a.ndim - 1))
        return np.where(a > 0, a, slope * a)

    for i, (_, size, window) in enumerate(layers, 1):
        views = sliding_window_view(x, (size, size), axis=(1, 2))
        x = np.tensordot(s[f"conv{i}.weight"], views, axes=([1, 2, 3], [0, 3, 4])) + s[f"conv{i}.bias"][:, None, None]
        x = prelu(x, f"prelu{i}")
        if window:
            room = [-(-(n - window) // 2) * 2 + window - n for n in x.shape[1:]]
            x = np.pad(x, ((0, 0), (0, room[0]), (0, room[1])), constant_values=-np.inf)
            x = sliding_window_view(x, (window, window), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))
    number = len(layers) + 1
    if dense is not None:
        x = s[f"dense{number}.weight"] @ x.transpose(2, 1, 0).ravel() + s[f"dense{number}.bias"]
        x, number = prelu(x, f"prelu{number}"), number + 1
    kind, results = "dense" if dense else "conv", []
    for i in range(1, len(heads) + 1):
        weight, bias = s[f"{kind}{number}_{i}.weight"], s[f"{kind}{number}_{i}.bias"]
        found = np.tensordot(weight.reshape(*weight.shape[:2]), x, axes=1)
        results.append(np.moveaxis(found + bias.reshape(-1, *[1] * (x.ndim - 1)), 0, -1))
    powers = np.exp(results[0])
    return [powers[..., 1:] / powers.sum(axis=-1, keepdims=True), *results[1:]]


@pytest.fixture
def torch_names(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    return stand_in(monkeypatch)


def write_wheel(path: Path, torch: types.ModuleType, states: dict[str, dict[str, Array]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("facenet_pytorch/__init__.py", "raise SystemError('nothing in the wheel is run')\n")
        for name, found in states.items():
            member = path.with_name(f"{name}.pt")
            write_legacy(member, torch_pickle(tensors(found), torch, legacy=True), found)
            archive.write(member, f"{FOLDER}/{name}.pt")
    return path


@pytest.fixture
def wheel(tmp_path: Path, torch_names: types.ModuleType) -> Path:
    return write_wheel(tmp_path / "facenet.whl", torch_names, {name: state(name) for name in NETS})


def test_a_converted_wheel_computes_what_plain_numpy_does(wheel: Path) -> None:
    convert(wheel, wheel.with_suffix(".npz"), dtype="float32", architecture="mtcnn")
    net = models.mtcnn(wheel.with_suffix(".npz"))
    rng = np.random.default_rng(1)
    for name, shape in (
        ("pnet", (1, 15, 20, 3)),
        ("pnet", (1, 11, 14, 3)),
        ("rnet", (3, 24, 24, 3)),
        ("onet", (2, 48, 48, 3)),
    ):
        x = rng.uniform(-1, 1, shape).astype(np.float32)
        found = [result for result in getattr(net, name)(x) if result is not None]
        for i in range(shape[0]):
            expected = plain(name, x[i])
            assert len(found) == len(expected)
            for got, exact in zip(found, expected, strict=True):
                assert got.dtype == np.float32
                np.testing.assert_allclose(got.data[i], exact, atol=3e-5 * max(1, np.abs(exact).max()))


def test_what_a_converted_file_says(wheel: Path, tmp_path: Path) -> None:
    found = convert(wheel, tmp_path / "out.npz", origin="a test")
    assert (found.architecture, found.meta["dtype"], found.parameters) == ("mtcnn", "float16", 498_313)
    assert {key: array.shape for key, array in found.arrays.items()} == parameter_shapes()
    assert found.preprocessing == {"color_order": "RGB", "scale": 255.0, "mean": [127.5] * 3, "std": [128.0] * 3}
    assert found.meta["source"].startswith("Wheel file facenet.whl, sha256 ")
    assert found.meta["licence"].startswith("MIT")


def test_embedded_file_says_what_it_is() -> None:
    found = weights.load(weights.embedded("mtcnn"))
    assert (found.meta["dtype"], found.parameters) == ("float32", 498_313)
    assert "facenet-pytorch 2.6.0" in found.meta["source"]
    # sha256 of the wheel of PyPI that it was made from
    assert "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca" in found.meta["source"]


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(WeightsError) as caught:
        convert(path, path.with_name("refused.npz"))
    for part in ("[weights convert]", *parts):
        assert part in str(caught.value)
    assert not path.with_name("refused.npz").exists()


def test_wheels_that_are_refused(
    tmp_path: Path, torch_names: types.ModuleType, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {name: state(name) for name in NETS}
    refused(write_wheel(tmp_path / "a.whl", torch_names, {"pnet": states["pnet"]}), f"{FOLDER}/rnet.pt", "is missing")
    del states["rnet"]["prelu4.weight"]
    refused(write_wheel(tmp_path / "b.whl", torch_names, states), f"{FOLDER}/rnet.pt", "prelu4.weight is missing")
    states["rnet"] = state("rnet") | {"dense4.weight": np.zeros((576, 128), np.float32)}
    words = "dense4.weight: expects shape (128, 576), got (576, 128)"
    refused(write_wheel(tmp_path / "c.whl", torch_names, states), words)
    (tmp_path / "d.whl").write_bytes(b"not a zip")
    refused(tmp_path / "d.whl", "not a zip file")
    with zipfile.ZipFile(tmp_path / "e.whl", "w") as archive:
        archive.writestr(f"{FOLDER}/pnet.pt", b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00lsq\x85q\x02Rq\x03.")
    refused(tmp_path / "e.whl", f"{FOLDER}/pnet.pt", "os.system")
    whole = wheel.read_bytes()
    (tmp_path / "f.whl").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "f.whl")
    monkeypatch.setattr(reader, "MAX_MEMBER_BYTES", 1000)
    refused(wheel, "is larger than 1000 bytes")


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError, match="expects weights of mtcnn, got vgg16"):
        models.mtcnn(weights.embedded("vgg16"))


def test_preprocessing_that_the_detector_cannot_do_is_refused(tmp_path: Path) -> None:
    found = weights.load(weights.embedded("mtcnn"))
    how = {**found.preprocessing, "mean": [127.5, 127.5, 0]}
    weights.save(tmp_path / "a.npz", found.arrays, {"architecture": "mtcnn", "preprocessing": how})
    with pytest.raises(WeightsError, match="one mean and one std"):
        models.mtcnn(tmp_path / "a.npz")


def test_a_saved_network_can_be_loaded_again(tmp_path: Path) -> None:
    net = models.mtcnn()
    net.save(tmp_path / "copy.npz", source="a copy")
    again = models.mtcnn(tmp_path / "copy.npz")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 48, 48, 3)).astype(np.float32)
    for got, expected in zip(again.onet(x), net.onet(x), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("pnet", (1, 10, 20, 3)), ("rnet", (1, 25, 24, 3)), ("onet", (48, 48, 3)), ("pnet", (1, 20, 20, 1))],
)
def test_inputs_of_other_shapes(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=rf"\[mtcnn\] {name} expects"):
        getattr(models.MTCNN(), name)(np.zeros(shape, np.float32))


def test_gradient_for_a_window() -> None:
    net = models.mtcnn(dtype="float64").rnet
    x = np.random.default_rng(2).uniform(-1, 1, (1, 24, 24, 3))
    nst.gradcheck(lambda window: nst.ops.sum(net(window)[1]), x, tolerance=1e-5)
