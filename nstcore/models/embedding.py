"""A small network that learns to put pictures of one class close together, from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nstcore import _chips as kinds
from nstcore import ops, weights
from nstcore.autograd import Tensor, no_grad
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, DTypeError, ShapeError, WeightsError
from nstcore.models._input import in_batches
from nstcore.models.embedding_layout import ARCHITECTURE, CHANNELS, FILTERS, KERNEL, features
from nstcore.nn.layers import Conv2d
from nstcore.nn.module import Module
from nstcore.nn.normalisation import BatchNorm
from nstcore.ops._op import whole

Array = NDArray[Any]
DARKEST = 1e-4  # variance of a picture beside which it counts as having none
LEAST_SIDE, MOST_SIDE, MOST_SIZE = 16, 256, 4096


class EmbeddingNet(Module):
    """Four blocks of convolution, batch normalisation with ReLU and max pool; a mean over 2 × 2; a matrix, normalised.

    chips (n, side, side, 3) in [0, 1] -> encodings (n, size) of length 1. Each picture is first brought to mean 0 and
    variance 1, so that light and contrast as a whole do not count. Distances between encodings are Euclidean, from 0 to
    2. `threshold` is the distance up to which two pictures count as one class's; None until training has chosen it.
    `chips` says what it was trained on: "face", turned upright, or "square", the middle of a picture.
    Source: Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, section 3 (embedding); Koch, Zemel, Salakhutdinov,
    "Siamese Neural Networks for One-shot Image Recognition", 2015, figure 4 (depth); Luo et al., "Bag of Tricks
    and a Strong Baseline for Deep Person Re-identification", CVPRW 2019, section 3.5 (normalised features).
    """

    def __init__(self, size: int = 128, side: int = 64, *, seed: int = 0, dtype: DTypeLike = np.float32) -> None:
        self.size, self.side = whole("embedding_net", "a size", size), whole("embedding_net", "a side", side)
        halvings = 2 ** len(FILTERS)
        if not LEAST_SIDE <= self.side <= MOST_SIDE or self.side % halvings or not 1 <= self.size <= MOST_SIZE:
            raise ArgumentError(
                f"[embedding_net] expects a size of 1 to {MOST_SIZE} and a side of {LEAST_SIDE} to {MOST_SIDE} in "
                f"multiples of {halvings}, got {size} and {side}"
            )
        rng = np.random.default_rng(whole("embedding_net", "a seed", seed))
        inputs = (CHANNELS, *FILTERS[:-1])
        self.convolutions = [
            Conv2d(c, k, KERNEL, padding=1, bias=False, rng=rng) for c, k in zip(inputs, FILTERS, strict=True)
        ]
        self.norms = [BatchNorm(k, activation="relu", pool=True) for k in FILTERS]
        # A matrix as a 1 x 1 convolution: our own kernels, which do not depend on the number of threads.
        self.projection = Conv2d(features(self.side), self.size, 1, bias=False, rng=rng)
        # Features behind a ReLU are all positive, so without a normalisation all encodings start at nearly one point,
        # where the hardest triplets keep them: the gradient of a collapsed batch vanishes.
        self.spread = BatchNorm(self.size)
        self.threshold: float | None = None
        self.chips = kinds.FACE
        self.astype(dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the weights and the encodings."""
        return self.projection.weight.dtype

    @property
    def facts(self) -> dict[str, Any]:
        """What the encodings are, as it is written into files."""
        return {
            "size": self.size, "norm": "l2", "distance": "euclidean", "threshold": self.threshold, "chips": self.chips,
        }  # fmt: skip

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write the weights so that `embedding_net` can read them; `meta` is stored beside them."""
        facts = {"architecture": ARCHITECTURE, "preprocessing": None, "encoding": self.facts, "chip": self.side}
        super().save(path, **{**facts, **meta})

    def encode(self, chips: Any, *, batch: int = 64) -> Array:
        """The encodings (n, size) of pictures, by the running moments of the normalisation, whatever `training` says.

        chips: RGB, (side, side, 3) or (n, side, side, 3), float in [0, 1] or uint8 (read as 0–255).
        Raises `ShapeError` for another size, `DTypeError`, `ImageError` for values outside [0, 1], `ArgumentError`.
        """
        before = self.training
        self.eval()
        try:
            with no_grad():
                parts = in_batches(ARCHITECTURE, chips, batch, self._check_shape, self.dtype)
                empty = np.empty((0, self.size), self.dtype)
                return np.concatenate([empty, *(to_host(self._encoding(part).data) for part in parts)])
        finally:
            self.train(before)

    def forward(self, chips: Any) -> Any:
        """The encodings of a `Tensor` (n, side, side, 3) in [0, 1] as a tensor, with gradients; else as `encode`.

        Raises, for a tensor, `ShapeError`, and `DTypeError` when its type is not that of the weights.
        """
        if not isinstance(chips, Tensor):
            return self.encode(chips)
        self._check_shape(chips.shape)
        if chips.dtype != self.dtype:
            raise DTypeError(f"[embedding_net] expects a tensor of {self.dtype}, got {chips.dtype}")
        return self._encoding(chips)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4 or shape[1:] != (self.side, self.side, CHANNELS):
            raise ShapeError(f"[embedding_net] expects chips (n, {self.side}, {self.side}, {CHANNELS}), got {shape}")

    def _encoding(self, chips: Tensor) -> Any:
        x = ops.standardize(chips, DARKEST)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x))
        if x.shape[1] > 1:
            x = ops.avg_pool2d(x, 2, ceil_mode=True)
        z = self.projection(ops.reshape(x, (len(x), 1, 1, -1)))
        return ops.l2_normalize(self.spread(ops.reshape(z, (len(x), self.size))))


def embedding_net(
    size: int = 128,
    side: int = 64,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
    dtype: DTypeLike = np.float32,
) -> EmbeddingNet:
    """A small network, untrained (drawn from `seed`), or with the weights of an ``.npz`` that training wrote.

    size: numbers an encoding. side: pixels of a chip, a multiple of 16. weights: path; the file's own size and side
    count then. Raises `WeightsError` when the file is missing, damaged or of another network, `ArgumentError`.

    >>> embedding_net(seed=1).encode(np.zeros((2, 64, 64, 3), np.uint8)).shape
    (2, 128)
    """
    return EmbeddingNet(size, side, seed=seed, dtype=dtype) if weights is None else _load(weights, dtype)


def _load(path: str | Path, dtype: DTypeLike) -> EmbeddingNet:
    file = weights.load(path, remedy="take another copy, or train it again with nst faces train")
    if file.architecture != ARCHITECTURE:
        raise WeightsError(f"[{ARCHITECTURE}] {file.path}: expects weights of {ARCHITECTURE}, got {file.architecture}")
    encoding: Any = file.meta.get("encoding")
    try:
        facts: Mapping[str, Any] = dict(encoding)
        net = EmbeddingNet(facts["size"], file.meta.get("chip"), dtype=dtype)  # type: ignore[arg-type]
        net.threshold = None if facts["threshold"] is None else float(facts["threshold"])
        net.chips = kinds.stated(facts, file.path)
    except (ArgumentError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"[{ARCHITECTURE}] {file.path}: its facts do not describe this network ({error})") from None
    net.load_state_dict(file.arrays, str(file.path))
    return net
