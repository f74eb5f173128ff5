"""VGG-16 against an independent computation: plain NumPy in float64, written here, and numbers of PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import nstcore as nst
from nstcore import models, weights
from nstcore.demo import picture_path
from nstcore.errors import ArgumentError, DTypeError, ImageError, ShapeError, WeightsError

Array = NDArray[Any]

STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT_LAYER = "conv4_2"
DEPTHS = (2, 2, 3, 3, 3)


class Plain:
    """VGG-16 from first principles: correlations as sums over nine shifted pictures, one (h, w, c) at a time."""

    def __init__(self, path: Path, pooling: str = "max") -> None:
        with np.load(path) as file:
            self.arrays = {key: file[key].astype(np.float64) for key in file if key.startswith("conv")}
        self.pooling = pooling

    def features(self, rgb: Array) -> dict[str, Array]:
        """rgb: (h, w, 3) in [0, 1]."""
        a = 255 * rgb[:, :, [2, 1, 0]].astype(np.float64) - [103.939, 116.779, 123.68]
        found = {"input": a}
        for block, depth in enumerate(DEPTHS, start=1):
            for i in range(1, depth + 1):
                name = f"conv{block}_{i}"
                w, b = self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"]
                taps = (shifted(a, r - 1, s - 1) @ w[:, r, s].T for r in range(3) for s in range(3))
                a = found[name] = np.maximum(sum(taps) + b, 0).reshape(*a.shape[:2], -1)
            a = found[f"pool{block}"] = self._windows(a).max(0) if self.pooling == "max" else self._windows(a).mean(0)
        return found

    def gradient(self, found: Mapping[str, Array], seeds: Mapping[str, Array]) -> Array:
        """∂J/∂rgb from ∂J/∂a of some layers, by the chain rule backwards through `found`."""
        names = list(found)[1:]
        grad: Array = np.zeros_like(found[names[-1]])
        for name, below in reversed(list(zip(names, list(found), strict=False))):
            grad = grad + seeds.get(name, 0)
            if name.startswith("pool"):
                grad = self._unpool(found[below], found[name], grad)
                continue
            grad = grad * (found[name] > 0)
            w = self.arrays[f"{name}.weight"]
            taps = (shifted(grad, 1 - r, 1 - s) @ w[:, r, s] for r in range(3) for s in range(3))
            grad = np.asarray(sum(taps)).reshape(found[below].shape)
        return 255 * grad[:, :, [2, 1, 0]]

    @staticmethod
    def _windows(a: Array) -> Array:
        """The four pixels of each 2 x 2 window, row by row: (4, h // 2, w // 2, c)."""
        h, w = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
        return np.stack([a[i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)])

    def _unpool(self, a: Array, pooled: Array, grad: Array) -> Array:
        back = np.zeros_like(a)
        h, w = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
        taken = np.zeros(pooled.shape, bool)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            if self.pooling == "avg":
                back[i:h:2, j:w:2] = grad / 4
                continue
            wins = (a[i:h:2, j:w:2] == pooled) & ~taken
            back[i:h:2, j:w:2] = grad * wins
            taken |= wins
        return back


def shifted(a: Array, down: int, right: int) -> Array:
    """a[i + down, j + right] for every (i, j), 0 outside, as a matrix (h w, c)."""
    h, w, c = a.shape
    padded = np.pad(a, ((1, 1), (1, 1), (0, 0)))
    return padded[1 + down : 1 + down + h, 1 + right : 1 + right + w].reshape(h * w, c)


def gram(a: Array) -> Array:
    flat = a.reshape(-1, a.shape[-1])
    return flat.T @ flat


def plain_costs(found: Mapping[str, Array], target: Mapping[str, Array]) -> tuple[dict[str, float], dict[str, Array]]:
    """J_content and each J_style against the other picture, and the gradient of their sum for each layer."""
    difference = found[CONTENT_LAYER] - target[CONTENT_LAYER]
    costs = {"content": 0.5 * float(np.sum(difference**2))}
    seeds: dict[str, Array] = {CONTENT_LAYER: difference}
    for name in STYLE_LAYERS:
        a = found[name]
        excess = gram(a) - gram(target[name])
        scale = (2 * a.size) ** 2
        costs[name] = float(np.sum(excess**2)) / scale
        seeds[name] = 4 * (a @ excess) / scale
    return costs, seeds


def our_costs(found: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """The same costs by the functions of the package."""
    costs = {"content": nst.style.content_loss(found[CONTENT_LAYER], target[CONTENT_LAYER])}
    for name in STYLE_LAYERS:
        costs[name] = nst.style.style_loss(found[name], nst.ops.gram(target[name]))
    return costs


def relative(a: Array, b: Array) -> float:
    """‖a − b‖ / ‖b‖."""
    return float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b))


def crop(name: str, top: int, left: int) -> NDArray[np.uint8]:
    """64 x 80 pixels of a photograph in the package."""
    with Image.open(picture_path(name)) as picture:
        return np.asarray(picture.convert("RGB"))[top : top + 64, left : left + 80]


CONTENT, STYLE = crop("astronaut", 40, 170), crop("coffee", 120, 200)
PART = slice(None, 48), slice(None, 56)  # what the slower computations look at; 7 columns before the fourth pool


@functools.cache
def plain_pair(pooling: str) -> tuple[Plain, dict[str, Array], dict[str, Array]]:
    """The plain network with the embedded weights, and its features of the parts of CONTENT and STYLE."""
    plain = Plain(weights.embedded("vgg16"), pooling)
    return plain, plain.features(CONTENT[PART] / 255), plain.features(STYLE[PART] / 255)


def check_agreement(
    content: Array,
    style: Array,
    expected: Mapping[str, Array],
    targets: Mapping[str, Array],
    pooling: str,
    dtype: str,
    bound: float,
) -> None:
    """Features of every layer and all costs agree with the plain computation on the same stored weights."""
    net = models.vgg16(pooling=pooling, dtype=dtype)  # type: ignore[arg-type]
    found, other = net.features(content / 255, net.layers), net.features(style / 255, net.layers)
    for name in net.layers:
        assert found[name].dtype == dtype
        assert found[name].shape == (1, *expected[name].shape)
        assert relative(found[name][0], expected[name]) < bound, name
    costs, _ = plain_costs(expected, targets)
    for name, cost in our_costs(found, other).items():
        assert float(cost) == pytest.approx(costs[name], rel=bound), name


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-12)])
def test_features_and_costs_agree_with_plain_numpy(pooling: str, dtype: str, bound: float) -> None:
    _, expected, targets = plain_pair(pooling)
    check_agreement(CONTENT[PART], STYLE[PART], expected, targets, pooling, dtype, bound)


def gradient(content: Array, style: Array, pooling: str, dtype: str) -> Array:
    """Our gradient of J = J_content + Σ J_style for the picture."""
    net = models.vgg16(pooling=pooling, dtype=dtype)  # type: ignore[arg-type]
    layers = [CONTENT_LAYER, *STYLE_LAYERS]
    picture = nst.tensor((content / 255)[None].astype(dtype), requires_grad=True)
    costs = our_costs(net.features(picture, layers), net.features(style / 255, layers))
    sum(costs.values(), nst.tensor(np.zeros((), dtype))).backward()
    assert picture.grad is not None
    return picture.grad[0]


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_gradient_agrees_with_a_plain_reverse_pass(pooling: str) -> None:
    plain, features, targets = plain_pair(pooling)
    expected = plain.gradient(features, plain_costs(features, targets)[1])
    assert relative(gradient(CONTENT[PART], STYLE[PART], pooling, "float64"), expected) < 1e-10


def test_plain_reverse_pass_agrees_with_finite_differences() -> None:
    """The oracle of the test above is itself proven, along one direction and away from kinks by averaging."""
    plain = Plain(weights.embedded("vgg16"), "avg")
    x, target = CONTENT[:32, :32] / 255, plain.features(STYLE[:32, :32] / 255)
    costs, seeds = plain_costs(found := plain.features(x), target)
    direction = np.random.default_rng(0).standard_normal(x.shape)
    h = 1e-7
    ahead, behind = (sum(plain_costs(plain.features(x + s * h * direction), target)[0].values()) for s in (1, -1))
    slope = float(np.sum(plain.gradient(found, seeds) * direction))
    assert (ahead - behind) / (2 * h) == pytest.approx(slope, rel=1e-5)
    assert sum(costs.values()) > 0


def test_gradient_in_float32_points_the_same_way() -> None:
    found, expected = (gradient(CONTENT[PART], STYLE[PART], "max", dtype) for dtype in ("float32", "float64"))
    cosine = np.sum(found * expected) / (np.linalg.norm(found) * np.linalg.norm(expected))
    assert cosine > 0.9999


# (sum, norm, Σ a_i cos i in row-major order) of the features of CONTENT, and its costs against STYLE. Source: PyTorch
# 2.13.0 on the CPU in float64, torch.nn.functional.conv2d / max_pool2d / avg_pool2d, with the float32 weights of the
# ONNX file that NOTICE names (before their rounding to float16).
GOLDEN = {
    "max": {
        "conv1_1": (6126894.391270428, 22531.351159499507, -11350.60972645734),
        "pool1": (11657124.510264337, 61182.565743779734, 20150.59821638884),
        "conv2_2": (33032786.029867318, 169215.2849498955, -49153.17812428046),
        "conv3_3": (20243538.2783679, 166943.77168802026, -16551.234832122507),
        "conv4_2": (5749242.340668444, 62356.34491188692, 780.4787849309978),
        "conv5_1": (428621.11951063806, 11051.289303076812, -966.2071190191858),
        "pool5": (4228.369501564303, 545.5632283152403, 402.072714843869),
    },
    "avg": {
        "conv2_2": (26101435.61139881, 134754.285488338, -41951.133546026365),
        "conv4_2": (1547162.0474635258, 17600.835779953246, -2970.73902951325),
        "conv5_1": (67957.363270732, 1722.5191665124803, 277.76720783994597),
    },
}
GOLDEN_COSTS = {
    "max": {
        "content": 2612778349.5707893,
        "conv1_1": 1948908.1739298606,
        "conv2_1": 181212809.51224244,
        "conv3_1": 2795402579.3656325,
        "conv4_1": 1991014192.0424716,
        "conv5_1": 12188736.051179705,
    },
    "avg": {
        "content": 286057644.8954391,
        "conv1_1": 1948908.1739298606,
        "conv2_1": 129967521.99693538,
        "conv3_1": 594012691.363805,
        "conv4_1": 36760659.921473436,
        "conv5_1": 9611.271302094387,
    },
}


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_embedded_weights_give_the_numbers_of_pytorch_with_the_originals(pooling: str) -> None:
    net = models.vgg16(pooling=pooling)  # type: ignore[arg-type]
    found, other = net.features(CONTENT, net.layers), net.features(STYLE, net.layers)
    for name, (total, norm, waves) in GOLDEN[pooling].items():
        flat = found[name].astype(np.float64).ravel()
        assert flat.sum() == pytest.approx(total, rel=1e-3), name
        assert np.linalg.norm(flat) == pytest.approx(norm, rel=1e-3), name
        assert flat @ np.cos(np.arange(flat.size)) == pytest.approx(waves, abs=1e-3 * norm), name
    for name, cost in our_costs(found, other).items():
        assert float(cost) == pytest.approx(GOLDEN_COSTS[pooling][name], rel=1e-3), name


@pytest.mark.data
@pytest.mark.parametrize(("photo", "painting"), [("tubingen", "starry_night"), ("amber", "picasso_selfport1907")])
def test_real_photographs_agree(test_data: Path, photo: str, painting: str) -> None:
    content, style = (
        np.rint(255 * nst.images.load(test_data / "style" / path, size=160)[:64, :80]).astype(np.uint8)
        for path in (f"content/{photo}.jpg", f"paintings/{painting}.jpg")
    )
    plain = Plain(weights.embedded("vgg16"))
    expected, targets = plain.features(content / 255), plain.features(style / 255)
    check_agreement(content, style, expected, targets, "max", "float32", 1e-5)
    slope = plain.gradient(expected, plain_costs(expected, targets)[1])
    assert relative(gradient(content, style, "max", "float64"), slope) < 1e-5


def test_layers_are_named_from_the_picture_upwards() -> None:
    net = models.VGG("vgg19")
    assert net.layers[:4] == ["conv1_1", "conv1_2", "pool1", "conv2_1"]
    assert net.layers[-3:] == ["conv5_3", "conv5_4", "pool5"]
    assert len(net.layers) == 21
    assert [name for name, _ in net.named_parameters()][:2] == ["conv1_1.weight", "conv1_1.bias"]
    assert not any(p.requires_grad for p in net.parameters())


def test_pictures_of_every_kind_give_the_same() -> None:
    net = models.vgg16()
    small = CONTENT[:32, :48]
    expected = net.features(small, ["conv2_1", "pool1"])
    assert list(expected) == ["conv2_1", "pool1"]
    assert all(isinstance(a, np.ndarray) for a in expected.values())
    floats = (small / 255).astype(np.float32)
    tensors = net.features(nst.tensor(floats[None]), ["conv2_1", "pool1"])
    batch = net.features(np.stack([small, small[::-1]]), ["conv2_1", "pool1"])
    for name, a in expected.items():
        assert isinstance(tensors[name], nst.Tensor)
        for other in (
            tensors[name].data,
            net.features(floats, [name])[name],
            net.features(small / 255, [name])[name],
            batch[name][:1],
        ):
            assert relative(other, a) < 1e-5
    np.testing.assert_array_equal(net(floats), net.features(floats, ["pool5"])["pool5"])


def test_no_layers_need_no_work() -> None:
    assert models.VGG("vgg16").features(CONTENT, []) == {}


def test_no_gradient_is_recorded_for_arrays_and_weights() -> None:
    net = models.vgg16()
    assert not net.features(nst.tensor(CONTENT[None, :16, :16] / np.float32(255)), ["conv1_1"])["conv1_1"].requires_grad


@pytest.mark.parametrize("layers", [["conv6_1"], ["conv1_1", "relu1_1"], ["conv3_4"]])
def test_an_unknown_layer_gets_the_list(layers: Any) -> None:
    with pytest.raises(
        ArgumentError, match=r"\[vgg16\] has no layer .*; it has conv1_1, conv1_2, pool1, .* conv5_3, pool5$"
    ):
        models.VGG("vgg16").features(CONTENT, layers)


@pytest.mark.parametrize("layers", ["conv1_1", None, 3])
def test_layers_are_a_list(layers: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"^\[vgg16\] expects layers as a list of names, got {layers!r}$"):
        models.VGG("vgg16").features(CONTENT, layers)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (
            np.zeros((15, 40, 3), np.float32),
            ShapeError,
            r"at least 16 x 16 for conv5_1, got 15 x 40 \(height x width\)",
        ),
        (np.zeros((40, 1, 3), np.float32), ShapeError, "at least 16 x 16 for conv5_1, got 40 x 1"),
        (np.zeros((32, 32), np.float32), ShapeError, r"\(h, w, 3\) or \(n, h, w, 3\), got \(32, 32\)"),
        (np.zeros((32, 32, 4), np.float32), ShapeError, r"got \(32, 32, 4\)"),
        (np.full((32, 32, 3), 1.5), ImageError, r"floats in \[0, 1\]"),
        (np.full((32, 32, 3), np.nan), ImageError, "NaN"),
        (np.zeros((32, 32, 3), np.int32), DTypeError, "uint8"),
        (nst.Tensor(np.zeros((32, 32, 3), np.float32)), ShapeError, r"a tensor \(n, h, w, 3\), got \(32, 32, 3\)"),
        (nst.Tensor(np.zeros((1, 32, 32, 3))), DTypeError, "a tensor of float32, got float64"),
        (nst.Tensor(np.zeros((1, 32, 32, 3), np.uint8)), DTypeError, "a tensor of float32, got uint8"),
    ],
)
def test_pictures_that_cannot_be_used(images: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        models.VGG("vgg16").features(images, ["conv5_1"])


def test_the_smallest_picture_for_each_block() -> None:
    net = models.VGG("vgg16")
    for block in range(1, 6):
        side = 2 ** (block - 1)
        assert net.features(np.zeros((side, side, 3)), [f"conv{block}_1"])[f"conv{block}_1"].shape[1:3] == (1, 1)
        with pytest.raises(ShapeError, match=f"at least {2 * side} x {2 * side} for pool{block}"):
            net.features(np.zeros((2 * side - 1, 2 * side, 3)), [f"pool{block}"])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: models.VGG("vgg11"), ArgumentError, "one of vgg16, vgg19, got 'vgg11'"),
        (lambda: models.VGG("vgg16", pooling="min"), ArgumentError, "pooling 'max' or 'avg', got 'min'"),  # type: ignore[arg-type]
        (lambda: models.VGG("vgg16", dtype="float16"), DTypeError, "float32 or float64, got float16"),
        (lambda: models.vgg19(), WeightsError, "no weights are embedded; convert a file"),
        (lambda: models.vgg16("/no/such.npz"), WeightsError, r"no/such\.npz"),
    ],
)
def test_networks_that_cannot_be_made(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights.save(tmp_path / "other.npz", {"w": np.zeros(3)}, {"architecture": "other"})
    with pytest.raises(WeightsError, match=r"other\.npz: expects weights of vgg16, got other"):
        models.vgg16(tmp_path / "other.npz")
    with pytest.raises(WeightsError, match="expects weights of vgg19, got vgg16"):
        models.vgg19(weights.embedded("vgg16"))


def test_a_saved_network_can_be_loaded_again(tmp_path: Path) -> None:
    net = models.vgg16()
    net.save(tmp_path / "copy.npz", source="a copy")
    again = models.vgg16(tmp_path / "copy.npz")
    found = [n.features(CONTENT[:16, :16], ["conv3_1"])["conv3_1"] for n in (net, again)]
    np.testing.assert_array_equal(found[0], found[1])
    assert weights.load(tmp_path / "copy.npz").preprocessing == weights.load(weights.embedded("vgg16")).preprocessing


def test_preprocessing_of_the_file_is_used(tmp_path: Path) -> None:
    """RGB with mean and deviation, the same network told in another way, gives the same features."""
    file = weights.load(weights.embedded("vgg16"))
    arrays = {key: array.astype(np.float32) for key, array in file.arrays.items()}
    arrays["conv1_1.weight"] = arrays["conv1_1.weight"][..., ::-1] * np.float32(128)
    facts = {"color_order": "RGB", "scale": 255.0, "mean": (123.68, 116.779, 103.939), "std": (128.0, 128.0, 128.0)}
    weights.save(tmp_path / "rgb.npz", arrays, {"architecture": "vgg16", "preprocessing": facts})
    expected = models.vgg16().features(CONTENT, ["conv3_1"])["conv3_1"]
    found = models.vgg16(tmp_path / "rgb.npz").features(CONTENT, ["conv3_1"])["conv3_1"]
    assert relative(found, expected) < 1e-5
