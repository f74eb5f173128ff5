"""Memory for the results of native kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

PAGE, LINE = 4096, 64  # bytes of a page of memory, and of a cache line (and the widest vector)


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An uninitialised array; from a page on, its first element lies at the start of a cache line.

    NumPy's own large arrays start 16 bytes into a line: every 64-byte vector of them lies in two lines, and none can
    be stored past the caches.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < PAGE:
        return np.empty(shape, kind)
    block = np.empty(size + LINE, np.uint8)
    start = -block.ctypes.data % LINE
    return block[start : start + size].view(kind).reshape(shape)
