"""The index of a set of pictures: the highest activations of all units of all layers, kept in a file.

A file is an ordinary ``.npz``, stored plainly, written whole or not at all. It names by digests the network, the
pictures and the options that it was made with, and of each layer how far its pass has come, so that a later pass goes
on from there. `nstcore.visualize.fill` fills it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import PatchIndexError
from nstcore.files import atomic_write
from nstcore.nn.module import Module
from nstcore.visualize.network import network_digest
from nstcore.visualize.pictures import Pictures
from nstcore.visualize.top import COLUMNS, Best
from nstcore.weights import archive, npy
from nstcore.weights.format import array_digest, meta_digest

Array = NDArray[Any]
FORMAT, VERSION, META, PIXELS = "nstcore-patches", 2, "__meta__", "pixels"
MOST_BROKEN = 1000  # pictures that could not be read, listed with the reason; all of them are counted
_MOST_META_BYTES = 16 << 20
_COUNTS = ("done", "small", "missed")
Named = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LayerFound:
    """What a layer's units have of the first `done` pictures.

    small: how many pictures are smaller than a unit's receptive field (their patches are padded). missed: of how many
    the layer cannot be computed, such as those that its pools leave nothing of; reasons: the names of the first few,
    and why.
    """

    best: Best
    done: int = 0
    small: int = 0
    missed: int = 0
    reasons: Named = ()


@dataclass(frozen=True)
class Found:
    """What a pass has found, see `PatchIndex`; replaced as a whole, so that no picture counts half."""

    layers: Mapping[str, LayerFound]
    read: int = 0
    skipped: int = 0
    broken: Named = ()
    copied: int = 0
    copies: Named = ()


@dataclass
class PatchIndex:
    """What passes over `total` pictures have found so far.

    found.layers: by layer, see `LayerFound`. The first found.read pictures were read; found.skipped of them cannot be
    read, found.broken: their names and the reasons; found.copied have the same pixels as an earlier one, and do not
    count again, found.copies: their names and those of the earlier ones (the first thousand of each). All of them are
    attributes, too. network, pictures: digests of what it was made of. pixels: a digest of each picture.
    notes: what the last call had to look for, and why; empty where it had all.
    """

    found: Found
    network: str
    pictures: str
    total: int
    several: bool
    pixels: Array
    notes: tuple[str, ...] = ()
    first: dict[int, int] = field(init=False, repr=False)  # number of the first picture with these pixels

    def __post_init__(self) -> None:
        self.first = {}
        for number, digest in enumerate(self.pixels[: self.found.read].tolist()):
            self.first.setdefault(digest, number)

    @property
    def layers(self) -> Mapping[str, Best]:
        """The highest activations by layer."""
        return {name: part.best for name, part in self.found.layers.items()}

    @property
    def done(self) -> int:
        """How many pictures were looked at for every layer."""
        return min(part.done for part in self.found.layers.values())

    @property
    def skipped(self) -> int:
        """How many pictures could not be read."""
        return self.found.skipped

    @property
    def broken(self) -> Named:
        """Names of those, and the reasons."""
        return self.found.broken

    @property
    def copies(self) -> Named:
        """Names of pictures that have the same pixels as an earlier one, and those of the earlier ones."""
        return self.found.copies

    @property
    def small(self) -> Mapping[str, int]:
        """By layer, how many pictures are smaller than its receptive field."""
        return {name: part.small for name, part in self.found.layers.items()}

    @property
    def missed(self) -> Mapping[str, int]:
        """By layer, of how many pictures it cannot be computed."""
        return {name: part.missed for name, part in self.found.layers.items()}

    def used(self, layer: str) -> int:
        """How many pictures a finished layer's patches are the best of."""
        found = self.found
        return found.layers[layer].done - found.skipped - found.copied - found.layers[layer].missed

    def save(self, path: str | Path) -> None:
        """Write the index, whole or not at all; `OutputError` where the place refuses."""
        found, arrays = self.found, {PIXELS: self.pixels}
        for number, best in enumerate(self.layers.values()):
            arrays |= {f"{number}.value": best.value, f"{number}.places": best.places}
        layers = [
            {"name": name, "reasons": part.reasons, **{key: getattr(part, key) for key in _COUNTS}}
            for name, part in found.layers.items()
        ]
        facts: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "layers": layers, "several": self.several,
            "network": self.network, "pictures": self.pictures, "total": self.total, "read": found.read,
            "skipped": found.skipped, "broken": found.broken, "copied": found.copied, "copies": found.copies,
            "columns": COLUMNS, "digests": {key: array_digest(array) for key, array in arrays.items()},
        }  # fmt: skip
        facts = json.loads(json.dumps(facts))
        text = json.dumps(facts | {"digest": meta_digest(facts)}).encode("ascii")
        blocks = {META: np.frombuffer(text, np.uint8), **arrays}
        members = [(key, npy.header(a), a.reshape(-1).view(np.uint8).data) for key, a in blocks.items()]

        def write(file: BinaryIO) -> None:
            archive.write_members(file, members)

        atomic_write(path, write)


def new_index(
    net: Module, pictures: Pictures, units: Mapping[str, int], count: int = 9, several: bool = False
) -> PatchIndex:
    """An index of nothing yet, for the layers of `units` with so many units each."""
    layers = {name: LayerFound(Best(number, count, several)) for name, number in units.items()}
    pixels = np.zeros(len(pictures), np.uint64)
    return PatchIndex(Found(layers), network_digest(net), pictures.digest(), len(pictures), several, pixels)


def check_index(index: PatchIndex, wanted: PatchIndex, path: str | Path) -> None:
    """Refuse an index that was made of something else than `wanted`; `PatchIndexError`."""
    for differs, what in (
        (index.network != wanted.network, "of another network or other weights"),
        (index.pictures != wanted.pictures or index.total != wanted.total, "of other pictures, or they changed since"),
        (index.several != wanted.several, "with another rule for several patches of one picture"),
    ):
        if differs:
            raise PatchIndexError(f"[patches] {path} was made {what}; name another file, or let it be made again")


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
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: str | Path, problem: str) -> PatchIndexError:
    return PatchIndexError(f"[patches] {path} is no index that can be used: {problem}; delete it to make a new one")


def _checked(arrays: Mapping[str, Array], text: Array | None) -> PatchIndex:
    """The index in a file's arrays; ValueError, TypeError or KeyError with the reason when something does not fit."""
    if text is None or text.dtype != np.uint8 or text.size > _MOST_META_BYTES:
        raise ValueError("it has no table of facts")
    facts = dict(json.loads(text.tobytes()))
    if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        raise ValueError(
            f"expects {FORMAT} version {VERSION}, got {facts.get('format')!r:.40} version {facts.get('version')!r:.20}"
        )
    if facts.get("digest") != meta_digest(facts) or facts["columns"] != list(COLUMNS):
        raise ValueError("its facts do not match their digest")
    total, read, names = int(facts["total"]), int(facts["read"]), [str(part["name"]) for part in facts["layers"]]
    keys = [PIXELS, *(f"{i}.{kind}" for i in range(len(names)) for kind in ("value", "places"))]
    if sorted(arrays) != sorted(keys) or not names or len(set(names)) != len(names):
        raise ValueError("its arrays are not those of its layers")
    for key in keys:
        if facts["digests"].get(key) != array_digest(arrays[key]):
            raise ValueError(f"{key} does not match its digest")
    pixels = arrays[PIXELS]
    if not 0 <= read <= total or (pixels.dtype.name, pixels.shape) != ("uint64", (total,)):
        raise ValueError("its digests are not those of its pictures")
    several = bool(facts["several"])
    layers = {
        name: _checked_layer(number, dict(part), arrays, read, several)
        for number, (name, part) in enumerate(zip(names, facts["layers"], strict=True))
    }
    counts = {key: int(facts[key]) for key in ("read", "skipped", "copied")}
    found = Found(layers, broken=_named(facts["broken"]), copies=_named(facts["copies"]), **counts)
    return PatchIndex(found, str(facts["network"]), str(facts["pictures"]), total, several, pixels.copy())


def _checked_layer(
    number: int, part: Mapping[str, Any], arrays: Mapping[str, Array], read: int, several: bool
) -> LayerFound:
    """One layer of a file; errors as `_checked`."""
    value, places = arrays[f"{number}.value"], arrays[f"{number}.places"]
    kinds = (value.dtype.name, value.ndim, places.dtype.name, places.shape)
    if kinds != ("float32", 2, "int32", (len(COLUMNS), *value.shape)) or not value.shape[1]:
        raise ValueError(f"{number}.value has {value.dtype} {value.shape}, the places {places.shape}")
    counts = {key: int(part[key]) for key in _COUNTS}
    if not 0 <= counts["done"] <= read:
        raise ValueError(f"layer {part['name']} has come further than its pictures")
    if places[0].max(initial=-1) >= counts["done"] or places[0].min(initial=-1) < -1:
        raise ValueError(f"{number}.places names pictures that were not looked at")
    return LayerFound(Best.from_arrays(value, places, several), reasons=_named(part["reasons"]), **counts)


def _named(pairs: Any) -> Named:
    return tuple((str(name), str(reason)) for name, reason in pairs)
