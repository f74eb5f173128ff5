"""A network or a part of one: parameters with names, saved to and loaded from ``.npz``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nstcore import weights
from nstcore.autograd import Tensor
from nstcore.autograd.engine import NUMERIC
from nstcore.backend import moved
from nstcore.backend.arrays import beside, to_host
from nstcore.errors import DTypeError, WeightsError

Array = NDArray[Any]


class Module:
    """Base of layers and models.

    Every attribute that is a `Tensor` is a parameter, every attribute that is a `Module` (or a list or dict of them)
    is a part; a parameter's name is the path to it, such as ``conv1_1.weight``. Subclasses define ``forward``.
    """

    def forward(self, *inputs: Any) -> Any:
        """Compute the result; called by ``module(...)``."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Every parameter with its name, in the order in which the attributes were set."""
        for name, value in vars(self).items():
            yield from _walk(value, prefix + name)

    def parameters(self) -> list[Tensor]:
        """Every parameter; one that has several names is there once."""
        return list({id(p): p for _, p in self.named_parameters()}.values())

    def freeze(self) -> Module:
        """Compute no gradients for the parameters from now on; returns the module itself."""
        for p in self.parameters():
            p.requires_grad = False
        return self

    def to(self, backend: str) -> Module:
        """Move the parameters where `backend` wants them, so that no op has to; returns the module itself.

        backend: "cuda", "cuda-on-cpu", or "cpu" for the host's memory. Forgets the gradients.
        Raises `BackendUnavailable`, `ArgumentError` for an unknown name.
        """
        for p in self.parameters():
            p.data, p.grad = moved(p.data, backend), None
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """The parameters' arrays (not copies, but of those on a device) by name."""
        return {name: to_host(p.data) for name, p in self.named_parameters()}

    def load_state_dict(self, arrays: Mapping[str, Array], source: str = "the given arrays") -> None:
        """Copy `arrays` into the parameters, which keep their element type; nothing changes when one does not fit.

        Raises `WeightsError` naming the first key that is missing, unknown, of another shape or not of real numbers.
        """
        own = dict(self.named_parameters())
        for name in [*own, *arrays]:
            problem = _misfit(own.get(name), arrays.get(name))
            if problem:
                raise WeightsError(f"[weights] {source}: {name} {problem}; is it the file of another network?")
        for name, p in own.items():
            p.data = beside(np.array(to_host(arrays[name]), dtype=p.dtype), p.data)

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write the parameters to an ``.npz`` with their digests; `meta` is stored beside them."""
        facts = {"architecture": type(self).__name__.lower(), "preprocessing": None, **meta}
        weights.save(path, self.state_dict(), facts)

    def load(self, path: str | Path) -> None:
        """Read parameters that `save` wrote; `WeightsError` when the file is damaged or of another network."""
        self.load_state_dict(weights.load(path).arrays, str(path))

    def astype(self, dtype: DTypeLike) -> Module:
        """Change the parameters' type (float32 or float64) and forget their gradients; returns the module itself.

        Raises `DTypeError` for any other type.
        """
        wanted = float_type(type(self).__name__, dtype)
        for p in self.parameters():
            p.data, p.grad = p.data.astype(wanted, copy=False), None
        return self


def float_type(op: str, dtype: DTypeLike) -> np.dtype[Any]:
    """`dtype` as NumPy's; `DTypeError` unless it is float32 or float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise DTypeError(f"[{op}] expects dtype float32 or float64, got {dtype if found is None else found}")
    return found


def _walk(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Module):
        yield from value.named_parameters(f"{name}.")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _walk(part, f"{name}.{i}")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _walk(part, f"{name}.{key}")


def _misfit(own: Tensor | None, given: Array | None) -> str | None:
    """What is wrong between a parameter and the array for it."""
    if own is None:
        return "is not a parameter of this network"
    if given is None:
        return "is missing"
    if own.shape != given.shape:
        return f"expects shape {own.shape}, got {given.shape}"
    if given.dtype.kind not in NUMERIC:
        return f"expects real numbers, got {given.dtype}"
    return None
