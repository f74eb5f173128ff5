"""Conversion from other formats, on synthetic files of their true layouts; and what hostile files get."""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstcore.errors import ArgumentError, OutputError, WeightsError
from nstcore.models.vgg_layout import convolutions, parameter_shapes
from nstcore.weights import load
from nstcore.weights.convert import convert

CAFFE = {"color_order": "BGR", "scale": 255.0, "mean": [103.939, 116.779, 123.68], "std": [1.0, 1.0, 1.0]}
TORCHVISION = {
    "color_order": "RGB",
    "scale": 1.0,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
Arrays = dict[str, np.ndarray]


def marked(architecture: str) -> Arrays:
    """Parameters in our layout: zeros, and marks that any wrong transposition would move."""
    rng = np.random.default_rng(len(architecture))
    arrays = {}
    for number, (key, shape) in enumerate(parameter_shapes(architecture).items()):
        array = np.zeros(shape, np.float32)
        for _ in range(40):
            array[tuple(rng.integers(0, shape))] = rng.integers(1, 2000) / 8
        array.reshape(-1)[0] = number + 1
        arrays[key] = array
    return arrays


@pytest.fixture(scope="module")
def vgg16() -> Arrays:
    return marked("vgg16")


@pytest.fixture(scope="module")
def vgg19() -> Arrays:
    return marked("vgg19")


def hwio(arrays: Arrays, layer: str) -> np.ndarray:
    return np.ascontiguousarray(arrays[f"{layer}.weight"].transpose(1, 2, 3, 0))


def torchvision_names(architecture: str, arrays: Arrays) -> Arrays:
    """Rename to features.N, OIHW, where N counts convolutions, ReLUs and pools; add a dense layer."""
    state, number, block = {}, 0, "1"
    for layer, _, _ in convolutions(architecture):
        if layer[4] != block:
            number, block = number + 1, layer[4]
        state[f"features.{number}.weight"] = np.ascontiguousarray(arrays[f"{layer}.weight"].transpose(0, 3, 1, 2))
        state[f"features.{number}.bias"] = arrays[f"{layer}.bias"]
        number += 2
    assert number == {"vgg16": 30, "vgg19": 36}[architecture]
    state["classifier.0.weight"] = np.ones((4, 8), np.float32)
    return state


def keras_names(arrays: Arrays, weight: str, bias: str) -> Arrays:
    """Rename to Keras's names; in the patterns {0} stands for block1_conv1."""
    state = {}
    for key in arrays:
        layer, kind = key.split(".")
        name = f"block{layer[4]}_conv{layer[6]}"
        state[(weight if kind == "weight" else bias).format(name)] = (
            hwio(arrays, layer) if kind == "weight" else arrays[key]
        )
    return state


def check(source: Path, expected: Arrays, architecture: str, preprocessing: dict[str, Any]) -> None:
    """Convert to float16 and compare everything; the marks are exact there."""
    found = convert(source, source.with_name("out.npz"))
    assert (found.architecture, found.meta["dtype"], found.preprocessing) == (
        architecture,
        "float16",
        preprocessing,
    )
    assert source.name in found.meta["source"]
    assert found.meta["licence"]
    assert found.arrays.keys() == expected.keys()
    for key, array in expected.items():
        assert found.arrays[key].dtype == np.float16
        assert np.array_equal(found.arrays[key], array), key


def refused(source: Path, *parts: str) -> None:
    output = source.with_name("refused.npz")
    with pytest.raises(WeightsError) as caught:
        convert(source, output)
    for part in ("[weights convert]", str(source), *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not output.exists()


# ---- safetensors ----


def write_safetensors(path: Path, state: Arrays) -> None:
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in state.items():
        kind = {"f2": "F16", "f4": "F32"}[array.dtype.str[1:]]
        table[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [end, end := end + array.nbytes]}
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in state.values()))


def test_safetensors(tmp_path: Path, vgg16: Arrays) -> None:
    state = {name: array.astype("f2") for name, array in torchvision_names("vgg16", vgg16).items()}
    write_safetensors(tmp_path / "vgg16.safetensors", state)
    check(tmp_path / "vgg16.safetensors", vgg16, "vgg16", TORCHVISION)


def test_safetensors_layout_is_that_of_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="needs the safetensors package")
    write_safetensors(tmp_path / "a.safetensors", {"w": np.arange(6, dtype="f4").reshape(2, 3)})
    np.testing.assert_array_equal(library.load_file(tmp_path / "a.safetensors")["w"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}, "outside the file"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}, "outside the file"),
        ({"dtype": "F32", "shape": [1 << 30, 1 << 30], "data_offsets": [0, 16]}, "claims shape"),
        ({"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}, "outside"),
        ({"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}, "unknown description ('BF16')"),
        ({"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}, "description"),
        ({"shape": [4]}, "description"),
        (5, "description"),
    ],
)
def test_safetensors_that_lie(tmp_path: Path, entry: object, rule: str) -> None:
    text = json.dumps({"features.0.weight": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    refused(tmp_path / "a.safetensors", "features.0.weight", rule)


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"\xff" * 8, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2) + b"\xff{"]
)
def test_safetensors_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path / "a.safetensors")


# ---- Keras ----


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        ("{0}/{0}_W_1:0", "{0}/{0}_b_1:0"),
        ("{0}/{0}/kernel:0", "{0}/{0}/bias:0"),
        ("model_weights/{0}/vgg16/{0}/kernel", "model_weights/{0}/vgg16/{0}/bias"),
    ],
)
def test_keras_h5(tmp_path: Path, vgg16: Arrays, weight: str, bias: str) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the h5py package (extra convert)")
    with h5py.File(tmp_path / "vgg16.h5", "w") as file:
        for name, array in keras_names(vgg16, weight, bias).items():
            file[name] = array
        file["fc1/fc1/kernel:0"] = np.ones((8, 8), "f4")
        file["optimizer_weights/block1_conv1/kernel"] = np.ones((3, 3, 3, 64), "f4")
    check(tmp_path / "vgg16.h5", vgg16, "vgg16", CAFFE)


def test_keras_h5_that_lies(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the h5py package (extra convert)")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("block1_conv1/kernel", (9999, 9999, 99, 99), "f4")  # claimed, never written
    refused(path, "block1_conv1/kernel", "not those of a VGG")
    (tmp_path / "secret").write_bytes(bytes(range(256)))
    with h5py.File(path, "w") as file:
        outside = [(str(tmp_path / "secret"), 0, 256)]
        file.create_dataset("block1_conv1/bias", (64,), "f4", external=outside)
    refused(path, "block1_conv1/bias", "lies in another file")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    refused(path, "not a readable HDF5 file")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_keras_npz(tmp_path: Path, vgg19: Arrays, save: Callable[..., None]) -> None:
    arrays = {key: array.astype("f2") for key, array in vgg19.items()}
    save(tmp_path / "vgg19.npz", **keras_names(arrays, "{0}_W", "{0}_b"))
    check(tmp_path / "vgg19.npz", vgg19, "vgg19", CAFFE)


def test_keras_npz_that_lies(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, block1_conv1_W=np.array([Path("pickled")], object))
    refused(path, "block1_conv1_W", "pickled object")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("block1_conv1_W.npy", bytes(70 << 20))
    refused(path, "larger than any layer")
    np.savez(path, block1_conv1_W=np.ones((3, 3, 3, 64)))
    refused(path, "block1_conv1", "expects a weight of rank 4 and a bias of rank 1")
    path.write_bytes(b"PK\x03\x04 and nothing")
    refused(path, "not a readable .npz")


# ---- MatConvNet ----


def matconvnet_layers(arrays: Arrays, old: bool) -> np.ndarray:
    layers: list[dict[str, Any]] = []
    for key in arrays:
        layer, kind = key.split(".")
        if kind == "weight":
            pair = (hwio(arrays, layer), arrays[f"{layer}.bias"].reshape(1, -1))
            cell = np.empty(2, object)
            cell[:] = pair
            kept = {"filters": pair[0], "biases": pair[1]} if old else {"weights": cell}
            layers += [{"name": layer, "type": "conv", **kept}, {"name": f"relu{layer[4:]}", "type": "relu"}]
    dense = np.empty(2, object)
    dense[:] = (np.ones((7, 7, 2, 5), "f4"), np.ones(5, "f4"))
    kept = {"filters": dense[0], "biases": dense[1]} if old else {"weights": dense}
    layers.append({"name": "fc6", "type": "conv", **kept})
    result = np.empty((1, len(layers)), object)
    result[0, :] = layers
    return result


@pytest.mark.parametrize("old", [False, True])
def test_matconvnet(tmp_path: Path, vgg16: Arrays, vgg19: Arrays, old: bool) -> None:
    from scipy.io import savemat

    name, arrays = ("vgg16", vgg16) if old else ("vgg19", vgg19)
    color = np.array([123.68, 116.779, 103.939])
    mean = {"averageImage": np.broadcast_to(color, (5, 4, 3)) if old else color.reshape(1, 1, 3)}
    tree = {"normalization": mean} if old else {"meta": {"normalization": mean}}
    savemat(tmp_path / "net.mat", {"layers": matconvnet_layers(arrays, old), **tree})
    found = convert(tmp_path / "net.mat", tmp_path / "out.npz", architecture=name)
    preprocessing = found.preprocessing
    assert (preprocessing["color_order"], preprocessing["scale"], preprocessing["std"]) == (
        "RGB",
        255.0,
        [1, 1, 1],
    )
    np.testing.assert_allclose(preprocessing["mean"], color, rtol=1e-12)
    for key, array in arrays.items():
        assert np.array_equal(found.arrays[key], array), key


def test_matconvnet_that_lies(tmp_path: Path) -> None:
    from scipy.io import savemat

    path = tmp_path / "a.mat"
    savemat(path, {"other": np.ones(3)})
    refused(path, "is not a MatConvNet network", "layers")
    savemat(path, {"layers": np.ones(3)})
    refused(path, "is not a MatConvNet network")
    path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    refused(path)
    path.write_bytes(b"short")
    refused(path)


# ---- ONNX ----


def onnx_model(arrays: Arrays, keras: bool, external: bool = False) -> Any:
    onnx = pytest.importorskip("onnx", reason="needs the onnx package (extra convert)")
    nodes, tensors, flow = [], [], "input"
    for layer in dict.fromkeys(key.split(".")[0] for key in arrays):
        stem = f"model/block{layer[4]}_conv{layer[6]}" if keras else f"features.{layer}"
        for kind in ("weight", "bias"):
            array = arrays[f"{layer}.{kind}"]
            array = np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if array.ndim == 4 else array
            tensors.append(onnx.numpy_helper.from_array(array, f"{stem}/{kind}"))
        nodes.append(onnx.helper.make_node("Conv", [flow, f"{stem}/weight", f"{stem}/bias"], [stem], name=stem))
        nodes.append(onnx.helper.make_node("Relu", [stem], [flow := f"{stem}/relu"]))
    if external:
        tensors[0].data_location = onnx.TensorProto.EXTERNAL
        tensors[0].external_data.add(key="location", value="/etc/passwd")
    tensors.append(onnx.numpy_helper.from_array(np.ones((4, 4), "f4"), "dense"))
    nodes.append(onnx.helper.make_node("MatMul", [flow, "dense"], ["output"]))
    graph = onnx.helper.make_graph(nodes, "net", [], [], tensors)
    return onnx.helper.make_model(graph, producer_name="tf2onnx" if keras else "pytorch")


@pytest.mark.parametrize(("architecture", "keras"), [("vgg16", True), ("vgg19", False)])
def test_onnx(tmp_path: Path, request: pytest.FixtureRequest, architecture: str, keras: bool) -> None:
    arrays = request.getfixturevalue(architecture)
    (tmp_path / "net.onnx").write_bytes(onnx_model(arrays, keras).SerializeToString())
    check(tmp_path / "net.onnx", arrays, architecture, CAFFE if keras else TORCHVISION)


def test_onnx_that_lies(tmp_path: Path, vgg16: Arrays) -> None:
    path = tmp_path / "a.onnx"
    first = {key: array for key, array in vgg16.items() if key.startswith("conv1_1")}
    path.write_bytes(onnx_model(first, True, external=True).SerializeToString())
    refused(path, "model/block1_conv1/weight", "lies in another file")
    model = onnx_model(first, True)
    del model.graph.initializer[1]
    path.write_bytes(model.SerializeToString())
    refused(path, "model/block1_conv1/bias", "is not stored in the graph")
    model = onnx_model(first, True)
    model.graph.initializer[0].dims[0] = 65
    path.write_bytes(model.SerializeToString())
    refused(path, "model/block1_conv1/weight", "is damaged")
    model = onnx_model(first, False)
    model.producer_name = "somebody"
    path.write_bytes(model.SerializeToString())
    refused(path, "the input it wants is not known")
    path.write_bytes(b"\xff" * 100)
    refused(path, "not a readable ONNX file")


@pytest.mark.parametrize(("package", "suffix"), [("onnx", ".onnx"), ("h5py", ".h5")])
def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, suffix: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / f"a{suffix}").write_bytes(b"anything")
    with pytest.raises(WeightsError, match=rf"{suffix} needs the {package} package: pip install 'nstcore\[convert\]'"):
        convert(tmp_path / f"a{suffix}", tmp_path / "out.npz")


# ---- what all formats share ----


def test_float32_is_exact_and_origin_is_kept(tmp_path: Path, vgg16: Arrays) -> None:
    arrays = vgg16 | {"conv1_1.bias": np.linspace(-1, 1, 64, dtype="f4")}
    write_safetensors(tmp_path / "a.safetensors", torchvision_names("vgg16", arrays))
    convert(tmp_path / "a.safetensors", tmp_path / "out.npz", dtype="float32", origin="package x 1.0")
    found = load(tmp_path / "out.npz")
    assert found.meta["dtype"] == "float32"
    assert found.meta["source"].endswith("from package x 1.0")
    assert np.array_equal(found.arrays["conv1_1.bias"], arrays["conv1_1.bias"])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (
            {"features.0.weight": np.ones((64, 3, 5, 5), "f4")},
            "features.0: expects (64, 3, 3, 3) (k, r, s, c) as conv1_1.weight",
        ),
        ({"features.2.bias": np.ones(63, "f4")}, "features.2: expects (64,)"),
        (
            {"features.0.bias": np.full(64, 1e6, "f4")},
            "features.0 bias: has values that are not finite in float16",
        ),
        ({"features.0.bias": np.full(64, np.nan, "f4")}, "not finite"),
        (
            {"features.40.weight": np.ones((512, 512, 3, 3), "f2"), "features.40.bias": np.ones(512, "f2")},
            "13 (vgg16), 16 (vgg19), got 14",
        ),
        ({"features.40.weight": np.ones((1, 1, 3, 3), "f2")}, "features.40: has no bias"),
    ],
)
def test_networks_that_are_no_vgg(tmp_path: Path, vgg16: Arrays, change: Arrays, rule: str) -> None:
    state = torchvision_names("vgg16", {key: array.astype("f2") for key, array in vgg16.items()})
    write_safetensors(tmp_path / "a.safetensors", state | change)
    refused(tmp_path / "a.safetensors", rule)


def test_options_are_checked_before_the_work(tmp_path: Path) -> None:
    source = tmp_path / "a.safetensors"
    with pytest.raises(WeightsError, match="there is no such file"):
        convert(source, tmp_path / "out.npz")
    source.write_bytes(b"anything")
    for error, output, options in (
        (ArgumentError, tmp_path / "out.npz", {"dtype": "int8"}),
        (ArgumentError, tmp_path / "out.npz", {"architecture": "vgg11"}),
        (ArgumentError, tmp_path / "out.bin", {}),
        (OutputError, tmp_path / "absent" / "out.npz", {}),
    ):
        with pytest.raises(error):
            convert(source, output, **options)
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(OutputError, match="is the input"):
        convert(tmp_path / "a.npz", tmp_path / "a.npz")
    (tmp_path / "a.xyz").write_bytes(b"anything")
    refused(tmp_path / "a.xyz", "no format read here", ".safetensors")


def test_architecture_can_be_insisted_on(tmp_path: Path, vgg16: Arrays) -> None:
    write_safetensors(tmp_path / "a.safetensors", torchvision_names("vgg16", vgg16))
    with pytest.raises(WeightsError, match=r"16 \(vgg19\), got 13"):
        convert(tmp_path / "a.safetensors", tmp_path / "out.npz", architecture="vgg19")


def test_our_own_file_needs_no_conversion(tmp_path: Path) -> None:
    from nstcore.weights import embedded

    with pytest.raises(WeightsError, match="already is a weights file"):
        convert(embedded("vgg16"), tmp_path / "out.npz")
