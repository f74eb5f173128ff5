"""The record of an operation, and the registry that tests, benchmarks, docs and ``nst ops`` read.

An operation is declared once, in its family's file, with everything that is known about it; nothing else in the
repository keeps a list of operations.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, DTypeError, ShapeError

Array = NDArray[Any]
FLOATS = ("float32", "float64")
LARGEST = 2**20  # of a stride, a window or a padding: products of three of them fit into 64 bits


@dataclass(frozen=True)
class Kernel:
    """One implementation of an operation and its gradient.

    ``forward(ctx, *arrays, **params)`` returns the result; it passes to ``ctx.save`` what the gradient needs.
    ``backward(ctx, grad, **params)`` returns one gradient an input, ``None`` where ``ctx.needs[i]`` is false.
    ``symbols`` are the native functions it calls; the gradients of a kernel that has some are new arrays of its own,
    which the tape may add to in place.
    ``add_backward(ctx, grad, into, **params)`` adds the gradient of the first input, when it is the only one wanted, to
    the contiguous array `into`: a pass over memory less where an input has a gradient from elsewhere already.
    """

    forward: Callable[..., Any]
    backward: Callable[..., tuple[Array | None, ...]] | None
    symbols: tuple[str, ...] = ()
    add_backward: Callable[..., object] | None = None


@dataclass(frozen=True)
class Tolerance:
    """How far a kernel may be from the reference, as max |a - b| / max |b|, by element type."""

    float32: float = 2e-6
    float64: float = 1e-13

    def __getitem__(self, dtype: str) -> float:
        return float(getattr(self, dtype))


@dataclass(frozen=True)
class Reach:
    """Which inputs along one axis a result is computed from: from ``o · stride − before`` on, `window` of them."""

    window: int = 1
    stride: int = 1
    before: int = 0


#: of an operation that takes every result from the inputs at its own place
IN_PLACE = (Reach(), Reach())


def reach_in_place(*_: Any, **__: Any) -> tuple[Reach, Reach]:
    """The `Op.reach` of an operation that works on each place alone."""
    return IN_PLACE


@dataclass(frozen=True)
class Case:
    """Sample inputs: `shapes` are filled by `draw` (default: standard normal), `params` go to the public function.

    `draw(rng, shape, index)` gives input number `index`; it stays away from kinks, where there is no derivative.
    `integers` lists inputs that are indices or labels: they keep their type and have no gradient.
    """

    label: str
    shapes: tuple[tuple[int, ...], ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    draw: Callable[[np.random.Generator, tuple[int, ...], int], Array] | None = None
    integers: tuple[int, ...] = ()
    tolerance: Tolerance | None = None  # where this case is less exact than the operation's other ones

    def inputs(self, dtype: str, seed: int = 0) -> list[Array]:
        """The arrays of this case, the same for the same seed."""
        rng = np.random.default_rng(seed)
        draw = self.draw or (lambda rng, shape, _: rng.standard_normal(shape))
        drawn = [np.asarray(draw(rng, shape, i)) for i, shape in enumerate(self.shapes)]
        return [a if i in self.integers else a.astype(dtype) for i, a in enumerate(drawn)]


@dataclass(frozen=True)
class Op:
    """Everything that is known about an operation.

    `signature` names the axes of inputs and result, such as ``"n h w c, k r s c, k -> n p q k"``; a leading ``...``
    means any axes, and ``[k]`` an input that may be left out. `flops` and `traffic` take the input shapes and
    parameters and give multiply-adds counted twice, and bytes an element type of one byte would move. `reach` takes the
    input shapes and the kernel's parameters and tells what a place of a (n, h, w, c) result is computed from, down and
    across; None where that is more than a window (as in a mean), and then from all of the input. `cuda_cases` are sizes
    around the tiles and blocks of the CUDA kernels, which the others do not reach; they run on those alone.
    """

    name: str
    signature: str
    public: Callable[..., Any]
    reference: Kernel
    cases: tuple[Case, ...]
    cpu: Kernel | None = None
    cuda: Kernel | None = None
    cuda_cases: tuple[Case, ...] = ()
    dtypes: tuple[str, ...] = FLOATS
    tolerance: Tolerance = field(default_factory=Tolerance)
    gradient: bool = True
    flops: Callable[..., float] | None = None
    traffic: Callable[..., float] | None = None
    reach: Callable[..., tuple[Reach, Reach] | None] | None = None
    source: str = ""

    def allowed(self, case: Case, dtype: str) -> float:
        """How far a kernel may be from the reference in `case`."""
        return (case.tolerance or self.tolerance)[dtype]

    def kernel(self, backend: str) -> Kernel:
        """The implementation for `backend`; operations without native kernels use their reference everywhere.

        On a device the reference runs through CuPy, which takes NumPy's functions.
        """
        native = {"cpu": self.cpu, "cuda": self.cuda, "cuda-on-cpu": self.cuda}.get(backend)
        return self.reference if native is None else native


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Add `op` to the registry; a name can be taken once."""
    if op.name in OPS:
        raise ValueError(f"operation {op.name!r} is registered twice")
    OPS[op.name] = op
    return op


def parse_signature(signature: str) -> tuple[list[list[str]], list[str]]:
    """Axis names of each input and of the result: ``"n d, m d -> n m"`` gives ``([[n, d], [m, d]], [n, m])``."""
    left, right = signature.split("->")
    return [part.split() for part in left.split(",")], right.split()


def check_shapes(op: Op, arrays: Sequence[Array | None]) -> dict[str, int]:
    """Bind the axis names of ``op.signature`` to the sizes of `arrays` and return them.

    Raises `ShapeError` when an array has another number of axes, or an axis name would get two sizes.
    """
    inputs, _ = parse_signature(op.signature)
    sizes: dict[str, int] = {}
    for names, array in zip(inputs, arrays, strict=True):
        if array is None:
            continue
        plain = [name.strip("[]") for name in names if name != "..."]
        leading = array.ndim - len(plain)
        if leading < 0 or (leading > 0 and names[0] != "..."):
            expected = ", ".join(name.strip("[]") for name in names)
            raise ShapeError(f"[{op.name}] expects ({expected}), got {array.shape}")
        for name, size in zip(plain, array.shape[leading:], strict=True):
            known = str(size) if not name.isdecimal() else name
            if sizes.setdefault(name, int(known)) != size:
                shapes = ", ".join(str(a.shape) for a in arrays if a is not None)
                raise ShapeError(
                    f"[{op.name}] axis {name} must agree in {op.signature.split('->')[0].strip()}, got {shapes}"
                )
    return sizes


def check_dtypes(op: Op, arrays: Sequence[Array | None]) -> None:
    """Raise `DTypeError` unless all `arrays` share one element type that `op` takes."""
    present = [a for a in arrays if a is not None]
    kinds = {a.dtype.name for a in present}
    if len(kinds) != 1 or not kinds <= set(op.dtypes):
        got = ", ".join(a.dtype.name for a in present)
        raise DTypeError(f"[{op.name}] expects arrays of one type, {' or '.join(op.dtypes)}, got {got}")


def whole(op: str, name: str, value: Any) -> int:
    """`value` as an int; `ArgumentError` for anything but a whole number."""
    try:
        if not isinstance(value, (bool, np.bool_)):
            return operator.index(value)
    except TypeError:
        pass
    raise ArgumentError(f"[{op}] expects {name} of whole numbers, got {value!r}")


def pair(op: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """`value`, a whole number or two (vertical, horizontal), as two, each from `least` to `LARGEST`."""
    both = value if isinstance(value, (tuple, list)) else (value, value)
    try:
        first, second = (whole(op, name, v) for v in both)
    except ValueError:  # three of them, or no whole numbers
        first = second = least - 1
    if min(first, second) < least or max(first, second) > LARGEST:
        bound = f"at most {LARGEST}" if min(first, second) >= least else f"at least {least}"
        raise ArgumentError(f"[{op}] expects {name} of one or two whole numbers, {bound}, got {value!r}")
    return first, second


def check_result(op: str, shape: Sequence[int], itemsize: int) -> None:
    """Raise `ArgumentError` for a result larger than any array can be; what memory cannot hold is a `MemoryError`."""
    if math.prod(shape) * itemsize > sys.maxsize // 2:
        raise ArgumentError(f"[{op}] expects a result that an array can hold, got {tuple(shape)}")
