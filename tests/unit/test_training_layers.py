"""Layers that behave otherwise while a network learns, their buffers, and siamese networks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import nn
from nstcore.backend import cpu
from nstcore.errors import ArgumentError, DTypeError, ShapeError, WeightsError
from nstcore.nn import glorot_uniform


def with_values(layer: nn.Module, values: tuple[Any, ...]) -> nn.Module:
    """A copy of `layer` that computes with the tensors `values`, in the order of its parameters."""
    twin = copy.deepcopy(layer)
    names = [name for name, value in vars(twin).items() if isinstance(value, nst.Tensor)]
    for name, value in zip(names, values, strict=True):
        setattr(twin, name, value)
    return twin


@pytest.mark.parametrize(
    "layer",
    [nn.Affine(3), nn.BatchNorm(3), nn.BatchNorm(3).eval(), nn.Dropout(0.4, seed=2), nn.GlobalAvgPool(), nn.Flatten()],
    ids=lambda layer: f"{type(layer).__name__}{'' if layer.training else ' as trained'}",
)
def test_gradients_of_layers(layer: nn.Module) -> None:
    layer.astype(np.float64)
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(p.shape) for p in layer.parameters()]
    x = rng.standard_normal((3, 4, 2, 3))
    report = nst.gradcheck(lambda x, *v: with_values(layer, v)(x), x, *values)
    assert report.max_error < 1e-6


def test_rows_of_length_one_have_a_gradient() -> None:
    x = np.random.default_rng(1).standard_normal((4, 6))
    assert nst.gradcheck(nn.L2Normalize(), x).max_error < 1e-6


def test_batch_norm_measures_while_it_learns_and_remembers() -> None:
    rng = np.random.default_rng(2)
    layer, x = nn.BatchNorm(5, momentum=0.25), (3 + 2 * rng.standard_normal((6, 4, 3, 5))).astype(np.float32)
    y = layer(nst.Tensor(x)).data
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-4)
    np.testing.assert_allclose(layer.running[0], 0.25 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.running[1], 0.75 + 0.25 * x.var((0, 1, 2), ddof=1), rtol=1e-5)
    layer.eval()
    before = layer.running.copy()
    one = layer(nst.Tensor(x[:1])).data
    expected = (x[:1] - layer.running[0]) / np.sqrt(layer.running[1] + 1e-5)
    np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(layer.running, before)


@pytest.fixture(params=cpu.isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set of this machine in turn, chosen."""
    cpu.set_isa(request.param)
    return str(request.param)


def test_batch_norm_with_relu_is_both_in_turn(isa: str) -> None:
    rng = np.random.default_rng(3)
    x, seed = rng.standard_normal((5, 7, 6, 19)), rng.standard_normal((5, 7, 6, 19))
    scale, shift = rng.standard_normal(19), rng.standard_normal(19)
    results = []
    for fused in (True, False):
        tensors = [nst.tensor(a, requires_grad=True) for a in (x, scale, shift)]
        y = nst.ops.batch_norm(*tensors, activation="relu" if fused else None)
        y = y if fused else nst.ops.relu(y)
        y.backward(seed)
        results.append([y.data, *(t.grad for t in tensors)])
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-11)


def test_batch_norm_does_not_depend_on_the_number_of_threads(isa: str) -> None:
    rng = np.random.default_rng(4)
    x, seed = (rng.standard_normal((7, 33, 31, 24)).astype(np.float32) for _ in range(2))
    found = []
    for threads in (1, 2, 3):
        nst.set_num_threads(threads)
        t = nst.tensor(x, requires_grad=True)
        nst.ops.batch_norm(t, np.ones(24, np.float32), np.zeros(24, np.float32), activation="relu").backward(seed)
        found.append(t.grad)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_batch_norm_far_from_zero_keeps_its_digits(isa: str) -> None:
    """A mean 10,000 spreads away: a variance from sums of squares would have no digits left."""
    x = (1e4 + np.random.default_rng(5).standard_normal((4096, 16))).astype(np.float32)
    y = nst.ops.batch_norm(x, np.ones(16, np.float32), np.zeros(16, np.float32))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(y, (exact - exact.mean(0)) / exact.std(0), atol=2e-3)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"eps": 0.0}, ArgumentError, "eps above 0"),
        ({"activation": "tanh"}, ArgumentError, "activation None or 'relu'"),
        ({"moments": np.zeros((2, 4))}, ShapeError, r"moments of shape \(2, 3\)"),
        ({"found": np.zeros((2, 3), np.float32)}, ShapeError, "found as float64"),
    ],
)
def test_batch_norm_refuses(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=rf"^\[batch_norm\] .*{words}"):
        nst.ops.batch_norm(np.ones((4, 3)), np.ones(3), np.zeros(3), **options)


def test_batch_norm_measures_nothing_of_nothing() -> None:
    with pytest.raises(ShapeError, match="at least one position"):
        nst.ops.batch_norm(np.ones((0, 3)), np.ones(3), np.zeros(3))


def test_dropout_drops_as_many_as_it_says_and_keeps_the_mean() -> None:
    layer = nn.Dropout(0.3, seed=5)
    x = nst.Tensor(np.ones((300, 200), np.float32))
    first, second = layer(x).data, layer(x).data
    assert np.mean(first == 0) == pytest.approx(0.3, abs=0.01)
    assert first.mean() == pytest.approx(1, abs=0.02)
    assert not np.array_equal(first, second)
    assert np.mean((first == 0) & (second == 0)) == pytest.approx(0.09, abs=0.01)
    assert layer.eval()(x) is x


def test_dropout_goes_on_where_it_was(tmp_path: Path) -> None:
    x = nst.Tensor(np.ones((8, 8), np.float32))
    one = nn.Sequential(nn.Dropout(0.5, seed=7), nn.Linear(8, 2, rng=np.random.default_rng(0)))
    one(x)
    one.save(tmp_path / "state.npz")
    other = nn.Sequential(nn.Dropout(0.5, seed=7), nn.Linear(8, 2, rng=np.random.default_rng(1)))
    other.load(tmp_path / "state.npz")
    np.testing.assert_array_equal(one(x).data, other(x).data)


def test_dropout_refuses() -> None:
    with pytest.raises(ArgumentError, match=r"rate in \[0, 1\), got 1"):
        nst.ops.dropout(np.ones(3), 1)
    with pytest.raises(ArgumentError, match="whole numbers of at least 0"):
        nst.ops.dropout(np.ones(3), 0.5, seed=-1)


def test_running_moments_are_buffers_and_not_parameters(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False, rng=rng), nn.BatchNorm(4))
    assert [name for name, _ in net.named_parameters()] == ["parts.0.weight", "parts.1.scale", "parts.1.shift"]
    assert [name for name, _ in net.named_buffers()] == ["parts.1.running"]
    net(nst.Tensor(rng.random((2, 6, 6, 3), np.float32)))
    net.save(tmp_path / "net.npz")
    other = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False, rng=rng), nn.BatchNorm(4))
    mine = other.parts[1].running  # type: ignore[attr-defined]
    other.load(tmp_path / "net.npz")
    assert other.parts[1].running is mine  # type: ignore[attr-defined]
    np.testing.assert_array_equal(mine, net.parts[1].running)  # type: ignore[attr-defined]
    arrays = {**net.state_dict(), "parts.1.running": np.zeros((2, 5))}
    with pytest.raises(WeightsError, match=r"parts\.1\.running expects shape \(2, 4\), got \(2, 5\)"):
        other.load_state_dict(arrays)


def test_train_and_eval_reach_every_part() -> None:
    net = nst.models.embedding_net()
    assert all(part.training for part in net.modules())
    net.eval()
    assert not any(part.training for part in net.modules())
    assert len(list(net.modules())) == 11  # the network, 5 convolutions, 5 norms


def test_a_float64_network_has_float64_buffers_and_whole_counters() -> None:
    norm, drop = nn.BatchNorm(2).astype(np.float64), nn.Dropout(0.5, seed=0).astype(np.float64)
    assert norm.running.dtype == np.float64  # type: ignore[attr-defined]
    assert drop.calls.dtype == np.int64  # type: ignore[attr-defined]


def test_glorot_has_the_bounds_and_variance_of_the_paper() -> None:
    weights = glorot_uniform((300, 100), 300, 100, np.random.default_rng(0)).data
    limit = np.sqrt(6 / 400)
    assert abs(weights).max() <= limit
    assert weights.var() == pytest.approx(limit**2 / 3, rel=0.02)


def embed(net: Any, x: np.ndarray) -> nst.Tensor:
    return net(nst.Tensor(x))  # type: ignore[no-any-return]


def test_gradients_of_the_branches_of_a_siamese_network_add() -> None:
    """One set of parameters under three pictures: the gradient is the sum of what each branch alone gives."""
    rng = np.random.default_rng(6)
    net = nst.models.embedding_net(size=8, side=16, seed=3, dtype=np.float64).eval()
    pictures = [rng.random((4, 16, 16, 3)) for _ in range(3)]
    encodings = [embed(net, x).data for x in pictures]

    def gradients(branches: list[Any]) -> list[np.ndarray]:
        net.zero_grad()
        nst.ops.triplet_loss(*branches, margin=1.0).backward()
        return [np.zeros(p.shape) if p.grad is None else p.grad.copy() for p in net.parameters()]

    together = gradients([embed(net, x) for x in pictures])
    apart = [
        gradients([embed(net, x) if i == branch else encodings[i] for i, x in enumerate(pictures)])
        for branch in range(3)
    ]
    for whole, *parts in zip(together, *apart, strict=True):
        np.testing.assert_allclose(whole, sum(parts), rtol=1e-9, atol=1e-12)
        assert any(np.abs(part).max() > 0 for part in parts)


def test_embedding_net_gradients() -> None:
    rng = np.random.default_rng(7)
    net = nst.models.embedding_net(size=4, side=16, seed=1, dtype=np.float64)
    weights = rng.standard_normal((3, 4))
    report = nst.gradcheck(lambda x: nst.ops.sum(nst.ops.mul(net(x), weights)), rng.random((3, 16, 16, 3)))
    assert report.max_error < 1e-6


def test_embedding_net_is_saved_with_what_it_is(tmp_path: Path) -> None:
    net = nst.models.embedding_net(size=16, side=32, seed=4)
    net.threshold = 0.75
    net.save(tmp_path / "net.npz")
    meta = nst.weights.load(tmp_path / "net.npz").meta
    assert meta["architecture"] == "embedding_net"
    assert meta["chip"] == 32
    assert meta["encoding"] == {
        "size": 16, "norm": "l2", "distance": "euclidean", "threshold": 0.75, "chips": "face",
    }  # fmt: skip
    other = nst.models.embedding_net(weights=tmp_path / "net.npz")
    chips = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(other.encode(chips), net.encode(chips))
    np.testing.assert_allclose(np.linalg.norm(net.encode(chips), axis=1), 1, rtol=1e-6)
    assert (other.size, other.side, other.threshold) == (16, 32, 0.75)


@pytest.mark.parametrize(("size", "side"), [(0, 64), (128, 60), (128, 8), (5000, 64)])
def test_embedding_net_refuses(size: int, side: int) -> None:
    with pytest.raises(ArgumentError, match=r"^\[embedding_net\] expects a size of"):
        nst.models.embedding_net(size, side)
    net = nst.models.embedding_net()
    with pytest.raises(ShapeError, match=r"expects chips \(n, 64, 64, 3\), got \(2, 32, 32, 3\)"):
        net.encode(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(DTypeError, match="a tensor of float32, got float64"):
        net(nst.tensor(np.zeros((1, 64, 64, 3))))


def test_a_damaged_description_of_an_embedding_net_is_refused(tmp_path: Path) -> None:
    net = nst.models.embedding_net(side=16)
    net.save(tmp_path / "a.npz", chip=17)
    with pytest.raises(WeightsError, match="facts do not describe this network"):
        nst.models.embedding_net(weights=tmp_path / "a.npz")
    net.save(tmp_path / "b.npz", encoding=None)
    with pytest.raises(WeightsError, match="facts do not describe this network"):
        nst.models.embedding_net(weights=tmp_path / "b.npz")
    nst.nn.Affine(3).save(tmp_path / "c.npz")
    with pytest.raises(WeightsError, match="expects weights of embedding_net, got affine"):
        nst.models.embedding_net(weights=tmp_path / "c.npz")


def test_the_last_layers_of_the_face_encoder_can_be_trained(tmp_path: Path) -> None:
    net = nst.models.face_encoder().unfreeze(2)
    trainable = [name for name, p in net.named_parameters() if p.requires_grad]
    assert trainable == [
        "blocks.13.conv1.weight", "blocks.13.conv1.bias", "blocks.13.conv2.weight", "blocks.13.conv2.bias",
        "projection",
    ]  # fmt: skip
    chips = np.random.default_rng(0).random((2, 150, 150, 3), np.float32)
    features = net.features(chips, 2)
    z = net.finish(features, 2)
    np.testing.assert_array_equal(z.data, net.encode(chips))
    nst.ops.sum(z).backward()
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())
    net.threshold = 0.5
    net.save(tmp_path / "tuned.npz")
    assert nst.models.face_encoder(tmp_path / "tuned.npz").threshold == 0.5
    for wrong in (0, 16):
        with pytest.raises(ArgumentError, match="expects 1 to 15 last layers"):
            net.unfreeze(wrong)
