"""Projections: by their definition in matrices, against finite differences, and of a part against the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import models, nn, ops
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, ShapeError
from nstcore.images import load
from nstcore.ops import relu_backward
from nstcore.visualize import deconv, occlusion
from nstcore.visualize.deconv import cut, prepare
from nstcore.visualize.network import activations

METHODS = ("deconv", "guided", "gradient")
SIZE = (6, 7, 3)


def matrix(function: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A linear function of pictures as a matrix (results, inputs), one unit picture at a time."""
    columns = [np.asarray(function(e.reshape(1, *shape))).ravel() for e in np.eye(int(np.prod(shape)))]
    return np.stack(columns, axis=1)


def convolution(layer: nn.Conv2d) -> Any:
    """The layer without its bias and its ReLU, by plain sums over taps."""
    w, pad = layer.weight.data, layer.padding

    def run(x: np.ndarray) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        p, q = (padded.shape[i] - w.shape[i] + 1 for i in (1, 2))
        taps = [(r, s) for r in range(w.shape[1]) for s in range(w.shape[2])]
        return sum(padded[:, r : r + p, s : s + q] @ w[:, r, s].T for r, s in taps)

    return run


def two_layers(activation: str | None) -> nn.Sequential:
    rng = np.random.default_rng(5)
    first = nn.Conv2d(3, 4, 3, padding=1, activation=activation, rng=rng)  # type: ignore[arg-type]
    second = nn.Conv2d(4, 5, 3, padding=0, activation=activation, rng=rng)  # type: ignore[arg-type]
    for layer in (first, second):
        layer.bias.data[:] = rng.standard_normal(len(layer.bias.data)) / 4
    return nn.Sequential(first, second).astype("float64")  # type: ignore[return-value]


def full(found: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A projection laid into a picture of zeros."""
    canvas = np.zeros(shape)
    top, left, bottom, right = found.box
    rows, columns = slice(max(0, top), min(bottom, shape[0])), slice(max(0, left), min(right, shape[1]))
    canvas[rows, columns] = found.values[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    assert np.count_nonzero(canvas) == np.count_nonzero(found.values), "values outside of the picture"
    return canvas


def setting(activation: str | None) -> dict[str, Any]:
    """A network of two layers, a picture, the matrices of the layers, and all values on the way up."""
    net = two_layers(activation)
    x = np.random.default_rng(2).random(SIZE)
    one, two = (convolution(part) for part in net.parts)
    m1, m2 = matrix(one, SIZE), matrix(two, (6, 7, 4))
    z1 = one(x[None]) + net.parts[0].bias.data
    a1 = np.maximum(z1, 0) if activation else z1
    z2 = two(a1) + net.parts[1].bias.data
    return {"net": net, "x": x, "m1": m1, "m2": m2, "z1": z1, "z2": z2}


@pytest.mark.parametrize("place", [(0, 0), (1, 3), (3, 4)])
@pytest.mark.parametrize("unit", [0, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_linear_network_is_projected_by_its_transpose(place: tuple[int, int], unit: int, method: Any) -> None:
    """Without ReLUs all three are the row of the network's matrix; the deconvnet starts from the activation."""
    s = setting(None)
    e = np.zeros(s["z2"].shape)
    e[0, place[0], place[1], unit] = s["z2"][0, place[0], place[1], unit] if method == "deconv" else 1
    expected = (s["m1"].T @ (s["m2"].T @ e.ravel())).reshape(SIZE)
    found = deconv(s["net"], "parts.1", unit, s["x"], place, method)
    assert found.activation == pytest.approx(s["z2"][0, place[0], place[1], unit])
    np.testing.assert_allclose(full(found, SIZE), expected, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_relu_passes(method: Any) -> None:
    """R₁ = W₂ᵀ f₂(seed), R₀ = W₁ᵀ f₁(R₁), with f the method's own rule, written out in matrices."""
    s = setting("relu")
    a2 = np.maximum(s["z2"], 0)
    for unit in range(5):
        place = np.unravel_index(np.argmax(a2[0, :, :, unit]), a2.shape[1:3])
        seed = np.zeros(a2.shape)
        seed[0, place[0], place[1], unit] = a2[0, place[0], place[1], unit] if method == "deconv" else 1
        r1 = (s["m2"].T @ seed.ravel()).reshape(s["z1"].shape)
        passed = {"deconv": np.maximum(r1, 0), "gradient": r1 * (s["z1"] > 0)}
        passed["guided"] = np.maximum(r1, 0) * (s["z1"] > 0)
        expected = (s["m1"].T @ passed[method].ravel()).reshape(SIZE)
        found = deconv(s["net"], "parts.1", unit, s["x"], None, method)
        assert found.place == tuple(place)
        np.testing.assert_allclose(full(found, SIZE), expected, atol=1e-13)


def test_the_three_differ() -> None:
    s = setting("relu")
    values = [full(deconv(s["net"], "parts.1", 1, s["x"], None, method), SIZE) for method in METHODS]
    assert min(np.abs(a - b).max() for a, b in ((values[0], values[1]), (values[1], values[2]))) > 1e-3


def test_max_pools_unpool_to_their_switches() -> None:
    """The reconstruction of a pool's place goes to the pixel that won, and to no other."""
    net = nn.Sequential(nn.MaxPool2d(2))
    x = np.random.default_rng(0).random((4, 6, 3)).astype(np.float32)
    for place in ((0, 0), (1, 2)):
        found = deconv(net, "parts.0", 1, x, place)
        window = x[2 * place[0] : 2 * place[0] + 2, 2 * place[1] : 2 * place[1] + 2, 1]
        expected = np.zeros((2, 2, 3))
        expected[(*np.unravel_index(np.argmax(window), (2, 2)), 1)] = window.max()
        np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize("layer", ["conv2_1", "conv3_2"])
def test_the_gradient_is_that_of_the_activation(layer: str) -> None:
    net = models.vgg16(dtype=np.float64)
    photo = load(picture_path("chelsea"), size=48).astype(np.float64)
    photo = 0.1 + 0.8 * photo
    found = deconv(net, layer, 9, photo, method="gradient")
    direction = np.random.default_rng(0).standard_normal(photo.shape)
    step = 1e-7

    def value(x: np.ndarray) -> float:
        with nst.no_grad():
            return float(activations(net, nst.Tensor(x[None]), layer).data[0][found.place][9])

    slope = (value(photo + step * direction) - value(photo - step * direction)) / (2 * step)
    assert found.activation == pytest.approx(value(photo))
    assert np.sum(full(found, photo.shape) * direction) == pytest.approx(slope, rel=1e-5)


def whole_picture(net: Any, layer: str, unit: int, x: np.ndarray, place: Any, rule: Any, start: float) -> np.ndarray:
    t = nst.Tensor(x[None], requires_grad=True)
    with relu_backward(rule):
        y = activations(net, t, layer)
    seed = np.zeros(y.shape)
    seed[0, place[0], place[1], unit] = start
    y.backward(seed)
    return t.grad[0]


def networks() -> dict[str, tuple[Any, str]]:
    rng = np.random.default_rng(0)
    same = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding="same", activation="relu", rng=rng), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(4, 5, 3, stride=2, padding="same", activation="relu", rng=rng),
    ).astype("float64")  # fmt: skip
    encoder = models.face_encoder(dtype=np.float64)
    return {
        "vgg": (models.vgg16(dtype=np.float64), "conv3_1"),
        "alexnet": (models.AlexNet(dtype=np.float64, rng=rng), "conv3"),
        "face": (encoder, "blocks.2"),
        "same padding": (same, "parts.2"),
    }


@pytest.mark.parametrize("name", ["vgg", "alexnet", "face", "same padding"])
def test_a_part_of_the_picture_gives_what_the_whole_does(name: str) -> None:
    """Only what the unit sees is computed; at borders and inside it is the same, to rounding."""
    net, layer = networks()[name]
    x = np.random.default_rng(1).random((99, 106, 3))
    _, field, values = prepare(net, layer, x)
    rules = dict(zip(METHODS, ("deconvnet", "guided", "gradient"), strict=True))
    for row, column in ((0, 0), (values.shape[0] - 1, values.shape[1] - 1), (values.shape[0] // 2, 2)):
        unit = int(np.argmax(values[row, column]))
        for method in METHODS:
            found = deconv(net, layer, unit, x, (row, column), method)  # type: ignore[arg-type]
            start = values[row, column, unit] if method == "deconv" else 1.0
            expected = whole_picture(net, layer, unit, x, (row, column), rules[method], start)
            assert found.box == field.box(row, column)
            np.testing.assert_allclose(full(found, x.shape), expected, atol=1e-9 * np.abs(expected).max())
            assert found.activation == pytest.approx(values[row, column, unit], rel=1e-9)


class Cropped(nn.Module):
    """Leaves out the first rows, so that a part of a picture has other places than the whole, or none at all."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.conv = nn.Conv2d(3, 4, 3, rng=np.random.default_rng(0))

    def forward(self, x: Any) -> Any:
        return self.conv(x[:, self.rows :])


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("method", METHODS)
def test_where_a_part_has_no_such_place_the_whole_is_used(rows: int, method: Any) -> None:
    net = Cropped(rows).astype("float64")
    x = np.random.default_rng(1).random((14, 9, 3))
    rules = dict(zip(METHODS, ("deconvnet", "guided", "gradient"), strict=True))
    for place in ((3, 2), (6, 0)):
        found = deconv(net, "conv", 2, x, place, method)
        value = float(prepare(net, "conv", x)[2][place][2])
        expected = whole_picture(net, "conv", 2, x, place, rules[method], value if method == "deconv" else 1.0)
        assert found.activation == value
        np.testing.assert_allclose(full(found, x.shape), expected, atol=1e-12)
        covered = occlusion(net, "conv", 2, x, place, window=1, stride=1)
        assert covered.activation == value
        weights = net.conv.weight.data[2]  # a pixel's square takes off what the pixel has above grey
        np.testing.assert_allclose(value - covered.values, ((x[place[0] + rows :][:3, place[1] :][:, :3] - 0.5)
                                                            * weights).sum(-1), atol=1e-12)  # fmt: skip


def test_parameters_are_left_alone() -> None:
    net = two_layers("relu")
    deconv(net, "parts.1", 0, np.random.default_rng(0).random(SIZE))
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("place", [(1.5, 2), (4, 0), (0, -1), (1,), "12", 3])
def test_a_place_is_two_whole_numbers_within_the_layer(place: Any) -> None:
    for look in (deconv, occlusion):
        with pytest.raises(ArgumentError, match=r"a place of parts\.1 from \(0, 0\) to \(3, 4\), got"):
            look(two_layers("relu"), "parts.1", 0, np.zeros(SIZE), place)


def test_the_rule_holds_only_inside() -> None:
    x = nst.Tensor(np.array([[1.0, -1.0]]), requires_grad=True)
    with pytest.raises(RuntimeError), relu_backward("deconvnet"):
        raise RuntimeError
    ops.relu(x).backward(np.array([[-1.0, 1.0]]))
    np.testing.assert_array_equal(x.grad, [[-1.0, 0.0]])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("gradient", [-2, 3, 0, 0]), ("deconvnet", [0, 3, 0, 5]), ("guided", [0, 3, 0, 0]), ("straight", [-2, 3, -4, 5])],
)
def test_rules_of_the_op_and_of_the_fused_one(rule: Any, expected: list[float]) -> None:
    """Of values 1, 1, −1, −1 and what comes back −2, 3, −4, 5."""
    values, back = np.array([1.0, 1, -1, -1]).reshape(1, 1, 4, 1), np.array([-2.0, 3, -4, 5]).reshape(1, 1, 4, 1)
    one, moments = np.ones(1), np.array([[0.0], [1.0]])
    for function in (
        ops.relu,
        lambda x: ops.conv2d(x, np.ones((1, 1, 1, 1)), activation="relu"),
        lambda x: ops.batch_norm(x, one, 0 * one, moments, 1e-300, "relu"),
    ):
        for backend in nst.backend.HOST_BACKENDS:
            x = nst.Tensor(values.copy(), requires_grad=True)
            with nst.use_backend(backend):
                with relu_backward(rule):
                    y = function(x)
                y.backward(back)
            np.testing.assert_array_equal(y.data.ravel(), [1, 1, 0, 0])
            np.testing.assert_array_equal(x.grad.ravel(), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_normalisation_with_its_relu_and_pool_is_the_three_of_them(method: Any) -> None:
    """Fused or one after the other: what comes back is the same."""
    rng = np.random.default_rng(3)
    first, last = nn.Conv2d(3, 4, 3, padding=1, rng=rng), nn.Conv2d(4, 4, 3, padding=1, rng=rng)

    class Apart(nn.Module):
        def __init__(self, norm: nn.BatchNorm) -> None:
            self.norm = norm

        def forward(self, x: Any) -> Any:
            return ops.max_pool2d(ops.relu(self.norm(x)), 2)

    running = np.stack([rng.standard_normal(4), 0.5 + rng.random(4)]).astype(np.float32)
    fused, alone = nn.BatchNorm(4, activation="relu", pool=True), nn.BatchNorm(4)
    fused.running[:] = alone.running[:] = running
    x = rng.random((8, 10, 3))
    found = [
        deconv(nn.Sequential(first, norm, last).astype("float64"), "parts.2", 1, x, (2, 3), method).values
        for norm in (fused, Apart(alone))
    ]
    assert np.abs(found[0]).max() > 0
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-12)


def test_unknown_rule() -> None:
    with pytest.raises(ArgumentError, match="one of gradient, deconvnet, guided"), relu_backward("x"):  # type: ignore[arg-type]
        pass


def test_cut_outside_and_partly() -> None:
    picture = np.arange(12.0).reshape(3, 4, 1)
    assert (cut(picture, (-9, -9, -5, -5)) == 0).all()
    np.testing.assert_array_equal(
        cut(picture, (-1, 2, 2, 6), fill=-1)[:, :, 0], [[-1] * 4, [2, 3, -1, -1], [6, 7, -1, -1]]
    )
    np.testing.assert_array_equal(cut(picture, (11, 22, 13, 24), origin=(10, 20))[:, :, 0], [[6, 7], [10, 11]])


def test_errors() -> None:
    net, x = two_layers("relu"), np.zeros(SIZE)
    for arguments, words in (
        (("parts.7", 0, x), "no layer 'parts.7'"),
        (("parts.1", 5, x), "from 0 to 4, got 5"),
        (("parts.1", -1, x), "from 0 to 4, got -1"),
        (("parts.1", True, x), "from 0 to 4, got True"),
        (("parts.1", 0, x, (4, 0)), r"a place of parts.1 from \(0, 0\) to \(3, 4\), got \(4, 0\)"),
        (("parts.1", 0, x, 3), "a place of parts.1"),
        (("parts.1", 0, x, None, "lrp"), "method deconv, guided, gradient, got 'lrp'"),
    ):
        with pytest.raises(ArgumentError, match=words):
            deconv(net, *arguments)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="expects one picture"):
        deconv(net, "parts.1", 0, np.zeros((2, *SIZE)))


class TestOcclusion:
    def test_a_linear_unit_loses_what_the_square_covers(self) -> None:
        """a(x) − a(x covered) is the sum of the unit's weights times what the pixels lose."""
        s = setting(None)
        row = s["m2"] @ s["m1"]
        place, unit = (1, 2), 3
        weights = row.reshape(*s["z2"].shape[1:], *SIZE)[place[0], place[1], unit]
        found = occlusion(s["net"], "parts.1", unit, s["x"], place, window=(2, 3), stride=(1, 2), fill=0.25)
        for (top, left), value in zip(found.corners.reshape(-1, 2), found.values.ravel(), strict=True):
            part = np.s_[top : top + 2, left : left + 3]
            expected = found.activation - np.sum(weights[part] * (s["x"][part] - 0.25))
            assert value == pytest.approx(expected)

    def test_the_drop_is_where_the_unit_looks(self) -> None:
        """A unit that sees one bright spot: covering it alone lowers the activation."""
        net = nn.Sequential(nn.Conv2d(3, 1, 5, activation="relu")).astype("float64")
        net.parts[0].weight.data[0, 3, 1] = 1  # type: ignore[attr-defined]
        x = np.full((9, 9, 3), 0.2)
        x[5, 3] = 1.0
        found = occlusion(net, "parts.0", 0, x, window=1, fill=0.0)
        assert found.place == (2, 2)
        drop = found.drop(9, 9)
        assert np.unravel_index(np.argmax(drop), drop.shape) == (5, 3)
        assert drop[5, 3] == pytest.approx(3.0)
        assert np.count_nonzero(np.abs(drop) > 1e-12) == 1

    def test_whole_and_part_agree_in_a_deep_network(self) -> None:
        net = models.vgg16(dtype=np.float64)
        photo = load(picture_path("coffee"), size=72).astype(np.float64)
        found = occlusion(net, "conv3_1", 12, photo, window=8, stride=8)
        for (top, left), value in list(zip(found.corners.reshape(-1, 2), found.values.ravel(), strict=True))[::4]:
            covered = photo.copy()
            covered[top : top + 8, left : left + 8] = 0.5
            with nst.no_grad():
                expected = activations(net, nst.Tensor(covered[None]), "conv3_1").data[0][found.place][12]
            assert value == pytest.approx(expected, rel=1e-9)

    def test_errors(self) -> None:
        net, x = two_layers("relu"), np.zeros(SIZE)
        with pytest.raises(ArgumentError, match="fill from 0 to 1"):
            occlusion(net, "parts.1", 0, x, fill=2)
        with pytest.raises(ArgumentError, match="window of one or two whole numbers"):
            occlusion(net, "parts.1", 0, x, window=0)
        with pytest.raises(ArgumentError, match="stride of one or two whole numbers"):
            occlusion(net, "parts.1", 0, x, stride=0)
