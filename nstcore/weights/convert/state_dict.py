"""Reads the pickle of a PyTorch state dict with a machine that can build only what a state dict holds.

Python's unpickler imports and calls what the file names. Here the opcodes are only listed (by
``pickletools.genops``, which executes nothing) and interpreted: the values are numbers, texts, tuples, lists,
dicts, and tensors that refer to storages. No name from the file is ever looked up, imported or called.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from nstcore.weights.npy import Array

MAX_PICKLE_BYTES = 4 << 20  # the state dict of VGG-19 needs 6 KB
_STORAGES = {
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch DoubleStorage": "<f8",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ByteStorage": "|u1",
}
_ORDERED_DICT = "collections OrderedDict"
_REBUILD = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
_PARAMETER = "torch._utils _rebuild_parameter"
_NAMES = {_ORDERED_DICT, _PARAMETER, *_REBUILD, *_STORAGES}


@dataclass(frozen=True)
class Storage:
    """A run of values of one dtype, kept elsewhere in the file under `key`."""

    key: str
    dtype: str
    count: int

    @property
    def nbytes(self) -> int:
        """The bytes it takes."""
        return self.count * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage; offset and strides in values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, values: Array) -> Array:
        """Give the tensor as a read-only view of its storage's `values`; `_tensor` checked the bounds."""
        strides = tuple(stride * values.itemsize for stride in self.strides)
        part = values[self.offset :]
        return np.lib.stride_tricks.as_strided(part, self.shape, strides, writeable=False)


@dataclass(frozen=True)
class _Name:
    """A global that the pickle mentions, as text."""

    text: str


_MARK = object()


def loads(pickle: BytesIO, storages: dict[str, Storage] | None = None) -> Any:
    """Read one pickle, up to its end; `storages` collects the storages it mentions.

    Raises ValueError, with the reason, for a damaged pickle and for one that is no state dict.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    found = {} if storages is None else storages
    try:
        for name, argument in _opcodes(pickle):
            if name == "STOP":
                return stack.pop()
            _step(name, argument, stack, memo, found)
    except (IndexError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"has a damaged pickle ({type(error).__name__}: {error})") from error
    raise ValueError("has a pickle without an end")


def _opcodes(pickle: BytesIO) -> Iterator[tuple[str, Any]]:
    """List the opcodes of one pickle with their arguments."""
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            yield opcode.name, argument
    except ValueError as error:
        raise ValueError(f"has a damaged pickle ({error})") from error


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any], storages: dict[str, Storage]) -> None:
    """Carry out one opcode."""
    if name in _PUSH:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name]())
    elif name in _TUPLES:
        count = _TUPLES[name]
        stack[len(stack) - count :] = [tuple(stack[-count:])]
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name in _BUILDERS:
        _BUILDERS[name](stack)
    elif name == "GLOBAL":
        stack.append(_name(argument))
    elif name == "REDUCE":
        arguments = stack.pop()
        stack.append(_call(stack.pop(), arguments))
    elif name == "BINPERSID":
        storage = _storage(stack.pop())
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"mentions storage {storage.key} in two ways")
        stack.append((storage,))
    elif name != "PROTO":
        raise ValueError(f"has the pickle opcode {name}, which no state dict needs; nstcore never unpickles it")


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take what was pushed since the last mark, and the mark."""
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _set_items(stack: list[Any], items: list[Any]) -> None:
    target = stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("has a damaged pickle (items for no dict)")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (str, int)):  # hashing a nested tuple could take forever
            raise ValueError("has a dict whose keys are no texts")
        target[key] = value


def _append(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise ValueError("has a damaged pickle (items for no list)")
    stack[-1].extend(items)


def _build(stack: list[Any]) -> None:
    """Drop the attributes that a module hangs on its state dict (``_metadata``)."""
    stack.pop()
    if not isinstance(stack[-1], dict):
        raise ValueError("has attributes for something that is no state dict; nstcore never unpickles it")


_PUSH = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_BUILDERS: dict[str, Callable[[list[Any]], None]] = {
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "SETITEMS": lambda stack: _set_items(stack, _since_mark(stack)),
    "SETITEM": lambda stack: _set_items(stack, [stack.pop(), stack.pop()][::-1]),
    "APPENDS": lambda stack: _append(stack, _since_mark(stack)),
    "APPEND": lambda stack: _append(stack, [stack.pop()]),
    "BUILD": _build,
}


def _name(text: str) -> _Name:
    if text not in _NAMES:
        shown = text.replace(" ", ".")[:80]
        raise ValueError(
            f"asks for {shown!r}, which nstcore never unpickles; save only the tensors: model.state_dict()"
        )
    return _Name(text)


def _call(function: Any, arguments: Any) -> Any:
    """Do what a state dict means by calling one of the three functions it needs."""
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise ValueError("calls something that is no function")
    if function.text == _ORDERED_DICT and not arguments:
        return {}
    if function.text == _PARAMETER and isinstance(arguments[0], Tensor):
        return arguments[0]
    if function.text in _REBUILD and len(arguments) >= 4:
        return _tensor(*arguments[:4])
    raise ValueError(f"calls {function.text.replace(' ', '.')} with arguments that no state dict has")


def _storage(reference: Any) -> Storage:
    """Read a persistent id: ("storage", type, key, device, count) and, in older files, a view (None)."""
    if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
        raise ValueError("refers to something that is no storage")
    kind, key, count = reference[1], reference[2], reference[4]
    if not isinstance(kind, _Name) or kind.text not in _STORAGES or not isinstance(key, (str, int)):
        raise ValueError("refers to a storage of an unknown type")
    if not _is_count(count) or (len(reference) == 6 and reference[5] is not None):
        raise ValueError(f"storage {key!s:.40} has no plain number of values")
    return Storage(str(key), _STORAGES[kind.text], count)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """Check that a tensor lies inside its storage and takes no value twice."""
    if not isinstance(storage, tuple) or len(storage) != 1 or not isinstance(storage[0], Storage):
        raise ValueError("has a tensor without a storage")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides) or len(shape) > 8:
        raise ValueError("has a tensor without a shape")
    if not all(map(_is_count, (offset, *shape, *strides))):
        raise ValueError(f"has a tensor of shape {shape}, strides {strides}: not all are counts")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage[0].count or (math.prod(shape) and last >= storage[0].count):
        raise ValueError(f"has a tensor of shape {shape} that does not fit its storage of {storage[0].count} values")
    return Tensor(storage[0], offset, shape, strides)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
