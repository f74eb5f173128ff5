"""What the models do with pictures before their first layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from nstcore import ops
from nstcore.autograd import Tensor
from nstcore.errors import ArgumentError, DTypeError, ShapeError
from nstcore.ops._op import whole

CHANNELS = 3


def as_tensor(model: str, images: Any, dtype: np.dtype[Any]) -> Tensor:
    """Pictures in [0, 1] as a tensor (n, h, w, 3): a tensor is checked, anything else is read by `as_images`."""
    if not isinstance(images, Tensor):
        from nstcore.images import as_images

        return Tensor(as_images(images).astype(dtype, copy=False))
    if images.ndim != 4 or images.shape[3] != CHANNELS:
        raise ShapeError(f"[{model}] expects a tensor (n, h, w, {CHANNELS}), got {images.shape}")
    if images.dtype != dtype:
        raise DTypeError(f"[{model}] expects a tensor of {dtype}, got {images.dtype}")
    return images


def standardized(images: Tensor, preprocessing: Mapping[str, Any]) -> Any:
    """RGB in [0, 1] to what the weights were trained on: colour order, scale, mean and std of a weights file."""
    mean, std = np.asarray(preprocessing["mean"]), np.asarray(preprocessing["std"])
    backwards = preprocessing["color_order"] == "BGR"
    return ops.normalize_channels(images, preprocessing["scale"] / std, -mean / std, reverse=backwards)


def in_batches(
    model: str, chips: Any, batch: int, check_shape: Callable[[tuple[int, ...]], None], dtype: np.dtype[Any]
) -> Iterator[Tensor]:
    """Chips (h, w, 3) or (n, h, w, 3), at most `batch` of them at a time, as tensors; `check_shape` may refuse them."""
    from nstcore.images import as_images

    step, array = whole(model, "a batch", batch), np.asarray(chips)
    if step < 1:
        raise ArgumentError(f"[{model}] expects a batch of at least 1, got {step}")
    array = array[None] if array.ndim == 3 else array
    check_shape(array.shape)
    for start in range(0, len(array), step):
        yield Tensor(as_images(array[start : start + step]).astype(dtype, copy=False))
