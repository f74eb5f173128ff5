"""VGG and AlexNet from `.safetensors` with torchvision's names.

The format is a length, a JSON table and raw values; it is read directly, with every bound checked.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nstcore.weights.convert.source import TORCHVISION, TORCHVISION_INPUT, Source, unreadable
from nstcore.weights.convert.torch import from_features
from nstcore.weights.npy import Array

_MAX_TABLE_BYTES = 4 << 20
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}


def read(path: Path) -> Source:
    """Read the convolutions (``features.N.weight``, OIHW) of a torchvision VGG."""
    try:
        with open(path, "rb") as file:
            arrays = _read_tensors(file, "features.")
    except (ValueError, OSError) as error:
        raise unreadable(path, str(error)) from error
    return Source("safetensors", from_features(path, arrays), TORCHVISION_INPUT, TORCHVISION)


def _read_tensors(file: BinaryIO, prefix: str) -> dict[str, Array]:
    """Read the tensors whose names begin with `prefix`; ValueError with the reason if the file is damaged."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    start = 8 + length
    if size < 8 or start > size or length > _MAX_TABLE_BYTES:
        raise ValueError(f"claims a table of {length} bytes in a file of {size}: not a safetensors file, or truncated")
    try:
        table = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"has a damaged table of tensors ({error})") from error
    if not isinstance(table, dict):
        raise ValueError("has no table of tensors")
    wanted = {name: entry for name, entry in table.items() if name.startswith(prefix)}
    return {name: _read_tensor(file, name, entry, start, size) for name, entry in wanted.items()}


def _read_tensor(file: BinaryIO, name: str, entry: Any, start: int, size: int) -> Array:
    """Read one tensor; `start` is where the values begin in a file of `size` bytes."""
    try:
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        shape = tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: has a damaged or unknown description ({error})") from error
    if min(shape, default=0) < 0 or not 0 <= begin <= end <= size - start:
        raise ValueError(f"{name}: lies at {begin}-{end}, outside the file or truncated")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"{name}: claims shape {shape} of {dtype}, but holds {end - begin} bytes")
    file.seek(start + begin)
    return np.frombuffer(file.read(end - begin), dtype).reshape(shape)
