"""A NumPy array that remembers how it was computed."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nstcore.autograd.engine import NUMERIC, Node, native_order, run_backward
from nstcore.backend.arrays import as_array, beside, copied, on_device, to_host
from nstcore.errors import DTypeError, GradientError, ShapeError

if TYPE_CHECKING:
    from types import ModuleType

Index = int | slice | EllipsisType | None | NDArray[Any] | list[int] | tuple[Any, ...]


def _ops() -> ModuleType:
    from nstcore import ops

    return ops


class Tensor:
    """An array, its gradient, and its place on the tape.

    ``data`` is the array itself (not a copy), ``grad`` an array of the same shape and type or None. Operators and
    methods are the functions of `nstcore.ops`. Gradients accumulate: a second ``backward()`` adds to ``grad``.
    """

    __slots__ = ("__weakref__", "_node", "data", "grad", "requires_grad")
    __array_ufunc__ = None  # so that array + tensor calls our __radd__

    def __init__(self, data: NDArray[Any], requires_grad: bool = False, _node: Node | None = None) -> None:
        if not hasattr(data, "dtype"):
            raise DTypeError(f"[tensor] Tensor wraps an array, got {type(data).__name__}; use nst.tensor(...) instead")
        if requires_grad and data.dtype.name not in ("float32", "float64"):
            raise DTypeError(f"[tensor] a gradient needs float32 or float64, got {data.dtype}")
        self.data = data
        self.grad: NDArray[Any] | None = None
        self.requires_grad = requires_grad
        self._node = _node

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.data.dtype

    @property
    def is_leaf(self) -> bool:
        """Whether the tensor was made by the user, not by an operation on the tape."""
        return self._node is None

    def numpy(self) -> NDArray[Any]:
        """The array itself, not a copy."""
        return self.data

    def item(self) -> float:
        """The only element, as a Python number."""
        return self.data.item()  # type: ignore[no-any-return]

    def detach(self) -> Tensor:
        """The same array, cut off from the tape."""
        return Tensor(self.data)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def backward(self, grad: ArrayLike | None = None, *, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to ``grad`` of every leaf that it was computed from.

        grad: gradient of the final result with respect to this tensor, same shape; 1 for a scalar.
        retain_graph: keep the tape for another ``backward()``.

        Raises `GradientError` when nothing was recorded, when a saved array was changed in place, or when the tape
        was already used; `ShapeError` when `grad` is missing for a non-scalar or has another shape.
        """
        if not self.requires_grad:
            raise GradientError("[backward] nothing to differentiate: no input of this tensor has requires_grad=True")
        if grad is None and self.size != 1:
            raise ShapeError(f"[backward] expects a scalar, or grad= of the same shape, got {self.shape}")
        seed = np.ones_like(self.data) if grad is None else beside(as_array(grad, self.dtype), self.data)
        if seed.shape != self.shape:
            raise ShapeError(f"[backward] expects grad of shape {self.shape}, got {seed.shape}")
        if self._node is None:
            _deliver(self, seed, owned=False)
        else:
            run_backward(self._node, seed, retain_graph, _deliver)

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        body = np.array2string(to_host(self.data), separator=", ", prefix="tensor(", threshold=100)
        return f"tensor({body}, dtype={self.dtype}{grad})"

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.item())

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if self.requires_grad:
            raise GradientError("[tensor] NumPy would lose the gradient; use .data, or .detach() first")
        return np.array(self.data, dtype=dtype, copy=bool(copy)) if copy else np.asarray(self.data, dtype)

    def __setitem__(self, index: Index, value: object) -> None:
        raise TypeError("[tensor] tensors are not changed in place; assign to .data[...] outside the tape instead")

    def __getitem__(self, index: Index) -> Tensor:
        return _ops().getitem(self, index)  # type: ignore[no-any-return]

    def __add__(self, other: Any) -> Tensor:
        return _ops().add(self, other)  # type: ignore[no-any-return]

    def __radd__(self, other: Any) -> Tensor:
        return _ops().add(other, self)  # type: ignore[no-any-return]

    def __sub__(self, other: Any) -> Tensor:
        return _ops().sub(self, other)  # type: ignore[no-any-return]

    def __rsub__(self, other: Any) -> Tensor:
        return _ops().sub(other, self)  # type: ignore[no-any-return]

    def __mul__(self, other: Any) -> Tensor:
        return _ops().mul(self, other)  # type: ignore[no-any-return]

    def __rmul__(self, other: Any) -> Tensor:
        return _ops().mul(other, self)  # type: ignore[no-any-return]

    def __truediv__(self, other: Any) -> Tensor:
        return _ops().div(self, other)  # type: ignore[no-any-return]

    def __rtruediv__(self, other: Any) -> Tensor:
        return _ops().div(other, self)  # type: ignore[no-any-return]

    def __pow__(self, exponent: float) -> Tensor:
        return _ops().power(self, exponent)  # type: ignore[no-any-return]

    def __matmul__(self, other: Any) -> Tensor:
        return _ops().matmul(self, other)  # type: ignore[no-any-return]

    def __rmatmul__(self, other: Any) -> Tensor:
        return _ops().matmul(other, self)  # type: ignore[no-any-return]

    def __neg__(self) -> Tensor:
        if self.dtype.kind == "f":
            return _ops().mul(self, -1.0)  # type: ignore[no-any-return]
        return _ops().sub(np.zeros((), self.dtype), self)  # type: ignore[no-any-return]

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """See `nstcore.ops.sum`."""
        return _ops().sum(self, axis, keepdims)  # type: ignore[no-any-return]

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """See `nstcore.ops.mean`."""
        return _ops().mean(self, axis, keepdims)  # type: ignore[no-any-return]

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """See `nstcore.ops.reshape`."""
        return _ops().reshape(self, shape)  # type: ignore[no-any-return]

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """See `nstcore.ops.transpose`."""
        return _ops().transpose(self, axes or None)  # type: ignore[no-any-return]

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self.transpose()


def _deliver(leaf: Tensor, grad: NDArray[Any], owned: bool) -> None:
    """Add `grad` to a leaf's gradient; a copy, unless nobody else holds it (one may be that of several tensors).

    A gradient is where its leaf is, wherever it was computed.
    """
    if on_device(grad) != on_device(leaf.data):
        grad, owned = beside(grad, leaf.data), True
    if leaf.grad is None:
        is_array = on_device(grad) or isinstance(grad, np.ndarray)  # and no scalar of NumPy
        given = owned and is_array and grad.dtype == leaf.dtype
        leaf.grad = grad if given else copied(grad, leaf.dtype)
    else:
        leaf.grad = as_array(leaf.grad + grad, leaf.dtype)


def tensor(a: ArrayLike | Tensor, requires_grad: bool = False, dtype: DTypeLike | None = None) -> Tensor:
    """A tensor with a copy of `a`.

    a: array (the copy of one of CuPy is on its device), nested list or number; Python floats become float32, arrays
    keep their type, in the machine's byte order.
    requires_grad: whether ``backward()`` fills its ``grad``; needs float32 or float64.

    Raises `DTypeError` for anything but real numbers, `ShapeError` for rows of unequal length.

    >>> x = tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4.], dtype=float32)
    """
    if isinstance(a, Tensor):
        a = a.data
    try:
        array = copied(a, dtype) if on_device(a) else np.array(a, dtype=dtype)
    except ValueError as error:
        raise ShapeError(f"[tensor] expects numbers in rows of equal length: {error}") from None
    if array.dtype.kind not in NUMERIC:
        raise DTypeError(f"[tensor] expects real numbers, got {array.dtype} {array.shape}")
    if dtype is None and array.dtype == np.float64 and not (on_device(a) or isinstance(a, (np.ndarray, np.generic))):
        array = array.astype(np.float32)
    return Tensor(native_order(array), requires_grad)
