"""Arrays of NumPy and arrays on a device, alike: NumPy's functions work on both, `numpy.asarray` does not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nstcore.backend.memory import empty


def on_device(x: Any) -> bool:
    """Whether `x` is an array in the memory of a GPU, such as one of CuPy."""
    return hasattr(type(x), "__cuda_array_interface__")


def as_array(x: Any, dtype: DTypeLike | None = None) -> Any:
    """`x` as an array where it is: on its device, or as ``numpy.asarray`` makes it."""
    if not on_device(x):
        return np.asarray(x, dtype)
    return x if dtype is None else x.astype(dtype, copy=False)


def to_host(x: Any) -> Any:
    """`x` as an array of NumPy; one on a device is copied, when all that was launched is done."""
    if not on_device(x):
        return np.asarray(x)
    from nstcore.backend.cuda import fetched

    return fetched(x)


def beside(x: Any, like: Any) -> Any:
    """`x` where `like` is: on its device, or in the host's memory."""
    if not on_device(like):
        return to_host(x)
    from nstcore.backend.cuda import backend_of, to_device

    return to_device(backend_of(like), x)


def empty_beside(like: Any, shape: tuple[int, ...] | None = None) -> Any:
    """An uninitialised array of the type of `like`, where it is; of its shape, unless another is given."""
    wanted = like.shape if shape is None else shape
    if not on_device(like):
        return empty(wanted, like.dtype)
    from nstcore.backend.cuda import empty_like

    return empty_like(like, wanted)


def copied(x: Any, dtype: DTypeLike | None = None) -> Any:
    """A copy of `x` where it is, in the machine's order of bytes."""
    return x.astype(dtype or x.dtype, copy=True) if on_device(x) else np.array(x, dtype)
