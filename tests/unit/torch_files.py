"""Files of torch.save, written without torch: its pickles, the zip format and the older one."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Arrays = dict[str, np.ndarray]


class StandInTensor:
    """Pickles as a torch tensor does."""

    def __init__(self, array: np.ndarray, key: str) -> None:
        self.array, self.key = array, key

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        import torch

        strides = tuple(stride // self.array.itemsize for stride in self.array.strides)
        arguments = (self, 0, self.array.shape, strides, False, collections.OrderedDict())
        return torch._utils._rebuild_tensor_v2, (StandInStorage(self), *arguments[1:])


class StandInStorage:
    def __init__(self, tensor: StandInTensor) -> None:
        self.tensor = tensor


def stand_in(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module named torch with just what pickles of state dicts mention."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*arguments: object) -> None:
        raise AssertionError("nothing in a pickle is ever called")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    for name in ("FloatStorage", "HalfStorage", "LongStorage", "BFloat16Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


def torch_pickle(value: object, torch: types.ModuleType, legacy: bool = False) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, item: object) -> object:
            if not isinstance(item, StandInStorage):
                return None
            array = item.tensor.array
            kind = {"f4": torch.FloatStorage, "f2": torch.HalfStorage, "i8": torch.LongStorage}[array.dtype.str[1:]]
            return ("storage", kind, item.tensor.key, "cpu", array.size, *([None] if legacy else []))

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def tensors(state: Arrays) -> collections.OrderedDict[str, Any]:
    tree = collections.OrderedDict(
        (name, StandInTensor(array, str(n))) for n, (name, array) in enumerate(state.items())
    )
    tree._metadata = {"": {"version": 1}}  # a module's state dict carries attributes, which pickle as BUILD
    return tree


def write_pth(path: Path, pickled: bytes, state: Arrays, byteorder: bytes = b"little") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", byteorder)
        for number, array in enumerate(state.values()):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def write_legacy(path: Path, pickled: bytes, state: Arrays) -> None:
    with open(path, "wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "type_sizes": {"int": 4}}):
            pickle.dump(value, file, protocol=2)
        file.write(pickled)
        pickle.dump([str(number) for number in range(len(state))], file, protocol=2)
        for array in state.values():
            file.write(struct.pack("<q", array.size) + array.tobytes())
