"""dlib's face encoder: `dlib_face_recognition_resnet_model_v1.dat`, read without dlib and with every bound checked.

An int is a control byte (low four bits: how many bytes follow, 0x80: negative) and that many little-endian bytes; a
float is two ints, mantissa and exponent of 2; a text is an int and that many bytes; a tensor is the int 2, four sizes
and raw float32; an alias of a part of a tensor is the int 1 and four sizes; a bool is the character 0 or 1. The file
lists the layers from the picture upwards, and is read as exactly that list: anything else in it is refused.
Source: dlib 19's ``serialize.h``, ``dnn/core.h`` and ``dnn/layers.h``.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from nstcore.models import face_layout as layout
from nstcore.weights.convert.source import Network, preprocessing, unreadable
from nstcore.weights.npy import Array

MAX_BYTES = 64 << 20  # the true file has 22,466,066
_MAX_VERSIONS = 1000  # version numbers before the input layer; the true file has 130
_MAX_TEXT = 100
_LICENCE = "CC0 1.0, Davis King (dlib)"


def read(path: Path) -> Network:
    """Read the encoder; its scale-and-shift layers are folded into the convolutions, in float64."""
    try:
        with open(path, "rb") as file:
            block = file.read(MAX_BYTES + 1)
        if len(block) > MAX_BYTES:
            raise ValueError(f"is larger than {MAX_BYTES} bytes, the limit for this format")
        return _network(_Stream(block))
    except (ValueError, OSError) as error:
        raise unreadable(path, str(error)) from error


class _Stream:
    """The values of a .dat, one after the other; ValueError, with the place, when one is not as it should be."""

    def __init__(self, block: bytes) -> None:
        self._block, self._at, self._layer = block, 0, "head"

    def wrong(self, problem: str) -> ValueError:
        return ValueError(f"is not dlib's face encoder, or damaged: {problem} (byte {self._at}, {self._layer})")

    def take(self, count: int) -> bytes:
        if count > len(self._block) - self._at:
            raise self.wrong(f"the file ends, {count} bytes are expected")
        self._at += count
        return self._block[self._at - count : self._at]

    def integer(self) -> int:
        control = self.take(1)[0]
        count = control & 0x0F
        if control & 0x70 or not 1 <= count <= 8:
            raise self.wrong(f"{control:#04x} begins no number")
        value = int.from_bytes(self.take(count), "little")
        return -value if control & 0x80 else value

    def real(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > 256:  # larger ones stand for infinity and NaN
            raise self.wrong("a number that is not finite")
        return float(np.float32(math.ldexp(mantissa, exponent)))

    def text(self, length: int | None = None) -> str:
        count = self.integer() if length is None else length
        if not 0 < count <= _MAX_TEXT:
            raise self.wrong(f"a name of {count} characters")
        return self.take(count).decode("latin-1")

    def expect(self, name: str, found: str | None = None) -> None:
        found = self.text() if found is None else found
        if found != name:
            raise self.wrong(f"{found!r:.60} where {name!r} is expected")
        self._layer = name

    def sizes(self, *expected: int) -> None:
        found = tuple(self.integer() for _ in expected)
        if found != expected:
            raise self.wrong(f"the numbers {found}, expected {expected}")

    def tensor(self, expected: int | None = None) -> Array:
        self.sizes(2)
        shape = [self.integer() for _ in range(4)]
        if min(shape) < 0 or (expected is not None and math.prod(shape) != expected):
            raise self.wrong(f"a tensor of sizes {shape}, expected {expected or 'any'} values")
        return np.frombuffer(self.take(4 * math.prod(shape)), "<f4")

    def alias(self, *sizes: int) -> None:
        self.sizes(1, *sizes)

    def end_layer(self) -> None:
        """Three bools and three tensors that training needs; empty in a published model."""
        if not set(self.take(3)) <= set(b"01"):
            raise self.wrong("no bool where one is expected")
        for _ in range(3):
            self.tensor()

    def end(self) -> None:
        if self._at != len(self._block):
            raise self.wrong(f"{len(self._block) - self._at} bytes too many")


def _network(file: _Stream) -> Network:
    """Read the whole file, layer by layer."""
    threshold, mean = _head(file)
    arrays: dict[str, Array] = {}
    size, stride = layout.STEM_KERNEL, layout.STEM_STRIDE
    shape = (layout.STEM_FILTERS, size, size, layout.CHANNELS)
    arrays["stem.weight"], arrays["stem.bias"] = _convolution(file, shape, stride, 0, first=True)
    _plain(file, "relu_")
    _plain(file, "max_pool_2", 3, 3, 2, 2, 0, 0)
    for index, (channels, filters, halves) in enumerate(layout.block_channels()):
        name = f"blocks.{index}"
        stride, padding = (2, 0) if halves else (1, 1)
        shape = (filters, layout.KERNEL, layout.KERNEL, channels)
        arrays[f"{name}.conv1.weight"], arrays[f"{name}.conv1.bias"] = _convolution(file, shape, stride, padding)
        _plain(file, "relu_")
        shape = (*shape[:3], filters)
        arrays[f"{name}.conv2.weight"], arrays[f"{name}.conv2.bias"] = _convolution(file, shape, 1, 1)
        if halves:
            _plain(file, "avg_pool_2", 2, 2, 2, 2, 0, 0)
        _plain(file, "add_prev_")
        _plain(file, "relu_")
    _plain(file, "avg_pool_2", 0, 0, 1, 1, 0, 0)
    arrays["projection"] = _projection(file)
    file.end()
    facts = {"size": layout.ENCODING, "norm": "none", "distance": "euclidean", "threshold": threshold}
    how = preprocessing("RGB", 255.0, mean, (256.0, 256.0, 256.0))  # dlib divides by 256, whatever the file
    return Network("dlib", layout.ARCHITECTURE, arrays, how, _LICENCE, {"encoding": facts})


def _head(file: _Stream) -> tuple[float, tuple[float, ...]]:
    """Read what stands before the first layer: the distance threshold of the loss, and the mean colour."""
    file.sizes(1)
    file.expect("loss_metric_2")
    _, threshold = file.real(), file.real()
    for _ in range(_MAX_VERSIONS):
        value = file.integer()
        if not 1 <= value <= 3:  # no version any more: the length of the input layer's name
            break
    file.expect("input_rgb_image_sized", file.text(value))
    mean = tuple(_short(file.real()) for _ in range(3))
    if min(mean) < 0 or max(mean) > 255:
        raise file.wrong(f"the mean colour {mean}")
    if not 0 < threshold < 100:
        raise file.wrong(f"the distance threshold {threshold}")
    file.sizes(layout.CHIP, layout.CHIP)
    return _short(threshold), mean


def _short(value: float) -> float:
    """Give the shortest decimal that is the same float32, as somebody once wrote it: 0.6, not 0.6000000238418579."""
    return float(str(np.float32(value)))


def _plain(file: _Stream, name: str, *sizes: int) -> None:
    """Read a layer without parameters."""
    file.expect(name)
    file.sizes(*sizes)
    file.end_layer()


def _convolution(
    file: _Stream, shape: tuple[int, int, int, int], stride: int, padding: int, first: bool = False
) -> tuple[Array, Array]:
    """Read a convolution and the scale-and-shift after it as one: weight (k, r, s, c) and bias (k,)."""
    k, r, s, c = shape
    file.expect("con_4")
    values = file.tensor(k * r * s * c + k).astype(np.float64)
    file.sizes(k, r, s, stride, stride, padding, padding)
    file.alias(k, c, r, s)
    file.alias(1, k, 1, 1)
    _rates(file)
    file.end_layer()
    if first:
        file.sizes(1)  # how many samples the input layer makes of a picture
    file.expect("affine_")
    scale, shift = file.tensor(2 * k).astype(np.float64).reshape(2, k)
    file.alias(1, k, 1, 1)
    file.alias(1, k, 1, 1)
    file.sizes(0)  # a number for each channel
    file.end_layer()
    weight = values[:-k].reshape(k, c, r, s).transpose(0, 2, 3, 1) * scale[:, None, None, None]
    return weight, values[-k:] * scale + shift


def _projection(file: _Stream) -> Array:
    """Read the last matrix, (features, numbers)."""
    inputs, outputs = layout.BLOCKS[-1][0], layout.ENCODING
    file.expect("fc_2")
    file.sizes(outputs, inputs)
    values = file.tensor(inputs * outputs)
    file.alias(inputs, outputs, 1, 1)
    file.alias(0, 0, 0, 0)
    file.sizes(1)  # without a bias
    _rates(file)
    file.end_layer()
    return values.reshape(inputs, outputs)


def _rates(file: _Stream) -> None:
    """Skip the learning rates and weight decays of a layer."""
    for _ in range(4):
        file.real()
