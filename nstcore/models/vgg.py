"""VGG-16 and VGG-19 without their dense layers: the features that style transfer and patches look at."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from nstcore import ops, weights
from nstcore.autograd import Tensor
from nstcore.errors import ArgumentError, ShapeError, WeightsError
from nstcore.models._input import as_tensor, standardized
from nstcore.models.vgg_layout import BLOCKS, KERNEL, convolutions
from nstcore.nn.layers import Conv2d
from nstcore.nn.module import Module

Pooling = Literal["max", "avg"]
CAFFE = {"color_order": "BGR", "scale": 255.0, "mean": (103.939, 116.779, 123.68), "std": (1.0, 1.0, 1.0)}


class VGG(Module):
    """The convolutions of VGG-16 or VGG-19, frozen, with max (the original) or average pooling between the blocks.

    Layers are named ``conv1_1`` … ``conv5_3`` (or ``_4``), each after its ReLU, and ``pool1`` … ``pool5``.
    Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
    """

    def __init__(
        self,
        architecture: str,
        preprocessing: Mapping[str, Any] = CAFFE,
        pooling: Pooling = "max",
        dtype: DTypeLike = np.float32,
    ) -> None:
        if architecture not in BLOCKS:
            raise ArgumentError(f"[vgg] expects one of {', '.join(BLOCKS)}, got {architecture!r}")
        if pooling not in ("max", "avg"):
            raise ArgumentError(f"[vgg] expects pooling 'max' or 'avg', got {pooling!r}")
        self.architecture, self.pooling = architecture, pooling
        self.convolutions = {
            name: Conv2d(inputs, outputs, KERNEL, padding=1, activation="relu")
            for name, inputs, outputs in convolutions(architecture)
        }
        self.freeze().astype(dtype)
        self._preprocessing = preprocessing

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write the weights so that `vgg16` or `vgg19` can read them; `meta` is stored beside them."""
        super().save(path, **{"architecture": self.architecture, "preprocessing": dict(self._preprocessing), **meta})

    def named_parameters(self, prefix: str = "") -> Any:
        """Every parameter under its layer's name, such as ``conv1_1.weight``."""
        for name, layer in self.convolutions.items():
            yield from layer.named_parameters(f"{prefix}{name}.")

    @property
    def layers(self) -> list[str]:
        """Names of the layers that `features` gives, from the picture upwards."""
        names: list[str] = []
        for block, (count, _) in enumerate(BLOCKS[self.architecture], start=1):
            names += [f"conv{block}_{i}" for i in range(1, count + 1)] + [f"pool{block}"]
        return names

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the weights and the features."""
        return self.convolutions["conv1_1"].weight.dtype

    def features(self, images: Any, layers: Sequence[str]) -> dict[str, Any]:
        """Activations of `layers`, each (n, h', w', c); nothing above the highest of them is computed.

        images: RGB in [0, 1], (h, w, 3) or (n, h, w, 3), float or uint8 (read as 0–255); or a `Tensor` (n, h, w, 3),
        through which gradients flow. Gives tensors for a tensor, else arrays.

        Raises `ArgumentError` for an unknown layer (the message lists them), `ShapeError` when a picture is too small
        for a layer, `DTypeError` for a tensor of another type than the weights, `ImageError` for values outside [0, 1].
        """
        found = dict(self.walk(images, layers))
        return {name: found[name] if isinstance(images, Tensor) else found[name].data for name in layers}

    def walk(self, images: Any, layers: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Name and activation of each of `layers`, from the picture upwards, as soon as it is computed.

        What the caller lets go of is gone before the next layers are computed, unless a gradient needs it; and a loss
        that is taken of an activation at once is differentiated when the pass back arrives there, not before.
        Arguments and errors as `features`; always gives tensors.
        """
        wanted = self.check_layers(layers)
        names = self.layers[: max((self.layers.index(n) for n in wanted), default=-1) + 1]
        x, least = self._prepare(images), self.least_side(layers)
        if min(x.shape[1:3]) < least:
            raise ShapeError(
                f"[{self.architecture}] expects pictures of at least {least} x {least} for {', '.join(layers)}, "
                f"got {x.shape[1]} x {x.shape[2]} (height x width)"
            )
        pooled = False
        for name, following in itertools.zip_longest(names, names[1:], fillvalue=""):
            if name in self.convolutions:  # with its pool in one pass where nobody wants what lies between them
                pooled = self.pooling == "max" and following.startswith("pool") and name not in wanted
                x = self.convolutions[name](x, pooled)
            elif not pooled:
                x = self._pool(x)
            if name in wanted:
                yield name, x

    def forward(self, images: Any) -> Any:
        """The last layer's activations."""
        return self.features(images, self.layers[-1:])[self.layers[-1]]

    def least_side(self, layers: Sequence[str]) -> int:
        """The height and width in pixels that a picture needs at least for `layers`: every pool halves it."""
        highest = max((self.layers.index(name) for name in layers), default=-1)
        return int(2 ** sum(name.startswith("pool") for name in self.layers[: highest + 1]))

    def check_layers(self, layers: Sequence[str]) -> set[str]:
        """The names as a set; `ArgumentError`, listing the layers there are, when one is unknown."""
        if isinstance(layers, str) or not isinstance(layers, Iterable):
            raise ArgumentError(f"[{self.architecture}] expects layers as a list of names, got {layers!r}")
        unknown = [name for name in layers if name not in self.layers]
        if unknown:
            raise ArgumentError(f"[{self.architecture}] has no layer {unknown[0]!r}; it has {', '.join(self.layers)}")
        return set(layers)

    def _prepare(self, images: Any) -> Any:
        """RGB in [0, 1] to what the weights were trained on."""
        return standardized(as_tensor(self.architecture, images, self.dtype), self._preprocessing)

    def _pool(self, x: Tensor) -> Any:
        return ops.max_pool2d(x, 2) if self.pooling == "max" else ops.avg_pool2d(x, 2)


def vgg16(weights: str | Path | None = None, *, pooling: Pooling = "max", dtype: DTypeLike = np.float32) -> VGG:
    """VGG-16 with the embedded ImageNet weights, or those of an ``.npz`` that ``nst weights convert`` made.

    weights: path, or None for the embedded float16 file. pooling: "max" or "avg". dtype: float32 or float64.
    Raises `WeightsError` when the file is missing, damaged or of another network.
    """
    return _load("vgg16", weights, pooling, dtype)


def vgg19(weights: str | Path | None = None, *, pooling: Pooling = "max", dtype: DTypeLike = np.float32) -> VGG:
    """VGG-19 with the weights of an ``.npz`` that ``nst weights convert`` made; none are embedded.

    The arguments and errors are those of `vgg16`.
    """
    return _load("vgg19", weights, pooling, dtype)


def _load(architecture: str, path: str | Path | None, pooling: Pooling, dtype: DTypeLike) -> VGG:
    if path is None and architecture not in weights.available():
        raise WeightsError(
            f"[{architecture}] no weights are embedded; convert a file with "
            f"'nst weights convert FILE -o {architecture}.npz' "
            f"and pass its path"
        )
    file = weights.load(weights.embedded(architecture) if path is None else path)
    if file.architecture != architecture or file.preprocessing is None:
        raise WeightsError(f"[{architecture}] {file.path}: expects weights of {architecture}, got {file.architecture}")
    net = VGG(architecture, file.preprocessing, pooling, dtype)
    net.load_state_dict(file.arrays, str(file.path))
    return net
