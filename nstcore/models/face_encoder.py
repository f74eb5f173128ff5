"""dlib's face encoder: a picture of a face becomes 128 numbers, close together for pictures of one person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nstcore import ops, weights
from nstcore.autograd import Tensor, no_grad
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, DTypeError, ShapeError, WeightsError
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
    The encodings are not normalised; their norms are about 1.3 to 1.6.
    Source: Davis King, dlib, ``dlib_face_recognition_resnet_model_v1`` (2017); He et al., CVPR 2016.
    """

    def __init__(self, preprocessing: Mapping[str, Any] = DLIB, dtype: DTypeLike = np.float32) -> None:
        self.stem = Conv2d(CHANNELS, STEM_FILTERS, STEM_KERNEL, stride=STEM_STRIDE, activation="relu")
        self.blocks = [ResidualBlock(*block) for block in block_channels()]
        self.projection = Tensor(np.zeros((BLOCKS[-1][0], ENCODING), np.float32))
        self.freeze().astype(dtype)
        self._preprocessing = preprocessing

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write the weights so that `face_encoder` can read them; `meta` is stored beside them."""
        facts = {"architecture": ARCHITECTURE, "preprocessing": dict(self._preprocessing), "encoding": FACTS}
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
        from nstcore.images import as_images

        step, array = whole("face_encoder", "a batch", batch), np.asarray(chips)
        if step < 1:
            raise ArgumentError(f"[face_encoder] expects a batch of at least 1, got {step}")
        array = array[None] if array.ndim == 3 else array
        self._check_shape(array.shape)
        found = np.empty((len(array), ENCODING), self.dtype)
        with no_grad():
            for start in range(0, len(array), step):
                part = as_images(array[start : start + step]).astype(self.dtype, copy=False)
                found[start : start + step] = to_host(self._encoding(Tensor(part)).data)
        return found

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

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4 or shape[1:] != (CHIP, CHIP, CHANNELS):
            raise ShapeError(f"[face_encoder] expects chips (n, {CHIP}, {CHIP}, {CHANNELS}), got {shape}")

    def _encoding(self, chips: Tensor) -> Any:
        how = self._preprocessing
        mean, std = np.asarray(how["mean"]), np.asarray(how["std"])
        x = ops.normalize_channels(chips, how["scale"] / std, -mean / std, reverse=how["color_order"] == "BGR")
        x = ops.max_pool2d(self.stem(x), 3, 2)
        for block in self.blocks:
            x = block(x)
        return ops.matmul(ops.mean(x, axis=(1, 2)), self.projection)


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
    return net


def _extended(x: Tensor, shape: tuple[int, ...]) -> Any:
    """`x` with zeros after the end of every axis that is shorter than in `shape`."""
    if x.shape == shape:
        return x
    return ops.pad(x, [(0, wanted - size) for size, wanted in zip(x.shape, shape, strict=True)])
