"""The index of a set of pictures: the highest activations of all units of all layers, in one pass, kept in a file.

A file is an ordinary ``.npz``, stored plainly, written whole or not at all. It names by digests the network, the
pictures and the options that it was made with, and how far the pass has come, so that a later one goes on from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor, no_grad
from nstcore.backend.memory import reuse
from nstcore.errors import NstError, PatchIndexError, ShapeError
from nstcore.files import atomic_write
from nstcore.nn.module import Module
from nstcore.visualize.network import dtype_of, network_digest, visit
from nstcore.visualize.pictures import Pictures
from nstcore.visualize.receptive_field import ReceptiveField, traced
from nstcore.visualize.top import COLUMNS, Best
from nstcore.weights import archive, npy
from nstcore.weights.format import array_digest, meta_digest

Array = NDArray[Any]
Fields = Mapping[str, ReceptiveField]
FORMAT, VERSION, META = "nstcore-patches", 1, "__meta__"
SAVE_SECONDS = 60.0  # a pass that is killed loses no more than this
MOST_BROKEN = 1000  # pictures that could not be read, listed with the reason; all of them are counted
_MOST_META_BYTES = 16 << 20


@dataclass(frozen=True)
class Progress:
    """One more picture: how many are done, of how many; how many were skipped, and the last one's name."""

    done: int
    total: int
    skipped: int
    name: str


@dataclass(frozen=True)
class Found:
    """What the first `done` pictures gave, see `PatchIndex`; replaced as a whole, so that no picture counts half."""

    layers: Mapping[str, Best]
    done: int = 0
    skipped: int = 0
    broken: tuple[tuple[str, str], ...] = ()
    small: Mapping[str, int] = field(default_factory=dict)


@dataclass
class PatchIndex:
    """What a pass over `total` pictures has found so far.

    found.done of them were looked at; found.layers: the highest activations by layer; found.skipped: how many pictures
    could not be used, found.broken: their names and the reasons (of the first thousand); found.small: by layer, how
    many pictures are smaller than a unit's receptive field (their patches are padded). All of them are attributes, too.
    network, pictures: digests of what it was made of.
    """

    found: Found
    network: str
    pictures: str
    total: int

    @property
    def layers(self) -> Mapping[str, Best]:
        """The highest activations by layer."""
        return self.found.layers

    @property
    def done(self) -> int:
        """How many pictures were looked at."""
        return self.found.done

    @property
    def skipped(self) -> int:
        """How many of them could not be used."""
        return self.found.skipped

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        """Names of those, and the reasons."""
        return self.found.broken

    @property
    def small(self) -> Mapping[str, int]:
        """By layer, how many pictures are smaller than its receptive field."""
        return self.found.small

    @property
    def count(self) -> int:
        """How many activations a unit keeps."""
        return next(iter(self.layers.values())).value.shape[1]

    @property
    def several(self) -> bool:
        """Whether one picture may give several of them."""
        return next(iter(self.layers.values())).several

    def save(self, path: str | Path) -> None:
        """Write the index, whole or not at all; `OutputError` where the place refuses."""
        arrays: dict[str, Array] = {}
        for number, best in enumerate(self.layers.values()):
            arrays |= {f"{number}.value": best.value, f"{number}.places": best.places}
        facts: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "layers": list(self.layers), "several": self.several,
            "network": self.network, "pictures": self.pictures, "total": self.total, "done": self.done,
            "skipped": self.skipped, "broken": self.broken, "small": dict(self.small), "columns": COLUMNS,
            "digests": {key: array_digest(array) for key, array in arrays.items()},
        }  # fmt: skip
        facts = json.loads(json.dumps(facts))
        text = json.dumps(facts | {"digest": meta_digest(facts)}).encode("ascii")
        blocks = {META: np.frombuffer(text, np.uint8), **arrays}
        members = [(key, npy.header(a), a.reshape(-1).view(np.uint8).data) for key, a in blocks.items()]

        def write(file: BinaryIO) -> None:
            archive.write_members(file, members)

        atomic_write(path, write)


def load_index(path: str | Path) -> PatchIndex:
    """Read an index and check all of it; `PatchIndexError` when it is missing, damaged, altered or none at all."""
    try:
        with open(path, "rb") as file:
            blocks = archive.read_members(file)
        arrays = {key: npy.parse(block) for key, block in blocks.items()}
        return _checked(arrays, arrays.pop(META, None))
    except OSError as error:
        raise PatchIndexError(f"[patches] {path} cannot be read: {error.strerror or error}") from error
    except KeyError as error:
        raise _damaged(path, f"{error.args[0]} {error.args[-1]}" if len(error.args) > 1 else str(error)) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: str | Path, problem: str) -> PatchIndexError:
    return PatchIndexError(f"[patches] {path} is no index that can be used: {problem}; delete it to make a new one")


def _checked(arrays: Mapping[str, Array], text: Array | None) -> PatchIndex:
    """The index in a file's arrays; ValueError, TypeError or KeyError with the reason when something does not fit."""
    if text is None or text.dtype != np.uint8 or text.size > _MOST_META_BYTES:
        raise ValueError("it has no table of facts")
    facts = dict(json.loads(text.tobytes()))
    if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        raise ValueError(f"expects {FORMAT} version {VERSION}, got {facts.get('format')!r:.40}")
    if facts.get("digest") != meta_digest(facts) or facts["columns"] != list(COLUMNS):
        raise ValueError("its facts do not match their digest")
    names, total, done = [str(name) for name in facts["layers"]], int(facts["total"]), int(facts["done"])
    if sorted(arrays) != sorted(f"{i}.{kind}" for i in range(len(names)) for kind in ("value", "places")) or not names:
        raise ValueError("its arrays are not those of its layers")
    layers: dict[str, Best] = {}
    for number, name in enumerate(names):
        value, places = arrays[f"{number}.value"], arrays[f"{number}.places"]
        for key, array in ((f"{number}.value", value), (f"{number}.places", places)):
            if facts["digests"].get(key) != array_digest(array):
                raise ValueError(f"{key} does not match its digest")
        kinds = (value.dtype.name, value.ndim, places.dtype.name, places.shape)
        if kinds != ("float32", 2, "int32", (len(COLUMNS), *value.shape)) or not value.shape[1]:
            raise ValueError(f"{number}.value has {value.dtype} {value.shape}, the places {places.shape}")
        if places[0].max(initial=-1) >= done or places[0].min(initial=-1) < -1:
            raise ValueError(f"{number}.places names pictures that were not looked at")
        layers[name] = Best.from_arrays(value, places, bool(facts["several"]))
    if len({best.value.shape[1] for best in layers.values()}) != 1 or not 0 <= done <= total:
        raise ValueError("its layers or its progress do not agree")
    broken = [(str(name), str(reason)) for name, reason in facts["broken"]]
    if not isinstance(facts["small"], dict):
        raise ValueError("it has no table of small pictures")
    small = {str(name): int(count) for name, count in facts["small"].items()}
    found = Found(layers, done, int(facts["skipped"]), tuple(broken), small)
    return PatchIndex(found, str(facts["network"]), str(facts["pictures"]), total)


def new_index(
    net: Module, pictures: Pictures, units: Mapping[str, int], count: int = 9, several: bool = False
) -> PatchIndex:
    """An index of nothing yet, for the layers of `units` with so many units each."""
    layers = {name: Best(number, count, several) for name, number in units.items()}
    return PatchIndex(Found(layers), network_digest(net), pictures.digest(), len(pictures))


def check_index(index: PatchIndex, wanted: PatchIndex, path: str | Path) -> None:
    """Refuse an index that was made of something else than `wanted`, or lacks a layer of it; `PatchIndexError`."""
    missing = [name for name in wanted.layers if name not in index.layers]
    for differs, what in (
        (index.network != wanted.network, "of another network or other weights"),
        (index.pictures != wanted.pictures or index.total != wanted.total, "of other pictures, or they changed since"),
        (index.count < wanted.count, f"with {index.count} patches a unit, not {wanted.count}"),
        (index.several != wanted.several, "with another rule for several patches of one picture"),
        (bool(missing), f"without layer {missing[0] if missing else ''}"),
    ):
        if differs:
            raise PatchIndexError(f"[patches] {path} was made {what}; name another file, or let it be made again")


def fill_index(
    net: Module,
    pictures: Pictures,
    index: PatchIndex,
    path: str | Path | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> PatchIndex:
    """Look at the pictures that `index` has not seen yet, one at a time, and return it.

    path: where it is written, every minute and at the end; also when the pass is interrupted or fails.
    A picture that cannot be read, or is too small for the network, is skipped and listed.
    """
    if index.done == index.total:
        return index
    saved = time.monotonic()
    fields: dict[tuple[int, ...], Fields] = {}
    try:
        with no_grad(), reuse():
            for number, picture in pictures.ahead(index.done):
                index.found = _look(net, index.found, number, pictures.names[number], picture, fields)
                if progress is not None:
                    progress(Progress(index.done, index.total, index.skipped, pictures.names[number]))
                if path is not None and time.monotonic() - saved > SAVE_SECONDS:
                    index.save(path)
                    saved = time.monotonic()
    finally:
        if path is not None:
            index.save(path)
    return index


def _look(
    net: Module, found: Found, number: int, name: str, picture: Array | NstError,
    fields: dict[tuple[int, ...], Fields],
) -> Found:  # fmt: skip
    """Send one picture through the network, and offer every layer's activation to its units.

    Of a picture of another size than those before, the fields are found on the way. A picture that is too small for one
    of the layers is skipped whole.
    """
    if isinstance(picture, NstError):
        return _skipped(found, number, name, picture)
    shape = picture.shape[:2]
    image = Tensor(picture[None].astype(dtype_of(net), copy=False))
    layers, small = dict(found.layers), dict(found.small)
    known = fields.get(shape)
    seen: dict[str, ReceptiveField] = {} if known is None else dict(known)

    def offer(layer: str, x: Tensor) -> None:
        if field_of is not None:
            seen[layer] = field_of(x)
        layers[layer] = layers[layer].added(x.data[0], number, seen[layer])

    try:
        with traced(image) if known is None else nullcontext() as field_of:
            visit(net, image, list(layers), offer)
    except ShapeError as error:
        return _skipped(found, number, name, error)
    fields[shape] = seen
    for layer, part in seen.items():
        small[layer] = small.get(layer, 0) + (shape[0] < part.size[0] or shape[1] < part.size[1])
    return replace(found, layers=layers, done=number + 1, small=small)


def _skipped(found: Found, number: int, name: str, reason: NstError) -> Found:
    broken = (*found.broken, (name, str(reason)))[:MOST_BROKEN]
    return replace(found, done=number + 1, skipped=found.skipped + 1, broken=broken)
