"""The .npy blocks inside an .npz, read and written without evaluating or unpickling anything.

NumPy's own reader passes the header to ``ast.literal_eval`` and allocates what it claims; this one matches
the header against one pattern and gives a view of bytes that are already there. The format is described in
``numpy.lib.format`` (NEP 1).
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_MAGIC = b"\x93NUMPY"
_ALIGNMENT = 64  # the data of a block starts at a multiple of this, as NumPy writes it
_HEADER = re.compile(
    rb"\{'descr': '([<>|][a-zA-Z]\d{1,3})', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \} *\n"
)
_DIMENSION = re.compile(r"\d{1,18}")
_MAX_AXES = 32


def header(array: Array) -> bytes:
    """Give the bytes that stand before the data of a C-ordered little-endian `array`.

    >>> len(header(np.zeros((2, 3), "<f2"))) % 64
    0
    """
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    padding = -(len(_MAGIC) + 4 + len(text) + 1) % _ALIGNMENT
    body = (text + " " * padding + "\n").encode("ascii")
    return _MAGIC + b"\x01\x00" + len(body).to_bytes(2, "little") + body


def parse(block: bytes) -> Array:
    """Give the array of a .npy block as a read-only view of its bytes.

    Raises ValueError, with the reason, if the block is damaged, holds a pickled object, or claims a shape
    that its bytes do not fill.

    >>> a = np.arange(6, dtype="<f4").reshape(2, 3)
    >>> bool((parse(header(a) + a.tobytes()) == a).all())
    True
    """
    start, text = _split(block)
    if b"|O" in text or b"'O'" in text:
        raise ValueError("contains a pickled object; nstcore never unpickles")
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ValueError("has an .npy header that is damaged or not of a plain array")
    shape = _shape(match[3].decode("ascii"))
    try:
        dtype = np.dtype(match[1].decode("ascii"))
    except TypeError as error:
        raise ValueError(f"has an unknown element type {match[1].decode('ascii')!r}") from error
    if dtype.kind not in "fiub":
        raise ValueError(f"has elements of type {dtype}, expected numbers")
    claimed, present = math.prod(shape) * dtype.itemsize, len(block) - start
    if claimed != present:
        raise ValueError(f"claims shape {shape} of {dtype} = {claimed} bytes, but holds {present}")
    values: Array = np.frombuffer(block, dtype, offset=start)
    return values.reshape(shape[::-1]).T if match[2] == b"True" else values.reshape(shape)


def _split(block: bytes) -> tuple[int, bytes]:
    """Find where the data of a block starts, and its header text."""
    if block[:6] != _MAGIC or len(block) < 12 or block[6] not in (1, 2, 3):
        raise ValueError("is not an .npy block")
    width = 2 if block[6] == 1 else 4  # version 1 gives the header's length in two bytes, later ones in four
    start = 8 + width + int.from_bytes(block[8 : 8 + width], "little")
    if start > len(block):
        raise ValueError("is truncated inside its .npy header")
    return start, block[8 + width : start]


def _shape(text: str) -> tuple[int, ...]:
    """Read "64, 3, 3, 3" or "64," as a shape."""
    parts = [part.strip() for part in text.split(",")]
    if parts[-1] == "":
        parts.pop()
    if len(parts) > _MAX_AXES or not all(_DIMENSION.fullmatch(part) for part in parts):
        raise ValueError(f"has an unreadable shape ({text[:60]})")
    return tuple(int(part) for part in parts)
