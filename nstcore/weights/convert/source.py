"""What every converter gives: the convolutions of a VGG in network order, or another network's named parameters."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nstcore.errors import WeightsError
from nstcore.weights.npy import Array

#: no tensor of a VGG's convolutions is larger (512 x 512 x 3 x 3 in float64 is 18 MiB)
MAX_TENSOR_BYTES = 64 << 20
#: no source file is larger (VGG-19 with its dense layers in float64 is 1.1 GiB)
MAX_SOURCE_BYTES = (1 << 31) - 1

OXFORD = "CC BY 4.0, Visual Geometry Group, University of Oxford"
TORCHVISION = "BSD-3-Clause, the PyTorch torchvision project"


def preprocessing(color_order: str, scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """Describe how RGB in [0, 1] becomes the input; mean and std in its channel order, after scaling."""
    return {"color_order": color_order, "scale": scale, "mean": list(mean), "std": list(std)}


#: Keras and the original Caffe model: BGR, 0-255, minus the mean of ImageNet
CAFFE_INPUT = preprocessing("BGR", 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
#: torchvision: RGB, 0-1, standardised
TORCHVISION_INPUT = preprocessing("RGB", 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, eq=False)
class Convolution:
    """One convolution of the source: its own name there, weight (k, r, s, c) and bias (k,)."""

    name: str
    weight: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Source:
    """A VGG read from a foreign file."""

    kind: str  # such as "ONNX"
    convolutions: list[Convolution]
    preprocessing: dict[str, Any]
    licence: str


@dataclass(frozen=True, eq=False)
class Network:
    """Any other network read from a foreign file: its parameters under our names, and further facts about it."""

    kind: str
    architecture: str
    arrays: dict[str, Array]
    preprocessing: dict[str, Any]
    licence: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def unreadable(path: Path, problem: str, key: str | None = None) -> WeightsError:
    """Make the error for a source file that cannot be converted."""
    return WeightsError(f"[weights convert] {path}{f': {key}' if key else ''}: {problem}")


def need(package: str, path: Path) -> ModuleType:
    """Import an optional package, or say how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        rule = f"reading {path.suffix} needs the {package} package: pip install 'nstcore[convert]'"
        raise WeightsError(f"[weights convert] {rule}") from error


def from_oihw(weight: Array) -> Array:
    """Turn (k, c, r, s), as PyTorch and ONNX hold it, into (k, r, s, c); leave other ranks as is."""
    return weight.transpose(0, 2, 3, 1) if weight.ndim == 4 else weight


def from_hwio(weight: Array) -> Array:
    """Turn (r, s, c, k), as Keras and MatConvNet hold it, into (k, r, s, c); leave other ranks as is."""
    return weight.transpose(3, 0, 1, 2) if weight.ndim == 4 else weight


def fits(shape: tuple[int, ...], itemsize: int) -> bool:
    """Tell whether a tensor that a file claims may be a weight or a bias of a VGG, before it is read."""
    size = itemsize
    for dimension in shape:
        size *= dimension
    return len(shape) in (1, 4) and 0 < size <= MAX_TENSOR_BYTES


def file_digest(path: Path) -> str:
    """Give the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def as_floats(path: Path, key: str, array: Array, dtype: str) -> Array:
    """Give `array` C-ordered in `dtype`; WeightsError if it is no float or not finite there."""
    if array.dtype.kind != "f":
        raise unreadable(path, f"expects floating point, got {array.dtype}", key)
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(array, dtype)
    if not np.isfinite(result).all():
        raise unreadable(path, f"has values that are not finite in {dtype}", key)
    return result
