"""The patches of a set of pictures that excite a unit most: the course's nine, for any unit of any layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, ImageError, NstError, ShapeError
from nstcore.images import MAX_PIXELS, to_bytes
from nstcore.nn.module import Module
from nstcore.visualize.deconv import Place, cut
from nstcore.visualize.fill import LISTED, Progress, check_used, fill_index, none_of, open_index
from nstcore.visualize.index import PatchIndex
from nstcore.visualize.network import PROBE, check_layers, check_network, check_unit, is_named, layer_names, units_of
from nstcore.visualize.pictures import Pictures, pictures
from nstcore.visualize.receptive_field import Box, Fields

Array = NDArray[Any]
Made = TypeVar("Made")
MOST = 100  # patches a unit
_PROBES = 8  # pictures whose sizes are tried to find the layers of a network that does not list them


@dataclass(frozen=True)
class Patch:
    """One place where a unit fires.

    picture: number and name of the picture; place: (row, column) of the unit in its layer; activation: its value there.
    box: the unit's receptive field in the picture's pixels: first row, first column, and after the last; it may reach
    over the border. pixels: uint8 (h, w, 3) of exactly that box, with grey hatching where there is no picture.
    """

    picture: int
    name: str
    place: Place
    activation: float
    box: Box
    pixels: Array


@dataclass(frozen=True)
class UnitPatches:
    """A unit and its patches, the strongest first; fewer than wanted, or none, where it fired in fewer pictures."""

    layer: str
    unit: int
    patches: tuple[Patch, ...]


def top_patches(
    net: Any,
    layer: str,
    units: int | Iterable[int] | None,
    images: Any,
    count: int = 9,
    *,
    size: int | None = None,
    distinct: bool = True,
    max_pixels: int = MAX_PIXELS,
    index: str | Path | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> list[UnitPatches]:
    """The `count` patches of `images` that maximise the activation of each of `units`, in one pass over the pictures.

    For a unit k of a layer with activations a_ijk(x), the pictures x are ordered by max_ij a_ijk(x); a patch is the
    receptive field of the place (i, j) of that maximum, exactly, see `receptive_field`.

    net: a network of `nst.models` or any `nn.Module` that takes (n, h, w, 3). units: one, several, or None for all.
    images: a folder, or a sequence of paths and arrays; one picture at a time is in memory. size: pictures with a
    longer side than this are shrunk to it first; with more pixels than `max_pixels` they are skipped.
    distinct: at most one patch of a picture for each unit; otherwise several, whose fields overlap by less than half.
    Pictures with the same pixels count as one.
    index: an ``.npz`` that keeps what the pass finds of this layer, to go on from or to use again; one of the same
    network and pictures gets what it lacks, one that was made of something else is refused.
    progress: called after every picture.
    Raises, before the pass, `ArgumentError`, `ImageError` for a folder without pictures, `PatchIndexError`. Pictures
    that cannot be read are skipped (see `index_patches` for their names); `ImageError` when none can be used.
    Source: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4 and figure 2;
    Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies", CVPR 2014, section 3.1.

    >>> from nstcore import demo, models
    >>> photo = demo.picture_path("chelsea")
    >>> (found,) = top_patches(models.vgg16(), "conv1_2", 5, [photo], count=1, size=64)
    >>> found.patches[0].pixels.shape
    (5, 5, 3)
    """
    known, net = pictures(images, size, max_pixels), check_network(net)
    counts = _units(net, known, [layer])
    checked = check_units(layer, units, counts[layer])
    found = _passed(net, known, counts, count, distinct, index, progress)
    return cut_patches(net, known, found, {layer: checked}, count)


def index_patches(
    net: Any,
    images: Any,
    layers: Sequence[str] | None = None,
    *,
    count: int = 9,
    size: int | None = None,
    distinct: bool = True,
    max_pixels: int = MAX_PIXELS,
    index: str | Path | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> PatchIndex:
    """The strongest places of all units of several layers, in one pass over the pictures.

    layers: names, None for all but the pools (a pool's unit fires where the one below it does).
    The other arguments and errors are those of `top_patches`. The result's ``skipped`` and ``broken`` tell which
    pictures could not be read, ``copies`` which have the pixels of an earlier one, ``small`` how many are smaller than
    a receptive field, ``missed`` of how many a layer cannot be computed, ``notes`` what an index lacked.
    Source: see `top_patches`: argmax over pictures x and places (i, j) of a_ijk(x), for every unit k.

    >>> from nstcore import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, rng=np.random.default_rng(0)))
    >>> found = index_patches(net, [np.zeros((8, 8, 3)), np.ones((8, 8, 3))], ["parts.0"], count=1)
    >>> found.layers["parts.0"].value.shape, found.done
    ((4, 1), 2)
    """
    known, net = pictures(images, size, max_pixels), check_network(net)
    return _passed(net, known, _units(net, known, layers), count, distinct, index, progress)


def _units(net: Module, known: Pictures, layers: Sequence[str] | None) -> dict[str, int]:
    """The checked layers, or the default ones, with their units."""
    probe = _probe(net, known, layers)
    names = default_layers(net, probe) if layers is None else check_layers(net, layers, probe)
    return units_of(net, names, probe)


def _passed(
    net: Module, known: Pictures, units: Mapping[str, int], count: int, distinct: bool,
    index: str | Path | None, progress: Callable[[Progress], object] | None,
) -> PatchIndex:  # fmt: skip
    """The finished index of these layers."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or not 1 <= count <= MOST:
        raise ArgumentError(f"[patches] expects count from 1 to {MOST}, got {count!r}")
    found = open_index(net, known, units, {}, int(count), not distinct, index)
    fill_index(net, known, found, index, progress, units)
    check_used(found, list(units), known)
    return found


def default_layers(net: Module, probe: Sequence[int]) -> list[str]:
    """All layers but the pools, whose units fire where those below them do."""
    return [name for name in layer_names(net, probe) if not name.startswith("pool")]


def check_units(layer: str, units: Any, total: int) -> list[int]:
    """`units` (one, several, or None for all) as numbers; `ArgumentError` unless all are units of the layer."""
    if units is None:
        return list(range(total))
    if isinstance(units, (int, np.integer)) and not isinstance(units, bool):
        return [check_unit(layer, units, total)]
    if isinstance(units, (str, bytes, Mapping)) or not isinstance(units, Iterable):
        raise ArgumentError(
            f"[visualize] expects units of {layer} as a whole number from 0 to {total - 1}, several of them, or None "
            f"for all; got {units!r}"
        )
    found = [check_unit(layer, unit, total) for unit in units]
    if not found:
        raise ArgumentError(f"[visualize] expects at least one unit of {layer}, got none")
    return found


def _probe(net: Module, known: Pictures, layers: Sequence[str] | None) -> Sequence[int]:
    """Height and width to find out about the layers with.

    A network that lists its layers itself takes any size, and needs a large one for its last layers. For any other the
    sizes of the first pictures are tried, until one of them gives all of `layers`; the one that gives most is taken.
    """
    if is_named(net):
        return PROBE
    best: Sequence[int] = ()
    most: list[str] = []
    problem: Exception = ShapeError("[visualize] the network has no layer that gives a feature map")
    for size in _probe_sizes(known):
        try:
            found = layer_names(net, size)
        except Exception as error:  # whatever a user's own code raises
            problem = error
            continue
        if len(found) > len(most):
            best, most = size, found
        if layers is not None and set(found) >= set(layers):
            break
    if not most:
        raise problem
    return best


def _probe_sizes(known: Pictures) -> Iterator[Sequence[int]]:
    """Sizes of the first pictures that can be read, each once, and then the usual one; `ImageError` if none can be."""
    seen: list[Sequence[int]] = []
    reasons: list[str] = []
    for number in range(len(known)):
        try:
            size = known.load(number).shape[:2]
        except NstError as error:
            reasons.append(f"{known.names[number]}: {error}")
            continue
        if size not in seen:
            seen.append(size)
            yield size
        if number >= _PROBES:
            break
    if not seen:
        more = f"; and {len(reasons) - LISTED} more" if len(reasons) > LISTED else ""
        raise ImageError(f"[visualize] {none_of(len(known))} be read: {'; '.join(reasons[:LISTED])}{more}")
    yield PROBE


def cut_patches(
    net: Module, known: Pictures, index: PatchIndex, units: Mapping[str, Sequence[int]], count: int
) -> list[UnitPatches]:
    """The patches of an index's units, in the order of `units`; every picture is read once."""
    made = for_each_patch(net, known, index, units, count, lambda patch, *_: patch)
    return [UnitPatches(layer, unit, tuple(made[layer, unit])) for layer, wanted in units.items() for unit in wanted]


def for_each_patch(
    net: Module,
    known: Pictures,
    index: PatchIndex,
    units: Mapping[str, Sequence[int]],
    count: int,
    make: Callable[[Patch, str, int, Array], Made],
) -> dict[tuple[str, int], list[Made]]:
    """What ``make(patch, layer, unit, picture)`` gives for each patch of each unit, the strongest first.

    The pictures are gone through in order, and each is read once, however many patches it has.
    """
    jobs: list[tuple[int, str, int, int, Mapping[str, Any]]] = []
    found: dict[tuple[str, int], list[Any]] = {}
    for layer, wanted in units.items():
        for unit in wanted:
            rows = index.layers[layer].table(unit)[:count]
            found[layer, unit] = [None] * len(rows)
            jobs += [(row["image"], layer, unit, rank, row) for rank, row in enumerate(rows)]
    number, picture = -1, np.zeros((1, 1, 3))
    fields = Fields(net, list(units))
    for wanted_picture, layer, unit, rank, row in sorted(jobs, key=lambda job: job[0]):
        if wanted_picture != number:
            number, picture = wanted_picture, known.load(wanted_picture)
        height, width = fields.of(layer, picture).size
        box = (row["top"], row["left"], row["top"] + height, row["left"] + width)
        patch = Patch(
            number, known.names[number], (row["row"], row["column"]), row["activation"], box, hatched(picture, box)
        )
        found[layer, unit][rank] = make(patch, layer, unit, picture)
    return found


def hatched(picture: Array, box: Box) -> Array:
    """The pixels of `box` as uint8, with diagonal grey stripes where it reaches over the picture's border."""
    height, width = box[2] - box[0], box[3] - box[1]
    down, across = np.ogrid[:height, :width]
    period = max(2, min(height, width) // 12)
    stripes = np.where((down + across) // period % 2, 208, 176).astype(np.uint8)
    return cut(to_bytes(picture), box, fill=stripes[:, :, None])
