"""VGG from Keras: the `.h5` of keras-applications, or an `.npz` of its arrays (weights HWIO).

Layer names are the same in all of Keras's layouts (``block1_conv1``), what stands around them is not
(``block1_conv1/block1_conv1_W_1:0``, ``block1_conv1/block1_conv1/kernel:0``, ``model_weights/...``): an array
belongs to the layer that its path names last, and its rank tells weight from bias.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from nstcore.errors import WeightsError
from nstcore.weights import npy
from nstcore.weights.convert.source import (
    CAFFE_INPUT,
    MAX_TENSOR_BYTES,
    OXFORD,
    Convolution,
    Source,
    fits,
    from_hwio,
    need,
    unreadable,
)
from nstcore.weights.npy import Array

_LAYER = re.compile(r"block(\d)_conv(\d)")


def read_h5(path: Path) -> Source:
    """Read the convolutions of a Keras VGG saved as HDF5."""
    h5py = need("h5py", path)
    arrays: dict[str, Array] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and _LAYER.search(name):
            if name.startswith("optimizer_weights"):  # a trained model keeps moments named like its weights
                return
            if item.dtype.kind != "f" or not fits(item.shape or (), item.dtype.itemsize):
                raise unreadable(path, f"has {item.dtype} {item.shape}, not those of a VGG", name)
            if item.external or item.is_virtual:  # its values would come from a path that the file names
                raise unreadable(path, "lies in another file", name)
            arrays[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)  # follows no links to other files
    except WeightsError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise unreadable(path, f"is not a readable HDF5 file ({error})") from error
    return _source(path, arrays)


def read_npz(path: Path) -> Source:
    """Read the convolutions of a Keras VGG whose arrays were saved with ``numpy.savez``."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename == "__meta__.npy":
                    raise unreadable(path, "already is a weights file of nstcore; there is nothing to convert")
                if _LAYER.search(info.filename):
                    arrays[info.filename.removesuffix(".npy")] = _read_member(path, archive, info)
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        raise unreadable(path, f"is not a readable .npz ({error})") from error
    return _source(path, arrays)


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Read one array whose size is limited; members may be compressed here."""
    if info.file_size > MAX_TENSOR_BYTES:
        raise unreadable(path, f"has {info.file_size} bytes, larger than any layer of a VGG", info.filename)
    try:
        return npy.parse(archive.read(info))
    except (ValueError, zlib.error) as error:
        raise unreadable(path, str(error), info.filename) from error


def _source(path: Path, arrays: dict[str, Array]) -> Source:
    """Pair weights and biases by layer, in network order."""
    layers: dict[tuple[str, str], dict[int, tuple[str, Array]]] = {}
    for name, array in arrays.items():
        block, index = _LAYER.findall(name)[-1]
        parts = layers.setdefault((block, index), {})
        if array.ndim in parts:
            raise unreadable(path, f"is one array of rank {array.ndim} too many for block{block}_conv{index}", name)
        parts[array.ndim] = (name, array)
    found = []
    for (block, index), parts in sorted(layers.items()):
        if parts.keys() != {1, 4}:
            raise unreadable(path, "expects a weight of rank 4 and a bias of rank 1", f"block{block}_conv{index}")
        found.append(Convolution(parts[4][0], from_hwio(parts[4][1]), parts[1][1]))
    return Source("Keras", found, CAFFE_INPUT, OXFORD)
