"""Modules: names of parameters, saving and loading, freezing, sharing, and the gradients of layers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import nn
from nstcore.errors import DTypeError, WeightsError
from nstcore.nn import he_normal


class Small(nn.Module):
    """Parameters as an attribute, in a part, in a list and in a dict."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.scale = nst.tensor([2.0], requires_grad=True)
        self.stem = nn.Conv2d(3, 4, 3, padding=1, activation="relu", rng=rng)
        self.body = [nn.Conv2d(4, 4, 1, rng=rng), nn.MaxPool2d(2)]
        self.heads = {"a": nn.Linear(4, 2, rng=rng), "b": nn.Linear(4, 3, rng=rng)}
        self.note = "not a parameter"

    def forward(self, x: Any) -> Any:
        for layer in (self.stem, *self.body):
            x = layer(x)
        return self.heads["a"](x.mean(axis=(1, 2))) * self.scale


NAMES = [
    "scale", "stem.weight", "stem.bias", "body.0.weight", "body.0.bias",
    "heads.a.weight", "heads.a.bias", "heads.b.weight", "heads.b.bias",
]  # fmt: skip


def picture(n: int = 1) -> nst.Tensor:
    return nst.tensor(np.random.default_rng(7).random((n, 6, 8, 3), dtype=np.float32))


def test_names_are_paths_in_the_order_of_the_attributes() -> None:
    assert [name for name, _ in Small().named_parameters()] == NAMES


def test_sequential_numbers_its_parts() -> None:
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, rng=rng), nn.AvgPool2d(2), nn.Conv2d(2, 1, 1, rng=rng))
    assert list(model.state_dict()) == ["parts.0.weight", "parts.0.bias", "parts.2.weight", "parts.2.bias"]
    assert model(nst.tensor(np.ones((2, 6, 6, 1)), dtype=np.float32)).shape == (2, 2, 2, 1)


def test_a_module_without_forward_says_so() -> None:
    class Nothing(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Nothing"):
        Nothing()(1)


def test_he_normal_has_the_variance_of_the_paper() -> None:
    weights = he_normal((400, 3, 3, 16), 144, np.random.default_rng(0)).data
    assert weights.dtype == np.float32
    assert weights.var() == pytest.approx(2 / 144, rel=0.02)


def test_layers_without_a_generator_are_zero_and_trainable() -> None:
    layer = nn.Conv2d(3, 4, (3, 5))
    assert layer.weight.shape == (4, 3, 5, 3)
    assert not layer.weight.data.any()
    assert layer.weight.requires_grad


def test_saved_parameters_come_back(tmp_path: Path) -> None:
    first, second = Small(0), Small(1)
    first.save(tmp_path / "small.npz", source="a test")
    second.load(tmp_path / "small.npz")
    for name, array in first.state_dict().items():
        assert np.array_equal(second.state_dict()[name], array)
    assert np.array_equal(first(picture()).data, second(picture()).data)
    meta = nst.weights.load(tmp_path / "small.npz").meta
    assert (meta["architecture"], meta["source"], meta["preprocessing"]) == ("small", "a test", None)


def test_loaded_parameters_are_the_models_own_and_trainable(tmp_path: Path) -> None:
    model = Small()
    model.save(tmp_path / "small.npz")
    model.load(tmp_path / "small.npz")
    parameter = model.parameters()[0]
    parameter.data += 1
    assert parameter.requires_grad
    assert parameter.data[0] == 3
    arrays = {name: array.copy() for name, array in model.state_dict().items()}
    model.load_state_dict(arrays)
    arrays["scale"][...] = 9
    assert model.scale.data[0] == 3


def test_loading_keeps_the_element_type() -> None:
    model = Small().astype(np.float64)
    model.load_state_dict({name: array.astype(np.float16) for name, array in model.state_dict().items()})
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("body.0.bias", None, r"body\.0\.bias is missing"),
        ("heads.c.bias", np.zeros(3), r"heads\.c\.bias is not a parameter of this network"),
        ("stem.weight", np.zeros((4, 3, 3, 4)), r"stem\.weight expects shape \(4, 3, 3, 3\), got \(4, 3, 3, 4\)"),
        ("heads.b.bias", np.array(["a", "b", "c"]), r"heads\.b\.bias expects real numbers, got <U1"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_and_nothing_changes(key: str, value: Any, words: str) -> None:
    model = Small(0)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    arrays: dict[str, Any] = {name: array + 1 for name, array in before.items()}
    if value is None:
        del arrays[key]
    else:
        arrays[key] = value
    with pytest.raises(WeightsError, match=words):
        model.load_state_dict(arrays, "other.npz")
    assert all(np.array_equal(model.state_dict()[name], array) for name, array in before.items())


def test_a_file_of_another_network_is_named(tmp_path: Path) -> None:
    nn.Linear(4, 2, rng=np.random.default_rng(0)).save(tmp_path / "head.npz")
    with pytest.raises(WeightsError, match=r"head\.npz: scale is missing; is it the file of another network"):
        Small().load(tmp_path / "head.npz")
    with pytest.raises(WeightsError, match=r"absent\.npz"):
        Small().load(tmp_path / "absent.npz")


def test_frozen_parameters_get_no_gradient() -> None:
    model = Small().freeze()
    assert not any(p.requires_grad for p in model.parameters())
    x = nst.tensor(picture().data, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in model.parameters())


def test_zero_grad_forgets() -> None:
    model = Small()
    model(picture()).sum().backward()
    assert model.stem.weight.grad is not None
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_a_layer_used_twice_gets_the_sum_of_both_gradients() -> None:
    layer = nn.Linear(3, 3, rng=np.random.default_rng(0)).astype(np.float64)
    x = np.random.default_rng(1).standard_normal((2, 3))
    layer(layer(nst.tensor(x))).sum().backward()
    w, b = layer.weight.data, layer.bias.data
    inner = x @ w + b
    ones = np.ones((2, 3))
    np.testing.assert_allclose(layer.weight.grad, inner.T @ ones + x.T @ (ones @ w.T), rtol=1e-12)
    np.testing.assert_allclose(layer.bias.grad, ones.sum(0) + (ones @ w.T).sum(0), rtol=1e-12)


def test_a_shared_part_has_two_names_and_one_parameter() -> None:
    shared = nn.Linear(2, 2, rng=np.random.default_rng(0))
    model = nn.Sequential(shared, shared)
    assert list(model.state_dict()) == ["parts.0.weight", "parts.0.bias", "parts.1.weight", "parts.1.bias"]
    assert len(model.parameters()) == 2


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, stride=2, padding=1, activation="relu", rng=np.random.default_rng(0)),
        nn.Conv2d(2, 3, (1, 3), padding="same", rng=np.random.default_rng(1)),
        nn.Linear(2, 4, rng=np.random.default_rng(2)),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(3, stride=2),
        nn.Sequential(nn.Conv2d(2, 4, 3, rng=np.random.default_rng(3)), nn.MaxPool2d(2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_gradients_of_layers(layer: nn.Module) -> None:
    layer.astype(np.float64)
    shape = (3, 2) if isinstance(layer, nn.Linear) else (2, 7, 6, 2)
    x = np.random.default_rng(5).standard_normal(shape)
    report = nst.gradcheck(
        lambda x, *values: _with_parameters(layer, values)(x), x, *[p.data for p in layer.parameters()]
    )
    assert report.max_error < 1e-6


def _with_parameters(layer: nn.Module, values: tuple[nst.Tensor, ...]) -> nn.Module:
    """A copy of `layer` that computes with the tensors `values`."""
    twin = copy.copy(layer)
    if isinstance(layer, nn.Sequential):
        twin.parts = list(layer.parts)  # type: ignore[attr-defined]
        twin.parts[0] = _with_parameters(layer.parts[0], values)  # type: ignore[attr-defined]
    elif values:
        twin.weight, twin.bias = values  # type: ignore[attr-defined]
    return twin


@pytest.mark.parametrize("dtype", ["float16", "int32", "no such type"])
def test_only_floats_that_the_kernels_take(dtype: str) -> None:
    model = Small()
    with pytest.raises(DTypeError, match=r"\[Small\] expects dtype float32 or float64, got"):
        model.astype(dtype)
    assert model.scale.dtype == np.float32


def test_astype_changes_parameters_and_result() -> None:
    model = Small()
    model(picture()).sum().backward()
    assert model.astype("float64") is model
    assert all(p.dtype == np.float64 and p.grad is None for p in model.parameters())
    assert model(nst.tensor(picture().data.astype(np.float64))).dtype == np.float64
