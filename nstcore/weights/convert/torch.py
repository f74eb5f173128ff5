"""VGG and AlexNet from a torchvision state dict: `.pth` in the zip format or the older one, without torch.

Zip format: ``<name>/data.pkl`` is a pickle whose tensors refer to ``<name>/data/<key>``, raw storages. Older
format: four pickles (a magic number, a protocol, facts about the system, the state dict), a fifth with the
list of storage keys, then for each an int64 count and its raw values. The pickles are read by `state_dict`,
which runs nothing.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nstcore.weights.convert import state_dict
from nstcore.weights.convert.source import (
    MAX_SOURCE_BYTES,
    TORCHVISION,
    TORCHVISION_INPUT,
    Convolution,
    Source,
    from_oihw,
    unreadable,
)
from nstcore.weights.npy import Array

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
#: what reading a damaged or foreign file raises
DAMAGE = (ValueError, zipfile.BadZipFile, struct.error, EOFError, RuntimeError, OSError)
_FEATURE = re.compile(r"features\.(\d{1,3})\.weight")


def read(path: Path) -> Source:
    """Read the convolutions (``features.N.weight``, OIHW) of a torchvision VGG's or AlexNet's state dict."""
    arrays = read_state_dict(path, prefix="features.")
    return Source("PyTorch state dict", from_features(path, arrays), TORCHVISION_INPUT, TORCHVISION)


def from_features(path: Path, arrays: Mapping[str, Array]) -> list[Convolution]:
    """Order the ``features.N`` of a torchvision network by N."""
    if any(key.endswith("running_mean") for key in arrays):
        raise unreadable(path, "is a VGG with batch normalisation; take the plain vgg16 or vgg19")
    numbers = sorted(int(match[1]) for match in map(_FEATURE.fullmatch, arrays) if match)
    found = []
    for number in numbers:
        name = f"features.{number}"
        if f"{name}.bias" not in arrays:
            raise unreadable(path, "has no bias", name)
        found.append(Convolution(name, from_oihw(arrays[f"{name}.weight"]), arrays[f"{name}.bias"]))
    return found


def read_state_dict(path: Path, *, prefix: str = "") -> dict[str, Array]:
    """Read the tensors of a state dict whose names begin with `prefix`, in their own layout and dtype.

    Raises WeightsError if the file is damaged or too large, or its pickle asks for anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            return parse_state_dict(file, prefix=prefix)
    except DAMAGE as error:
        raise unreadable(path, str(error)) from error


def parse_state_dict(file: BinaryIO, *, prefix: str = "") -> dict[str, Array]:
    """Read the tensors of a state dict from an open file; one of `DAMAGE`, with the reason, if it is not sound."""
    size = file.seek(0, 2)
    if size > MAX_SOURCE_BYTES:
        raise ValueError(f"is {size} bytes long, the limit is {MAX_SOURCE_BYTES}")
    file.seek(0)
    signature = file.read(4)
    file.seek(0)
    return (_read_zip if signature == b"PK\x03\x04" else _read_legacy)(file, prefix)


def _tensors(tree: object, prefix: str, read: Callable[[state_dict.Storage], Array]) -> dict[str, Array]:
    """Give the wanted tensors of an unpickled state dict; each storage is read once."""
    if not isinstance(tree, dict):
        raise ValueError("holds no state dict; save model.state_dict()")
    storages: dict[str, Array] = {}
    arrays = {}
    for name, tensor in tree.items():
        if isinstance(name, str) and name.startswith(prefix) and isinstance(tensor, state_dict.Tensor):
            storage = tensor.storage
            if storage.key not in storages:
                storages[storage.key] = read(storage)
            arrays[name] = tensor.view(storages[storage.key])
    if not arrays:
        raise ValueError(f"holds no tensor named {prefix}*" if prefix else "holds no tensors")
    return arrays


def _read_zip(file: BinaryIO, prefix: str) -> dict[str, Array]:
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in infos if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"expects one data.pkl, as torch.save writes it, got {len(pickles)}")
        folder = pickles[0][: -len("data.pkl")]

        def member(name: str, expected: int | None, limit: int) -> bytes:
            info = infos.get(folder + name)
            if info is None:
                raise ValueError(f"{name} is missing")
            plain = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size <= limit
            if not plain or expected not in (None, info.file_size):
                raise ValueError(
                    f"{name} has {info.file_size} bytes, expected {expected or f'at most {limit}'}, stored"
                )
            return archive.read(info)

        if f"{folder}byteorder" in infos and member("byteorder", None, 16) != b"little":
            raise ValueError("is big-endian; save it again on a little-endian machine")
        tree = state_dict.loads(io.BytesIO(member("data.pkl", None, state_dict.MAX_PICKLE_BYTES)))

        def read(storage: state_dict.Storage) -> Array:
            block = member(f"data/{storage.key}", storage.nbytes, size)
            return np.frombuffer(block, storage.dtype)

        return _tensors(tree, prefix, read)


def _read_legacy(file: BinaryIO, prefix: str) -> dict[str, Array]:
    head = io.BytesIO(file.read(state_dict.MAX_PICKLE_BYTES))
    if state_dict.loads(head) != _MAGIC_NUMBER:
        raise ValueError("is not a file of torch.save")
    for _ in ("protocol", "system"):
        state_dict.loads(head)
    declared: dict[str, state_dict.Storage] = {}
    tree = state_dict.loads(head, declared)
    keys = state_dict.loads(head)
    if not isinstance(keys, list) or set(map(str, keys)) != declared.keys() or len(keys) != len(declared):
        raise ValueError("has a damaged list of storages")
    end, position = file.seek(0, 2), head.tell()
    places = {}
    for key in map(str, keys):
        file.seek(position)
        (count,) = struct.unpack("<q", file.read(8))
        position += 8 + declared[key].nbytes
        if count != declared[key].count or position > end:
            raise ValueError(f"storage {key} has {count} values in {end} bytes, expected {declared[key].count}")
        places[key] = position - declared[key].nbytes

    def read(storage: state_dict.Storage) -> Array:
        file.seek(places[storage.key])
        return np.frombuffer(file.read(storage.nbytes), storage.dtype)

    return _tensors(tree, prefix, read)
