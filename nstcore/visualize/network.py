"""Any network as named layers: what they are called, and what each of them gives for a picture.

A network of `nstcore.models` has ``layers`` and ``walk(images, layers)``. Of any other `nn.Module` every part that
gives a feature map (n, h, w, c) is a layer, under the name of its parameters (``parts.2``, ``blocks.0.conv1``); one
that runs more than once is ``name``, ``name#2`` and so on; and what the network itself gives is ``output``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor, no_grad
from nstcore.backend import current_backend
from nstcore.errors import ArgumentError, DTypeError, ShapeError
from nstcore.nn.module import Module, watch

Array = NDArray[Any]
Visit = Callable[[str, Tensor], None]
OUTPUT = "output"
#: a picture of this height and width finds the layers of a network that does not list them
PROBE = (224, 224)


class _Enough(Exception):
    """Ends a pass of which nothing more is wanted."""


def check_network(net: Any) -> Module:
    """`net`, if it is a network, moved where the backend computes; `DTypeError` for anything else."""
    if not isinstance(net, Module):
        raise DTypeError(f"[visualize] expects a network (nn.Module), got {type(net).__name__}")
    return net.to(current_backend())


@contextmanager
def evaluating(net: Module) -> Iterator[None]:
    """Let all parts of `net` work as trained in a ``with`` block; afterwards those learn again that did before.

    A network that is looked at must not change: batch normalisation would move its running moments.
    """
    before = [(part, vars(part).get("training")) for part in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for part, training in before:
            if training is None:  # it had the class's own
                vars(part).pop("training", None)
            else:
                part.training = training


def is_named(net: Module) -> bool:
    """Whether the network lists its layers itself."""
    return hasattr(net, "walk") and hasattr(net, "layers")


def dtype_of(net: Module) -> np.dtype[Any]:
    """Element type of the network's parameters; float32 where it has none."""
    return next((p.dtype for p in net.parameters()), np.dtype(np.float32))


def layer_names(net: Module, probe: Sequence[int] = PROBE) -> list[str]:
    """Names of all layers of a network, from the picture upwards.

    probe: height and width of the picture that is sent through a network that does not list its layers itself; where
    it has the wrong size for some of them, those above are left out.

    >>> from nstcore import nn
    >>> layer_names(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), (8, 8))
    ['parts.0', 'parts.1', 'output']
    """
    if is_named(check_network(net)):
        return list(net.layers)  # type: ignore[attr-defined]
    found: list[str] = []

    def run(picture: Tensor) -> None:
        found.clear()
        try:
            with evaluating(net):
                _visit_parts(net, picture, lambda name, _: found.append(name))
        except ShapeError:  # dense layers at the end may be for pictures of one size
            if not found or not picture.shape[0]:
                raise

    without_work(net, probe, run)
    return found


def check_layers(net: Module, layers: Iterable[str], probe: Sequence[int] = PROBE) -> list[str]:
    """`layers` as a list; `ArgumentError`, naming the ones there are, when one is unknown."""
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise ArgumentError(f"[visualize] expects layers as a list of names, got {layers!r}")
    wanted, known = list(dict.fromkeys(layers)), layer_names(net, probe)
    for name in wanted:
        if name not in known:
            raise ArgumentError(f"[visualize] the network has no layer {name!r}; it has {', '.join(known)}")
    if not wanted:
        raise ArgumentError(f"[visualize] expects at least one layer of {', '.join(known)}")
    return wanted


def check_unit(layer: str, unit: Any, units: int) -> int:
    """`unit` as an int; `ArgumentError` unless it is one of the layer's `units`."""
    whole = isinstance(unit, (int, np.integer)) and not isinstance(unit, bool)
    if not whole or not 0 <= unit < units:
        raise ArgumentError(f"[visualize] expects a unit of {layer} from 0 to {units - 1}, got {unit!r}")
    return int(unit)


def blank(net: Module, size: Sequence[int], count: int = 1) -> Tensor:
    """Grey pictures (count, h, w, 3) in the network's element type."""
    return Tensor(np.full((count, size[0], size[1], 3), 0.5, dtype_of(net)))


def visit(net: Module, images: Tensor, layers: Sequence[str], seen: Visit) -> None:
    """Send `images` (n, h, w, 3) through `net` and call ``seen(name, activation)`` for each of `layers`.

    It is called as soon as the layer is computed; what it does not keep is gone before the next ones are, and nothing
    above the last of `layers` is computed. The network works as trained (`evaluating`), whatever it did before.
    Raises what the network raises, such as `ShapeError` for a small picture.
    """
    with evaluating(net):
        if is_named(net):
            for name, x in net.walk(images, layers):  # type: ignore[attr-defined]
                seen(name, x)
                del x  # the generator holds the only other reference
        else:
            _visit_some(net, images, layers, seen)


def _visit_some(net: Module, images: Tensor, layers: Sequence[str], seen: Visit) -> None:
    """`visit` of a network that does not list its layers itself."""
    left = set(layers)

    def pick(name: str, x: Tensor) -> None:
        if name in left:
            left.discard(name)
            seen(name, x)
            if not left:
                raise _Enough

    _visit_parts(net, images, pick)
    if left:
        raise ShapeError(f"[visualize] the network computed no layer {min(left)!r} for pictures of {images.shape}")


def _visit_parts(net: Module, images: Tensor, seen: Visit) -> None:
    """Call `seen` for every feature map that a part of the network computes."""
    names: dict[int, str] = {}
    for name, part in net.named_parts():
        names.setdefault(id(part), name)
    names[id(net)] = OUTPUT
    runs: dict[str, int] = {}

    def hear(part: Module, result: Any) -> None:
        name = names.get(id(part))
        if name is None or not isinstance(result, Tensor) or result.ndim != 4:
            return
        runs[name] = runs.get(name, 0) + 1
        seen(name if runs[name] == 1 else f"{name}#{runs[name]}", result)

    try:
        with watch(hear):
            net(images)
    except _Enough:
        pass


def activations(net: Module, images: Tensor, layer: str) -> Tensor:
    """The activation of one layer, (n, h', w', c), with the tape behind it when `images` wants a gradient."""
    found: list[Tensor] = []
    visit(net, images, [layer], lambda _, x: found.append(x))
    return found[0]


def units_of(net: Module, layers: Sequence[str], probe: Sequence[int] = PROBE) -> dict[str, int]:
    """How many units (channels) each of `layers` has.

    >>> from nstcore import models
    >>> units_of(models.vgg16(), ["conv1_1", "conv3_2"])
    {'conv1_1': 64, 'conv3_2': 256}
    """
    found: dict[str, int] = {}
    without_work(
        net, probe, lambda picture: visit(net, picture, layers, lambda name, x: found.update({name: x.shape[3]}))
    )
    return found


def without_work(net: Module, size: Sequence[int], run: Callable[[Tensor], object]) -> None:
    """Call ``run(pictures)`` to find out about shapes: with no pictures, which have every shape and take no time.

    A user's network may not take them; then with one grey picture.
    """
    with no_grad():
        try:
            run(blank(net, size, 0))
        except Exception:  # whatever a user's own code raises
            run(blank(net, size))


def network_digest(net: Module) -> str:
    """SHA-256, in hex, of what the network computes with: its parts, their settings and parameters.

    Settings are the attributes that are numbers, texts or functions, also in lists and dicts; of classes that are not
    ours the instructions of ``forward`` count, too. Whether it learns does not: it is looked at as trained.
    """
    digest = hashlib.sha256()
    for name, part in (("", net), *net.named_parts()):
        facts = {key: value for key, value in vars(part).items() if key != "training"}
        digest.update(f"{name}: {type(part).__name__} {_described(facts)}\n".encode("utf-8", "surrogatepass"))
        if not type(part).__module__.startswith("nstcore."):
            digest.update(_instructions(type(part).forward).encode())
    for name, array in net.state_dict().items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _described(value: Any) -> str:
    """A setting as text that is the same in every process; arrays and parts, which count elsewhere, as their type."""
    if isinstance(value, (str, bytes, int, float, complex, bool, np.generic, np.dtype, type(None))):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{key!r}: {_described(part)}" for key, part in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_described, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_described, value))) + "}"
    return f"{getattr(value, '__qualname__', type(value).__qualname__)} {_instructions(value)}"


def _instructions(function: Any) -> str:
    """What a Python function does, as text: its instructions, names and constants; nothing of anything else."""
    code = getattr(function, "__code__", function)
    if not isinstance(code, CodeType):
        return ""
    constants = [_instructions(part) if isinstance(part, CodeType) else _described(part) for part in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
