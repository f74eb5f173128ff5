"""A network or a part of one: parameters and buffers with names, saved to and loaded from ``.npz``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nstcore import weights
from nstcore.autograd import Tensor
from nstcore.autograd.engine import NUMERIC
from nstcore.backend import moved
from nstcore.backend.arrays import beside, on_device, to_host
from nstcore.errors import DTypeError, WeightsError

Array = NDArray[Any]


class _Watch(threading.local):
    seen: Callable[[Module, Any], None] | None = None


_watch = _Watch()


@contextmanager
def watch(seen: Callable[[Module, Any], None]) -> Iterator[None]:
    """Call ``seen(module, result)`` whenever a module has computed something in a ``with`` block, in this thread."""
    before, _watch.seen = _watch.seen, seen
    try:
        yield
    finally:
        _watch.seen = before


class Module:
    """Base of layers and models.

    Every attribute that is a `Tensor` is a parameter, every attribute that is an array is a buffer (saved, but not
    trained, such as running statistics), every attribute that is a `Module` (or a list or dict of them) is a part; the
    name of a parameter or buffer is the path to it, such as ``conv1_1.weight``. Subclasses define ``forward``.
    `training` tells layers that behave otherwise while they learn; `train` and `eval` set it in all parts.
    """

    training = True

    def forward(self, *inputs: Any) -> Any:
        """Compute the result; called by ``module(...)``."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def __call__(self, *inputs: Any) -> Any:
        result = self.forward(*inputs)
        if _watch.seen is not None:
            _watch.seen(self, result)
        return result

    def named_parts(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Every module inside of this one under the path to it, such as ``blocks.0.conv1``; outer ones first."""
        for name, value in vars(self).items():
            yield from _walk_parts(value, prefix + name)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Every parameter with its name, in the order in which the attributes were set."""
        for name, value in vars(self).items():
            yield from _walk(value, prefix + name, lambda part, path: part.named_parameters(path), _is_parameter)

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Array]]:
        """Every buffer with its name, in the order in which the attributes were set."""
        for name, value in vars(self).items():
            yield from _walk(value, prefix + name, lambda part, path: part.named_buffers(path), _is_buffer)

    def modules(self) -> Iterator[Module]:
        """The module itself and all its parts."""
        yield self
        for value in vars(self).values():
            for _, part in _walk(value, "", lambda inner, path: ((path, m) for m in inner.modules()), _is_none):
                yield part

    def train(self, training: bool = True) -> Module:
        """Learn from now on (batch normalisation measures, dropout drops), or do not; returns the module itself."""
        for part in self.modules():
            part.training = training
        return self

    def eval(self) -> Module:
        """Work as trained from now on; returns the module itself."""
        return self.train(False)

    def parameters(self) -> list[Tensor]:
        """Every parameter; one that has several names is there once."""
        return list({id(p): p for _, p in self.named_parameters()}.values())

    def freeze(self) -> Module:
        """Compute no gradients for the parameters from now on; returns the module itself."""
        for p in self.parameters():
            p.requires_grad = False
        return self

    def to(self, backend: str) -> Module:
        """Move parameters and buffers where `backend` wants them, so that no op has to; returns the module itself.

        backend: "cuda", "cuda-on-cpu", or "cpu" for the host's memory. Forgets the gradients of what moves. Buffers of
        whole numbers, such as counters, stay in the host's memory: to read one on a device would be to wait for it.
        Raises `BackendUnavailable`, `ArgumentError` for an unknown name.
        """
        for p in self.parameters():
            there = moved(p.data, backend)
            if there is not p.data:
                p.data, p.grad = there, None
        return self._change_buffers(lambda array: moved(array, backend))

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """The arrays of parameters and buffers by name: themselves, but copies of those on a device."""
        return {name: to_host(array) for name, array in self._arrays()}

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        yield from ((name, p.data) for name, p in self.named_parameters())
        yield from self.named_buffers()

    def load_state_dict(self, arrays: Mapping[str, Array], source: str = "the given arrays") -> None:
        """Copy `arrays` into parameters and buffers, which keep their type; nothing changes when one does not fit.

        Raises `WeightsError` naming the first key that is missing, unknown, of another shape or not of real numbers.
        """
        parameters, own = dict(self.named_parameters()), dict(self._arrays())
        for name in [*own, *arrays]:
            problem = _misfit(own.get(name), arrays.get(name))
            if problem:
                raise WeightsError(f"[weights] {source}: {name} {problem}; is it the file of another network?")
        for name, array in own.items():
            given = np.array(to_host(arrays[name]), dtype=array.dtype)
            if name in parameters:
                parameters[name].data = beside(given, array)
            else:
                array[...] = beside(given, array)

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write parameters and buffers to an ``.npz`` with their digests; `meta` is stored beside them."""
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
        return self._change_buffers(lambda array: array.astype(wanted, copy=False))

    def _change_buffers(self, change: Callable[[Array], Array]) -> Module:
        """Put what `change` makes of each buffer of floats in its place; returns the module itself."""
        for part in self.modules():
            for name, value in vars(part).items():
                if _is_buffer(value) and value.dtype.kind == "f":
                    setattr(part, name, change(value))
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


def _is_parameter(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_buffer(value: Any) -> bool:
    return isinstance(value, np.ndarray) or on_device(value)


def _is_none(_: Any) -> bool:
    return False


def _walk(
    value: Any, name: str, inside: Callable[[Module, str], Iterator[tuple[str, Any]]], is_leaf: Callable[[Any], bool]
) -> Iterator[tuple[str, Any]]:
    """Every leaf in an attribute with its name, and what `inside` gives for the modules in it."""
    if is_leaf(value):
        yield name, value
    elif isinstance(value, Module):
        yield from inside(value, f"{name}.")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _walk(part, f"{name}.{i}", inside, is_leaf)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _walk(part, f"{name}.{key}", inside, is_leaf)


def _walk_parts(value: Any, name: str) -> Iterator[tuple[str, Module]]:
    if isinstance(value, Module):
        yield name, value
        yield from value.named_parts(f"{name}.")
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _walk_parts(part, f"{name}.{i}")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _walk_parts(part, f"{name}.{key}")


def _misfit(own: Array | None, given: Array | None) -> str | None:
    """What is wrong between a parameter or buffer and the array for it."""
    if own is None:
        return "is not a parameter of this network"
    if given is None:
        return "is missing"
    if own.shape != given.shape:
        return f"expects shape {own.shape}, got {given.shape}"
    if given.dtype.kind not in NUMERIC:
        return f"expects real numbers, got {given.dtype}"
    return None
