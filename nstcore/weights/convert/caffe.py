"""VGG and AlexNet from Caffe's ``.caffemodel``: a protocol buffer, read without a compiler's generated code.

Of the message ``NetParameter`` (``caffe.proto``) the layers (field 100, or 2 in files from before 2014) are looked at,
and of those the convolutions with their blobs: the weight (k, c / groups, r, s) and the bias. Everything else, such
as the dense layers' hundreds of megabytes, is stepped over. Source: Protocol Buffers, "Encoding" (wire types).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nstcore.weights.convert.source import (
    CAFFE_INPUT,
    MAX_TENSOR_BYTES,
    OXFORD,
    Convolution,
    Source,
    from_oihw,
    preprocessing,
    unreadable,
)
from nstcore.weights.npy import Array

#: bvlc_alexnet: BGR, 0–255, minus ImageNet's mean colour
ALEXNET_INPUT = preprocessing("BGR", 255.0, (104.007, 116.669, 122.679), (1.0, 1.0, 1.0))
BERKELEY = "unrestricted use, BAIR/BVLC (Berkeley) reference models"
_ALEXNET_CONVOLUTIONS = 5

# Field numbers in caffe.proto.
_LAYER, _OLD_LAYER = 100, 2
_NAME, _TYPE, _BLOBS = 1, 2, 7
_OLD_NAME, _OLD_TYPE, _OLD_BLOBS = 4, 5, 6
_OLD_SIDES, _DATA, _SHAPE, _DOUBLES, _DIMENSIONS = (1, 2, 3, 4), 5, 7, 8, 1
_CONVOLUTION, _OLD_CONVOLUTION = b"Convolution", 4
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_MOST_AXES = 8


def read(path: Path) -> Source:
    """Read the convolutions of a ``.caffemodel`` in the order of the file, which is that of the network."""
    try:
        with open(path, "rb") as file:
            if file.seek(0, 2) == 0:
                raise ValueError("is empty")
            # Closed when the last view of it has gone: an error's traceback may hold some.
            found = _convolutions(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (ValueError, OSError, OverflowError) as error:
        raise unreadable(path, f"is not a readable .caffemodel ({error})") from error
    if len(found) == _ALEXNET_CONVOLUTIONS:
        return Source("Caffe", found, ALEXNET_INPUT, BERKELEY)
    return Source("Caffe", found, CAFFE_INPUT, OXFORD)


def _convolutions(view: memoryview) -> list[Convolution]:
    found = []
    for number, value in _fields(view):
        if number in (_LAYER, _OLD_LAYER) and isinstance(value, memoryview):
            old = number == _OLD_LAYER
            layer = _layer(value, *((_OLD_NAME, _OLD_TYPE, _OLD_BLOBS) if old else (_NAME, _TYPE, _BLOBS)))
            if layer is not None:
                found.append(layer)
    return found


def _layer(view: memoryview, name_field: int, type_field: int, blobs_field: int) -> Convolution | None:
    """A layer's convolution; None for another layer, or one without weights."""
    name, convolves, blobs = "", False, []
    for number, value in _fields(view):
        if number == name_field and isinstance(value, memoryview):
            name = bytes(value[:200]).decode("utf-8", "replace")
        elif number == type_field:
            kind = bytes(value[:32]) if isinstance(value, memoryview) else value
            convolves = kind in (_CONVOLUTION, _OLD_CONVOLUTION)
        elif number == blobs_field and isinstance(value, memoryview):
            blobs.append(value)
    if not convolves or not blobs:
        return None
    if len(blobs) != 2:
        raise ValueError(f"{name}: expects a weight and a bias, got {len(blobs)} blobs")
    weight, bias = (_blob(name, blob) for blob in blobs)
    return Convolution(name, from_oihw(weight), bias.reshape(-1))


def _blob(name: str, view: memoryview) -> Array:
    """An array of a file, copied; ValueError when its shape and its values do not agree."""
    sides: dict[int, int] = {}
    shape: list[int] = []
    values: list[Array] = []
    for number, value in _fields(view):
        if number in _OLD_SIDES and isinstance(value, int):
            sides[number] = value
        elif number == _SHAPE and isinstance(value, memoryview):
            shape = _dimensions(value)
        elif number in (_DATA, _DOUBLES) and isinstance(value, memoryview):
            dtype = np.dtype("<f4" if number == _DATA else "<f8")
            if len(value) > MAX_TENSOR_BYTES or len(value) % dtype.itemsize:
                raise ValueError(f"{name}: has a blob of {len(value)} bytes")
            values.append(np.frombuffer(bytes(value), dtype))
    found = np.concatenate(values) if values else np.empty(0, "<f4")
    shape = shape or [sides[number] for number in _OLD_SIDES if number in sides]
    if math.prod(shape) != found.size:
        raise ValueError(f"{name}: claims shape {tuple(shape)}, but holds {found.size} values")
    return found.reshape(shape)


def _dimensions(view: memoryview) -> list[int]:
    """The sizes in a ``BlobShape``, packed or one by one."""
    found: list[int] = []
    for number, value in _fields(view):
        if number != _DIMENSIONS:
            continue
        if isinstance(value, int):
            found.append(value)
        else:
            at = 0
            while at < len(value):
                size, at = _varint(value, at)
                found.append(size)
    if len(found) > _MOST_AXES:
        raise ValueError(f"has a blob of {len(found)} axes")
    return found


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: an int, or the bytes of anything longer."""
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(view, at)
        elif wire in (_FOUR_BYTES, _EIGHT_BYTES):
            length = 4 if wire == _FOUR_BYTES else 8
        else:
            raise ValueError(f"has a field of the unknown kind {wire}")
        if number == 0 or at + length > len(view):
            raise ValueError("is damaged or cut off")
        yield number, view[at : at + length]
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where the next one begins."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise ValueError("is cut off")
        byte = view[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("has a number of more than 64 bits")
