"""PyTorch's files read without torch: true layouts written by hand, and pickles that want to do harm."""

from __future__ import annotations

import os
import pickle
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstcore.errors import WeightsError
from nstcore.models.vgg_layout import convolutions
from nstcore.weights.convert import convert
from nstcore.weights.convert.torch import read_state_dict

from .torch_files import Arrays, StandInStorage, StandInTensor, stand_in, tensors, torch_pickle, write_legacy, write_pth


def refused(source: Path, *parts: str) -> None:
    output = source.with_name("refused.npz")
    with pytest.raises(WeightsError) as caught:
        convert(source, output)
    for part in ("[weights convert]", str(source), *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not output.exists()


@pytest.fixture
def stand_in_torch(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    return stand_in(monkeypatch)


#: where torchvision's VGG-19 and -16 have their convolutions, between ReLUs and pools
FEATURES = {
    "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
    "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
}


@pytest.mark.parametrize(("architecture", "legacy"), [("vgg19", False), ("vgg16", True)])
def test_vgg(tmp_path: Path, stand_in_torch: types.ModuleType, architecture: str, legacy: bool) -> None:
    rng = np.random.default_rng(5)
    expected, state = {}, {}
    for (layer, inputs, outputs), number in zip(convolutions(architecture), FEATURES[architecture], strict=True):
        weight = np.zeros((outputs, inputs, 3, 3), "f4")
        for _ in range(30):
            weight[tuple(rng.integers(0, weight.shape))] = rng.integers(1, 2000) / 8  # exact in float16
        state[f"features.{number}.weight"] = weight
        state[f"features.{number}.bias"] = np.full(outputs, number, "f4")
        expected[f"{layer}.weight"] = weight.transpose(0, 2, 3, 1)
        expected[f"{layer}.bias"] = state[f"features.{number}.bias"]
    state["classifier.0.weight"] = np.ones((4, 8), "f4")
    state = dict(reversed(state.items()))  # the order in the file does not matter
    path = tmp_path / "vgg.pth"
    (write_legacy if legacy else write_pth)(path, torch_pickle(tensors(state), stand_in_torch, legacy), state)
    found = convert(path, tmp_path / "out.npz")
    assert found.architecture == architecture
    assert found.preprocessing == {
        "color_order": "RGB",
        "scale": 1.0,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert found.arrays.keys() == expected.keys()
    for key, array in expected.items():
        assert np.array_equal(found.arrays[key], array), key


def small_state() -> Arrays:
    rng = np.random.default_rng(3)
    return {
        "a.weight": rng.standard_normal((5, 3, 2, 2)).astype("f4"),
        "a.half": rng.standard_normal(7).astype("f2"),
        "count": np.array(12, "i8"),
        "empty": np.zeros((0, 3), "f4"),
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_state_dict_of_any_model(tmp_path: Path, stand_in_torch: types.ModuleType, legacy: bool) -> None:
    state = small_state()
    pickled = torch_pickle(tensors(state), stand_in_torch, legacy)
    (write_legacy if legacy else write_pth)(tmp_path / "a.pt", pickled, state)
    found = read_state_dict(tmp_path / "a.pt")
    assert list(found) == list(state)
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert list(read_state_dict(tmp_path / "a.pt", prefix="a.")) == ["a.weight", "a.half"]


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_or_flipped_state_dict(tmp_path: Path, stand_in_torch: types.ModuleType, legacy: bool) -> None:
    """Damage gives WeightsError or, where the format has no checksum, other values; never another error."""
    state, path = small_state(), tmp_path / "a.pt"
    (write_legacy if legacy else write_pth)(path, torch_pickle(tensors(state), stand_in_torch, legacy), state)
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 37):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            read_state_dict(path)
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= rng.integers(1, 256)
        path.write_bytes(damaged)
        try:
            found = read_state_dict(path)
        except WeightsError:
            continue
        assert sum(array.nbytes for array in found.values()) < 10_000


class Command:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch ran-by-pickle",)


HOSTILE = {
    "system": pickle.dumps(Command(), protocol=2),
    "system in a dict": pickle.dumps({"features.0.weight": Command()}, protocol=2),
    "builtins.eval": b"\x80\x02cbuiltins\neval\nX\x0c\x00\x00\x001/0 or 'no'!\x85R.",
    "stack global": pickle.dumps(Command(), protocol=4),
    "inst": b"(S'touch ran-by-pickle'\nios\nsystem\n.",
    "extension": b"\x80\x02\x82\x01.",
    "attributes of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",
    "calls a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "memo far away": b"\x80\x02Nr\xff\xff\xff\x7fh\x05.",
    "huge text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "empty stack": b"\x80\x02R.",
    "no end": b"\x80\x02}",
    "tuple as key": b"\x80\x02})K\x01s.",
    "a number": b"\x80\x02K\x05.",
    "storage without count": b"\x80\x02(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuNtQ.",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, legacy: bool) -> None:
    monkeypatch.chdir(tmp_path)
    (write_legacy if legacy else write_pth)(tmp_path / "evil.pth", HOSTILE[name], {})
    refused(tmp_path / "evil.pth")
    assert not (tmp_path / "ran-by-pickle").exists()


def test_refused_global_is_named(tmp_path: Path) -> None:
    write_pth(tmp_path / "evil.pth", HOSTILE["system"], {})
    refused(
        tmp_path / "evil.pth",
        f"{os.system.__module__}.system",
        "nstcore never unpickles",
        "model.state_dict()",
    )


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (2**39,), (1,)),
        (0, (2**39,), (0,)),
        (99, (2,), (1,)),
        (0, (2, 2), (1,)),
        (-1, (1,), (1,)),
        (0, (3,), (2,)),
        (0, 3, 1),
    ],
)
def test_tensors_outside_their_storage(
    tmp_path: Path, stand_in_torch: types.ModuleType, offset: int, shape: Any, strides: Any
) -> None:
    class Liar(StandInTensor):
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return stand_in_torch._utils._rebuild_tensor_v2, (
                StandInStorage(self),
                offset,
                shape,
                strides,
                False,
                None,
            )

    state = {"features.0.weight": np.ones(4, "f4")}
    write_pth(
        tmp_path / "a.pth",
        torch_pickle({"features.0.weight": Liar(np.ones(4, "f4"), "0")}, stand_in_torch),
        state,
    )
    refused(tmp_path / "a.pth", "a tensor")


def test_torch_storage_of_wrong_length_and_big_endian(tmp_path: Path, stand_in_torch: types.ModuleType) -> None:
    state = {"features.0.weight": np.ones(4, "f4")}
    pickled = torch_pickle(tensors(state), stand_in_torch)
    write_pth(tmp_path / "a.pth", pickled, {"features.0.weight": np.ones(3, "f4")})
    refused(tmp_path / "a.pth", "data/0 has 12 bytes, expected 16")
    write_pth(tmp_path / "a.pth", pickled, {})
    refused(tmp_path / "a.pth", "data/0 is missing")
    write_pth(tmp_path / "a.pth", pickled, state, byteorder=b"big")
    refused(tmp_path / "a.pth", "big-endian")


def test_torch_batch_normalised_vgg_is_refused(tmp_path: Path, stand_in_torch: types.ModuleType) -> None:
    state = {"features.0.weight": np.ones((4, 3, 3, 3), "f4"), "features.1.running_mean": np.ones(4, "f4")}
    write_pth(tmp_path / "a.pth", torch_pickle(tensors(state), stand_in_torch), state)
    refused(tmp_path / "a.pth", "batch normalisation")
