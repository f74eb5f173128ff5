"""Receptive fields: the known sizes, and any network's against the pixels that really change a unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import models, nn, ops
from nstcore.errors import ArgumentError, DTypeError, ShapeError
from nstcore.visualize import layer_names, receptive_field, receptive_fields

VGG16 = {
    "conv1_1": 3, "conv1_2": 5, "conv2_1": 10, "conv2_2": 14, "conv3_1": 24, "conv3_2": 32, "conv3_3": 40,
    "conv4_1": 60, "conv4_2": 76, "conv4_3": 92, "conv5_1": 132, "conv5_2": 164, "conv5_3": 196,
}  # fmt: skip
STRIDES = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16}


def test_vgg16() -> None:
    """The sizes that the literature gives, of a network that nobody wrote a list for."""
    fields = receptive_fields(models.vgg16(), list(VGG16))
    assert {name: field.size for name, field in fields.items()} == {name: (n, n) for name, n in VGG16.items()}
    for name, field in fields.items():
        stride = STRIDES[int(name[4])]
        assert field.stride == (stride, stride)
        # A field lies around the centre of the windows below it, which pools of an even size shift by half a pixel.
        assert field.start[0] == -(VGG16[name] - stride) // 2


@pytest.mark.parametrize(("variant", "start"), [("original", 0), ("torchvision", -2)])
def test_alexnet(variant: Any, start: int) -> None:
    net = models.AlexNet(variant)
    fields = receptive_fields(net, [f"conv{i}" for i in range(1, 6)])
    assert [field.size[0] for field in fields.values()] == [11, 51, 99, 131, 163]
    assert [field.stride[0] for field in fields.values()] == [4, 8, 16, 16, 16]
    assert [field.start[0] - start for field in fields.values()] == [0, -16, -32, -48, -64]


def support(net: Any, layer: str, size: tuple[int, int], place: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows and columns of the pixels that change a unit, found by changing each one."""
    rng = np.random.default_rng(0)
    picture = rng.random((1, *size, 3))
    from nstcore.visualize.network import activations

    def unit(x: np.ndarray) -> np.ndarray:
        with nst.no_grad():
            return activations(net, nst.Tensor(x), layer).data[:, place[0], place[1]]

    before = unit(picture)
    rows, columns = [], []
    for row in range(size[0]):
        changed = picture.copy()
        changed[:, row] += 10 * (1 + rng.random((size[1], 3)))
        rows += [row] * bool((unit(changed) != before).any())
    for column in range(size[1]):
        changed = picture.copy()
        changed[:, :, column] += 10 * (1 + rng.random((size[0], 3)))
        columns += [column] * bool((unit(changed) != before).any())
    return min(rows), min(columns), max(rows) + 1, max(columns) + 1


def clipped(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    return max(0, box[0]), max(0, box[1]), min(size[0], box[2]), min(size[1], box[3])


def random_stack(rng: np.random.Generator, size: tuple[int, int]) -> tuple[nn.Module, str, tuple[int, ...]]:
    """Up to four convolutions and pools of random geometry, the last one's name, and the shape of what it gives."""
    while True:
        parts: list[nn.Module] = []
        channels = 3
        for _ in range(rng.integers(1, 5)):
            kernel = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
            stride = (int(rng.integers(1, kernel[0] + 1)), int(rng.integers(1, kernel[1] + 1)))
            if rng.random() < 0.5:
                padding = (int(rng.integers(0, 4)), int(rng.integers(0, 4)))
                parts.append(nn.Conv2d(channels, 3, kernel, stride=stride, padding=padding, rng=rng))
            else:
                pool = nn.MaxPool2d if rng.random() < 0.5 else nn.AvgPool2d
                parts.append(pool(kernel, stride, ceil_mode=bool(rng.random() < 0.5)))
        net = nn.Sequential(*parts).astype("float64")
        try:
            with nst.no_grad():
                return net, f"parts.{len(parts) - 1}", net(nst.Tensor(np.zeros((1, *size, 3)))).shape
        except ShapeError:
            continue  # the picture is too small for it


@pytest.mark.parametrize("seed", range(40))
def test_any_stack_of_layers(seed: int) -> None:
    """The box is exactly the pixels whose change a unit feels, inside of the picture and at its border."""
    rng, size = np.random.default_rng(seed), (31, 36)
    net, layer, shape = random_stack(rng, size)
    place = int(rng.integers(shape[1])), int(rng.integers(shape[2]))
    low = clipped(receptive_field(net, layer, size).box(*place), size)
    if low[0] >= low[2] or low[1] >= low[3]:
        pytest.skip("this unit sees nothing but padding")
    found = support(net, layer, size, place)
    if not any(isinstance(part, nn.MaxPool2d) for part in net.parts):  # type: ignore[attr-defined]
        assert found == low
        return
    # Of a max pool's window only the winner is felt, here that of a random picture.
    assert min(found[0] - low[0], found[1] - low[1], low[2] - found[2], low[3] - found[3]) >= 0


class Branches(nn.Module):
    """A short and a long way to one sum, as in a residual block, the shortcut shifted by padding below."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.long = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2, rng=rng), nn.Conv2d(4, 4, 3, padding=1, rng=rng))

    def forward(self, x: Any) -> Any:
        change = self.long(x)
        short = ops.avg_pool2d(x[..., :2, :][..., :1, :], (2, 1), (2, 1))
        short = ops.pad(ops.avg_pool2d(x, 2), [(0, 0), (0, 0), (0, 0), (0, 1)])
        return change + short[:, : change.shape[1], : change.shape[2]]


def test_branches_take_the_field_that_holds_both() -> None:
    net = Branches().astype("float64")
    field = receptive_field(net, "output", (33, 37))
    assert (field.size, field.stride, field.start) == ((9, 9), (2, 2), (-2, -2))
    assert support(net, "output", (33, 37), (6, 7)) == field.box(6, 7)


def test_the_face_encoder() -> None:
    """dlib's blocks: 7×7/2, a pool 3/2, then two 3×3 a block; a block that halves begins with stride 2."""
    net = models.face_encoder()
    size, stride, expected = 7, 2, {}
    size, stride = size + 2 * stride, 2 * stride
    for number, (_, halves) in enumerate(nn_blocks()):
        size += 2 * stride
        stride *= 1 + halves
        size += 2 * stride
        expected[f"blocks.{number}"] = (size, stride)
    found = receptive_fields(net, list(expected))
    assert {name: (field.size[0], field.stride[0]) for name, field in found.items()} == expected


def nn_blocks() -> tuple[tuple[int, bool], ...]:
    from nstcore.models.face_layout import BLOCKS

    return BLOCKS


def test_slices_and_concatenation() -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            left = x[:, 3:, 1::2]
            return ops.concat([left, ops.relu(left) * 2.0], 3)

    field = receptive_field(Net(), "output", (12, 12))
    assert (field.size, field.stride, field.start) == ((1, 1), (1, 2), (3, 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x - ops.mean(x, axis=(1, 2), keepdims=True),
        lambda x: ops.transpose(x, (0, 2, 1, 3)),
        lambda x: ops.concat([x, x], 1),
        lambda x: x[:, ::-1],
    ],
)
def test_what_mixes_places_sees_the_whole_picture(change: Any) -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return change(ops.avg_pool2d(x, 2))

    field = receptive_field(Net(), "output", (12, 18))
    assert (field.size, field.stride) == ((12, 18), (0, 0))
    assert field.box(3, 2) == (0, 0, 12, 18)


def test_one_place_that_goes_to_all() -> None:
    """A gate (n, 1, 1, c) has the picture's stride, but every place of the map takes it."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            self.gate = nn.Conv2d(3, 3, 8, rng=np.random.default_rng(0))

        def forward(self, x: Any) -> Any:
            return x * self.gate(x)

    net = Gate().astype("float64")
    assert receptive_field(net, "gate", (8, 8)).stride == (1, 1)
    field = receptive_field(net, "output", (8, 8))
    assert (field.size, field.stride) == ((8, 8), (0, 0))
    assert support(net, "output", (8, 8), (5, 2)) == field.box(5, 2)


def test_padding_that_depends_on_the_size() -> None:
    """``same`` with stride 2 pads one row above for an odd height, none for an even one."""
    net = nn.Sequential(nn.Conv2d(3, 2, 3, stride=2, padding="same"))
    assert receptive_field(net, "parts.0", (9, 10)).start == (-1, 0)


def test_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Any) -> Any:
            return self.conv(self.conv(x))

    assert layer_names(Twice(), (8, 8)) == ["conv", "conv#2", "output"]
    assert receptive_fields(Twice(), ["conv", "conv#2"], (8, 8))["conv#2"].size == (5, 5)
    assert layer_names(models.vgg16())[:3] == ["conv1_1", "conv1_2", "pool1"]


def test_a_dense_layer_of_another_size_leaves_the_layers_below_it() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.conv, self.dense = nn.Conv2d(3, 2, 3, rng=rng), nn.Linear(8, 2, rng=rng)

        def forward(self, x: Any) -> Any:
            y = self.conv(x)
            return self.dense(ops.reshape(y, (y.shape[0], -1)))

    assert layer_names(Net(), (4, 4)) == layer_names(Net(), (9, 9)) == ["conv"]
    assert receptive_field(Net(), "conv", (9, 9)).size == (3, 3)


def test_errors() -> None:
    with pytest.raises(ArgumentError, match=r"no layer 'conv9_9'; it has conv1_1, conv1_2, pool1"):
        receptive_field(models.vgg16(), "conv9_9")
    with pytest.raises(DTypeError, match=r"expects a network \(nn.Module\), got int"):
        receptive_field(3, "conv1_1")
    with pytest.raises(ShapeError, match="at least 16 x 16"):
        receptive_field(models.vgg16(), "conv5_1", (8, 8))
    with pytest.raises(ArgumentError, match="layers as a list of names"):
        receptive_fields(models.vgg16(), "conv1_1")
