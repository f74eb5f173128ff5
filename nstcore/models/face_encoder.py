"""dlib's face encoder: a picture of a face becomes 128 numbers, close together for pictures of one person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nstcore import _chips as kinds
from nstcore import ops, weights
from nstcore.autograd import Tensor, no_grad
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, DTypeError, ShapeError, WeightsError
from nstcore.models._input import in_batches, standardized
from nstcore.models.face_layout import (
    ARCHITECTURE,
    BLOCKS,
    CHANNELS,
    CHIP,
    ENCODING,
    KERNEL,
    STEM_FILTERS,
    STEM_KERNEL,
    STEM_STRIDE,
    block_channels,
)
from nstcore.nn.layers import Conv2d
from nstcore.nn.module import Module
from nstcore.ops._op import whole

Array = NDArray[Any]
DLIB = {"color_order": "RGB", "scale": 255.0, "mean": (122.782, 117.001, 104.298), "std": (256.0, 256.0, 256.0)}
#: what the numbers are, as it is written into files
FACTS = {"size": ENCODING, "norm": "none", "distance": "euclidean", "threshold": 0.6}


class ResidualBlock(Module):
    """y = relu(conv2(relu(conv1(x))) + shortcut): (n, h, w, c) -> (n, h', w', k).

    A block that halves has stride 2 without padding in `conv1` and a 2 × 2 average as its shortcut. Where the two
    terms differ in size, the smaller one is extended with zeros, below, to the right and in channels.
    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, figure 2 and option A.
    """

    def __init__(self, channels: int, filters: int, halves: bool = False) -> None:
        stride, padding = (2, 0) if halves else (1, 1)
        self.conv1 = Conv2d(channels, filters, KERNEL, stride=stride, padding=padding, activation="relu")
        self.conv2 = Conv2d(filters, filters, KERNEL, padding=1)
        self.halves = halves

    def forward(self, x: Any) -> Any:
        """x: (n, h, w, c)."""
        change = self.conv2(self.conv1(x))
        shortcut = ops.avg_pool2d(x, 2) if self.halves else x
        shape = tuple(map(max, change.shape, shortcut.shape))
        return ops.relu(_extended(change, shape) + _extended(shortcut, shape))


class FaceEncoder(Module):
    """The network of dlib's ``face_recognition_model_v1``, frozen: 29 convolutions, a mean, and a matrix.

    Two pictures show one person, by dlib's own rule, when their encodings are closer than 0.6 (Euclidean distance).
    The encodings are not normalised; their norms are about 1.3 to 1.6. `unfreeze` makes the last layers trainable.
    Source: Davis King, dlib, ``dlib_face_recognition_resnet_model_v1`` (2017); He et al., CVPR 2016.
    """

    def __init__(self, preprocessing: Mapping[str, Any] = DLIB, dtype: DTypeLike = np.float32) -> None:
        self.stem = Conv2d(CHANNELS, STEM_FILTERS, STEM_KERNEL, stride=STEM_STRIDE, activation="relu")
        self.blocks = [ResidualBlock(*block) for block in block_channels()]
        self.projection = Tensor(np.zeros((BLOCKS[-1][0], ENCODING), np.float32))
        self.freeze().astype(dtype)
        self._preprocessing = preprocessing
        self.threshold: float = FACTS["threshold"]  # type: ignore[assignment]
        self.chips = kinds.FACE

    @property
    def facts(self) -> dict[str, Any]:
        """What the encodings are, as it is written into files."""
        return {**FACTS, "threshold": self.threshold, "chips": self.chips}

    def unfreeze(self, last: int = 1) -> FaceEncoder:
        """Make the last layers trainable, and no others: the matrix, and the `last` − 1 residual blocks before it.

        dlib's scale-and-shift layers are folded into the convolutions: their scales are trained as part of the weights,
        their shifts as the biases. Raises `ArgumentError` unless 1 ≤ last ≤ 15. Returns the network itself.
        """
        self.freeze()
        for part in self._last_blocks(last):
            for parameter in part.parameters():
                parameter.requires_grad = True
        self.projection.requires_grad = True
        return self

    def _last_blocks(self, last: int) -> list[ResidualBlock]:
        count = whole("face_encoder", "the last layers", last)
        if not 1 <= count <= len(self.blocks) + 1:
            raise ArgumentError(f"[face_encoder] expects 1 to {len(self.blocks) + 1} last layers, got {count}")
        return self.blocks[len(self.blocks) - count + 1 :]

    def features(self, chips: Any, last: int = 1, *, batch: int = 16) -> Array:
        """What goes into the `last` layers: (n, h, w, c) after the blocks before them, computed once and then reused.

        chips, batch and errors as `encode`. ``finish(features(chips, last), last)`` is ``encode(chips)``.
        """
        blocks = self.blocks[: len(self.blocks) - len(self._last_blocks(last))]
        with no_grad():
            parts = in_batches(ARCHITECTURE, chips, batch, self._check_shape, self.dtype)
            return np.concatenate([to_host(self._walk(part, blocks).data) for part in parts])

    def finish(self, x: Any, last: int = 1) -> Any:
        """The encodings (n, 128) of what `features` gave, through the last layers alone, as a tensor."""
        x = x if isinstance(x, Tensor) else Tensor(np.asarray(x, self.dtype))
        for block in self._last_blocks(last):
            x = block(x)
        return ops.matmul(ops.mean(x, axis=(1, 2)), self.projection)

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write the weights so that `face_encoder` can read them; `meta` is stored beside them."""
        facts = {"architecture": ARCHITECTURE, "preprocessing": dict(self._preprocessing), "encoding": self.facts}
        super().save(path, **{**facts, **meta})

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the weights and the encodings."""
        return self.stem.weight.dtype

    def encode(self, chips: Any, *, batch: int = 16) -> Array:
        """The encodings (n, 128) of faces, float32 (float64 in a float64 network).

        chips: aligned faces, RGB, (150, 150, 3) or (n, 150, 150, 3), float in [0, 1] or uint8 (read as 0–255).
        batch: how many are computed at a time; more take more memory.

        Raises `ShapeError` for another size, `DTypeError`, `ImageError` for values outside [0, 1], `ArgumentError`.
        """
        with no_grad():
            parts = in_batches(ARCHITECTURE, chips, batch, self._check_shape, self.dtype)
            found = (to_host(self._encoding(part).data) for part in parts)
            return np.concatenate([np.empty((0, ENCODING), self.dtype), *found])

    def forward(self, chips: Any) -> Any:
        """The encodings of a `Tensor` (n, 150, 150, 3) in [0, 1] as a tensor, with gradients; else what `encode` gives.

        Raises, for a tensor, `ShapeError`, and `DTypeError` when its type is not that of the weights.
        """
        if not isinstance(chips, Tensor):
            return self.encode(chips)
        self._check_shape(chips.shape)
        if chips.dtype != self.dtype:
            raise DTypeError(f"[face_encoder] expects a tensor of {self.dtype}, got {chips.dtype}")
        return self._encoding(chips)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that `walk` gives: ``stem`` and every block after its ReLU, ``pool`` between them."""
        return ["stem", "pool", *(f"blocks.{i}" for i in range(len(self.blocks)))]

    def walk(self, images: Any, layers: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Name and activation (n, h', w', c) of each of `layers`, from the picture upwards, as soon as it is computed.

        images: RGB, (h, w, 3) or (n, h, w, 3), float in [0, 1] or uint8, or a `Tensor` (n, h, w, 3). The convolutions
        take pictures of any size, not aligned chips alone, down to a few pixels.
        Raises `ArgumentError` for an unknown layer, `ShapeError`, `DTypeError`, `ImageError`.
        """
        unknown = [name for name in layers if name not in self.layers]
        if unknown:
            raise ArgumentError(f"[{ARCHITECTURE}] has no layer {unknown[0]!r}; it has {', '.join(self.layers)}")
        if not isinstance(images, Tensor):
            from nstcore.images import as_images

            images = Tensor(as_images(images).astype(self.dtype, copy=False))
        steps: list[Callable[[Any], Any]] = [self.stem, _pool, *self.blocks]
        x, last = (
            standardized(images, self._preprocessing),
            max((self.layers.index(name) for name in layers), default=-1),
        )
        for name, step in zip(self.layers[: last + 1], steps, strict=False):
            x = step(x)
            if name in layers:
                yield name, x

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4 or shape[1:] != (CHIP, CHIP, CHANNELS):
            raise ShapeError(f"[face_encoder] expects chips (n, {CHIP}, {CHIP}, {CHANNELS}), got {shape}")

    def _encoding(self, chips: Tensor) -> Any:
        return ops.matmul(ops.mean(self._walk(chips, self.blocks), axis=(1, 2)), self.projection)

    def _walk(self, chips: Tensor, blocks: list[ResidualBlock]) -> Any:
        x = _pool(self.stem(standardized(chips, self._preprocessing)))
        for block in blocks:
            x = block(x)
        return x


def face_encoder(weights: str | Path | None = None, *, dtype: DTypeLike = np.float32) -> FaceEncoder:
    """dlib's face encoder with the embedded weights, or those of an ``.npz`` that ``nst weights convert`` made.

    weights: path, or None for the embedded float16 file (its encodings differ by less than 2e-3 from the original's).
    dtype: float32 or float64. Raises `WeightsError` when the file is missing, damaged or of another network.

    >>> face_encoder().encode(np.zeros((2, 150, 150, 3), np.uint8)).shape
    (2, 128)
    """
    return _load(weights, dtype)


def _load(path: str | Path | None, dtype: DTypeLike) -> FaceEncoder:
    file = weights.load(weights.embedded(ARCHITECTURE) if path is None else path)
    if file.architecture != ARCHITECTURE or file.preprocessing is None:
        raise WeightsError(f"[{ARCHITECTURE}] {file.path}: expects weights of {ARCHITECTURE}, got {file.architecture}")
    net = FaceEncoder(file.preprocessing, dtype)
    net.load_state_dict(file.arrays, str(file.path))
    encoding: Any = file.meta.get("encoding")
    facts = encoding if isinstance(encoding, Mapping) else {}
    net.chips, stated = kinds.stated(facts, file.path), facts.get("threshold")
    if isinstance(stated, (int, float)) and 0 < stated < np.inf:
        net.threshold = float(stated)
    return net


def _pool(x: Tensor) -> Any:
    return ops.max_pool2d(x, 3, 2)


def _extended(x: Tensor, shape: tuple[int, ...]) -> Any:
    """`x` with zeros after the end of every axis that is shorter than in `shape`."""
    if x.shape == shape:
        return x
    return ops.pad(x, [(0, wanted - size) for size, wanted in zip(x.shape, shape, strict=True)])
