"""AlexNet without its dense layers: the network whose nine patches a unit the course shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike

from nstcore import ops, weights
from nstcore.autograd import Tensor
from nstcore.errors import ArgumentError, ShapeError, WeightsError
from nstcore.models._input import as_tensor, standardized
from nstcore.models.alexnet_layout import INPUT_CHANNELS, POOL, POOL_STRIDE, STAGES, layers
from nstcore.nn.layers import Conv2d
from nstcore.nn.module import Module

Variant = Literal["original", "torchvision"]
#: what each network was trained on: ImageNet's mean colour in BGR, 0–255 (Caffe), or RGB, standardised (torchvision)
PREPROCESSING: dict[str, dict[str, Any]] = {
    "alexnet": {"color_order": "BGR", "scale": 255.0, "mean": (104.007, 116.669, 122.679), "std": (1.0, 1.0, 1.0)},
    "alexnet_torchvision": {
        "color_order": "RGB", "scale": 1.0, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)
    },
}  # fmt: skip
#: of the local response normalisation as Caffe has it: α = 1e-4 is divided by the five channels of the window
NORM = {"size": 5, "alpha": 2e-5, "beta": 0.75, "k": 1.0}


class AlexNet(Module):
    """The five convolutions of AlexNet, frozen, with the normalisations and max pools between them.

    Layers are named ``conv1`` … ``conv5``, each after its ReLU, and ``norm1``, ``norm2`` (of the original alone),
    ``pool1``, ``pool2``, ``pool5``. The original's pools count a last window that hangs over the edge, as Caffe's do.
    Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012;
    Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014 (torchvision's variant).
    """

    def __init__(
        self,
        variant: Variant = "original",
        preprocessing: Mapping[str, Any] | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        if variant not in get_args(Variant):
            raise ArgumentError(f"[alexnet] expects variant {' or '.join(get_args(Variant))}, got {variant!r}")
        self.variant = variant
        self.architecture = "alexnet" if variant == "original" else "alexnet_torchvision"
        self.convolutions: dict[str, Conv2d] = {}
        channels = INPUT_CHANNELS
        for stage in STAGES[self.architecture]:
            self.convolutions[stage.name] = Conv2d(
                channels, stage.filters, stage.kernel, stride=stage.stride, padding=stage.padding,
                activation="relu", groups=stage.groups, rng=rng,
            )  # fmt: skip
            channels = stage.filters
        self.freeze().astype(dtype)
        self._preprocessing = PREPROCESSING[self.architecture] if preprocessing is None else preprocessing

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write the weights so that `alexnet` can read them; `meta` is stored beside them."""
        super().save(path, **{"architecture": self.architecture, "preprocessing": dict(self._preprocessing), **meta})

    def named_parameters(self, prefix: str = "") -> Any:
        """Every parameter under its layer's name, such as ``conv1.weight``."""
        for name, layer in self.convolutions.items():
            yield from layer.named_parameters(f"{prefix}{name}.")

    @property
    def layers(self) -> list[str]:
        """Names of the layers that `features` gives, from the picture upwards."""
        return layers(self.architecture)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the weights and the features."""
        return self.convolutions["conv1"].weight.dtype

    def features(self, images: Any, layers: Sequence[str]) -> dict[str, Any]:
        """Activations of `layers`, each (n, h', w', c); nothing above the highest of them is computed.

        images: RGB in [0, 1], (h, w, 3) or (n, h, w, 3), float or uint8 (read as 0–255); or a `Tensor` (n, h, w, 3),
        through which gradients flow. Gives tensors for a tensor, else arrays. The original was trained on 227 × 227.

        Raises `ArgumentError` for an unknown layer (the message lists them), `ShapeError` when a picture is too small
        for a layer, `DTypeError` for a tensor of another type than the weights, `ImageError` for values outside [0, 1].
        """
        found = dict(self.walk(images, layers))
        return {name: found[name] if isinstance(images, Tensor) else found[name].data for name in layers}

    def walk(self, images: Any, layers: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Name and activation of each of `layers`, from the picture upwards, as soon as it is computed.

        Arguments and errors as `features`; always gives tensors.
        """
        if isinstance(layers, str) or not isinstance(layers, Iterable):
            raise ArgumentError(f"[{self.architecture}] expects layers as a list of names, got {layers!r}")
        unknown = [name for name in layers if name not in self.layers]
        if unknown:
            raise ArgumentError(f"[{self.architecture}] has no layer {unknown[0]!r}; it has {', '.join(self.layers)}")
        wanted = set(layers)
        names = self.layers[: max((self.layers.index(n) for n in wanted), default=-1) + 1]
        x = self._prepare(images)
        for name in names:
            try:
                x = self._apply(name, x)
            except ShapeError as error:
                got = f"{images.shape[-3]} x {images.shape[-2]}"
                raise ShapeError(
                    f"[{self.architecture}] expects larger pictures for {name}, got {got} (height x width)"
                ) from error
            if name in wanted:
                yield name, x

    def forward(self, images: Any) -> Any:
        """The last layer's activations."""
        return self.features(images, self.layers[-1:])[self.layers[-1]]

    def _apply(self, name: str, x: Tensor) -> Any:
        if name in self.convolutions:
            return self.convolutions[name](x)
        if name.startswith("norm"):
            return ops.local_response_norm(x, **NORM)  # type: ignore[arg-type]
        return ops.max_pool2d(x, POOL, POOL_STRIDE, ceil_mode=self.variant == "original")

    def _prepare(self, images: Any) -> Any:
        """RGB in [0, 1] to what the weights were trained on."""
        return standardized(as_tensor(self.architecture, images, self.dtype), self._preprocessing)


def alexnet(weights: str | Path | None = None, *, dtype: DTypeLike = np.float32) -> AlexNet:
    """AlexNet, the original or torchvision's, with the weights of an ``.npz`` that ``nst weights convert`` made.

    weights: path; the file says which of the two it is. None is embedded: without a path, or for one that is missing,
    damaged or of another network, raises `WeightsError`. For random weights: ``models.AlexNet(variant, rng=...)``.
    dtype: float32 or float64.
    """
    return _load(weights, dtype)


def _load(path: str | Path | None, dtype: DTypeLike) -> AlexNet:
    if path is None:
        raise WeightsError(
            "[alexnet] no weights are embedded; convert a file with 'nst weights convert FILE -o alexnet.npz' "
            "and pass its path"
        )
    file = weights.load(path)
    if file.architecture not in STAGES or file.preprocessing is None:
        raise WeightsError(f"[alexnet] {file.path}: expects weights of alexnet, got {file.architecture}")
    variant: Variant = "original" if file.architecture == "alexnet" else "torchvision"
    net = AlexNet(variant, file.preprocessing, dtype)
    net.load_state_dict(file.arrays, str(file.path))
    return net
