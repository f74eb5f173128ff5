"""Memory for the results and the working space of native kernels, used again instead of being given back.

Fresh memory is expensive: the system clears each page when it is first touched, which takes about as long as a kernel
that is limited by memory. So what an array leaves behind is kept for the next one, whatever its size: at most
`KEPT_LIMIT` bytes, or inside of `reuse` as much as a run needs. Any array may be freed by any thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nstcore.backend.loading import module as _native

PAGE = 4096  # bytes of a page of memory
KEPT_LIMIT: int = _native.kept_limit  # bytes that are kept outside of `reuse`


class Memory(NamedTuple):
    """Bytes of arrays and working space in use, and bytes kept for the next ones (small arrays are not counted)."""

    used: int
    kept: int


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An uninitialised array; from a page on, its first element lies at the start of a cache line.

    NumPy's own large arrays start 16 bytes into a line: every 64-byte vector of them lies in two lines, and none can
    be stored past the caches.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < PAGE:
        return np.empty(shape, kind)
    array: NDArray[Any] = _native.empty(kind, shape, size)
    return array


@contextmanager
def reuse() -> Iterator[None]:
    """Keep all that is freed inside of a ``with`` block for what comes next there; give it back at the end.

    For work that allocates the same again and again: after its first round there are no page faults. What is held never
    exceeds 9/8 of the most that was in use at once. Blocks may be nested and run in several threads; what is kept goes
    when the last one ends.
    """
    _native.keep_blocks(True)
    try:
        yield
    finally:
        _native.keep_blocks(False)


def usage() -> Memory:
    """What is in use, and what is kept."""
    return Memory(*_native.count_blocks())


def give_back() -> None:
    """Give what is kept back to the system, but for what lies in one huge page (2 MiB) with an array in use.

    Inside of `reuse`, what is held from then on is measured by what is in use from then on: for when other work begins.
    """
    _native.give_back_blocks()
