"""The pass that fills an index: every picture once through the network, for all layers that still need it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nstcore.autograd import Tensor, no_grad
from nstcore.backend.memory import reuse
from nstcore.errors import ImageError, NstError, ShapeError
from nstcore.nn.module import Module
from nstcore.visualize.index import MOST_BROKEN, Found, LayerFound, PatchIndex, check_index, load_index, new_index
from nstcore.visualize.network import Visit, dtype_of, is_named, visit
from nstcore.visualize.pictures import Decoded, Pictures
from nstcore.visualize.receptive_field import ReceptiveField, traced
from nstcore.visualize.top import Best

Array = NDArray[Any]
Fields = dict[tuple[int, ...], dict[str, ReceptiveField]]
SAVE_SECONDS = 60.0  # a pass that is killed loses no more than this
LISTED = 5  # pictures that are named where there are many


@dataclass(frozen=True)
class Progress:
    """One more picture: how many are done, of how many; how many were skipped, and the last one's name."""

    done: int
    total: int
    skipped: int
    name: str


def open_index(
    net: Module,
    pictures: Pictures,
    wanted: Mapping[str, int],
    below: Mapping[str, int],
    count: int,
    several: bool,
    path: str | Path | None,
) -> PatchIndex:
    """The index in `path`, or a new one, with room for the layers of `wanted` (units by name).

    What it has already stays. A layer that it lacks is added, and so are those of `below`, which cost a pass for it
    nothing; one with fewer patches a unit than `count` begins again. `notes` says what, and why.
    Raises `PatchIndexError` for a file that is damaged or was made of something else.
    """
    fresh = new_index(net, pictures, {**below, **wanted}, count, several)
    if path is None or not os.path.lexists(path):
        return fresh
    index = load_index(path)
    check_index(index, fresh, path)
    has = dict(index.found.layers)
    missing = [name for name in wanted if name not in has]
    short = [name for name in wanted if name in has and has[name].best.value.shape[1] < count]
    notes = []
    if missing:
        notes.append(f"for {', '.join(missing)}: the index has {', '.join(has)}")
    if short:
        kept = min(has[name].best.value.shape[1] for name in short)
        notes.append(f"again for {', '.join(short)}: the index keeps {kept} patches a unit, {count} are wanted")
    if notes:
        also = [name for name in below if name not in has and name not in wanted]
        has.update({name: fresh.found.layers[name] for name in (*also, *missing, *short)})
    index.found, index.notes = replace(index.found, layers=has), tuple(notes)
    return index


def fill_index(
    net: Module,
    pictures: Pictures,
    index: PatchIndex,
    path: str | Path | None = None,
    progress: Callable[[Progress], object] | None = None,
    layers: Iterable[str] | None = None,
) -> PatchIndex:
    """Look at the pictures that `layers` of `index` have not seen yet, one at a time, and return it.

    layers: None for all of its layers. Those that have come equally far, such as those that were added with them (see
    `open_index`), go along.
    path: where it is written, every minute and at the end; also when the pass is interrupted or fails.
    A picture that cannot be read is skipped and listed; one that has the pixels of an earlier one counts only once; one
    that is too small for a layer is left out for that layer.
    """
    known = index.found.layers
    wanted = set(known if layers is None else layers)
    first = min((known[name].done for name in wanted), default=index.total)
    if first == index.total:
        return index
    names = [name for name, part in known.items() if part.done == first or name in wanted]
    saved, fields = time.monotonic(), Fields()
    try:
        with no_grad(), reuse():
            for each in pictures.ahead(first):
                name = pictures.names[each.number]
                index.found = _look(net, index, each, pictures.names, names, fields)
                if progress is not None:
                    progress(Progress(each.number + 1, index.total, index.skipped, name))
                if path is not None and time.monotonic() - saved > SAVE_SECONDS:
                    index.save(path)
                    saved = time.monotonic()
    finally:
        if path is not None:
            index.save(path)
    return index


def check_used(index: PatchIndex, layers: Sequence[str], pictures: Pictures) -> None:
    """`ImageError`, with the reasons, where no picture could be used for any of these finished layers."""
    if any(index.used(name) > 0 for name in layers):
        return
    reasons = dict([*index.broken, *index.found.layers[layers[0]].reasons])
    named = [f"{name}: {reason}" for name, reason in list(reasons.items())[:LISTED]]
    more = index.total - len(named)
    raise ImageError(
        f"[visualize] {none_of(len(pictures))} be used for {', '.join(layers)}: {'; '.join(named)}"
        f"{f'; and {more} more' if more > 0 else ''}"
    )


def none_of(number: int) -> str:
    """The start of a sentence on so many pictures.

    >>> none_of(1), none_of(3)
    ('the only picture cannot', 'none of the 3 pictures can')
    """
    return "the only picture cannot" if number == 1 else f"none of the {number} pictures can"


def _look(
    net: Module, index: PatchIndex, each: Decoded, names: Sequence[str], layers: Sequence[str], fields: Fields
) -> Found:
    """What is known after one more picture, by the layers that have not seen it."""
    found, number = index.found, each.number
    parts = {name: found.layers[name] for name in layers if found.layers[name].done == number}
    first = index.first.setdefault(each.digest, number) if each.digest else number
    index.pixels[number] = each.digest
    if first == number and not isinstance(each.picture, NstError):
        parts = _offered(net, parts, number, names[number], each.picture, fields)
    layers_now = {**found.layers, **{name: replace(part, done=number + 1) for name, part in parts.items()}}
    if number < found.read:  # an earlier pass has counted it
        return replace(found, layers=layers_now)
    found = replace(found, layers=layers_now, read=number + 1)
    if isinstance(each.picture, NstError):
        broken = (*found.broken, (names[number], str(each.picture)))[:MOST_BROKEN]
        return replace(found, skipped=found.skipped + 1, broken=broken)
    if first != number:
        copies = (*found.copies, (names[number], names[first]))[:MOST_BROKEN]
        return replace(found, copied=found.copied + 1, copies=copies)
    return found


def _offered(
    net: Module, parts: Mapping[str, LayerFound], number: int, name: str, picture: Array, fields: Fields
) -> dict[str, LayerFound]:
    """Send one picture through the network, and offer each layer's activation to its units.

    Of a picture of another size than those before, the fields are found on the way.
    """
    shape = picture.shape[:2]
    image = Tensor(picture[None].astype(dtype_of(net), copy=False))
    known = fields.setdefault(shape, {})
    best: dict[str, Best] = {}

    def offer(layer: str, x: Tensor) -> None:
        if field_of is not None:
            known[layer] = field_of(x)
        best[layer] = parts[layer].best.added(x.data[0], number, known[layer])

    with nullcontext() if known.keys() >= parts.keys() else traced(image) as field_of:
        reasons = _visit_all(net, image, list(parts), offer, best)
    made = {}
    for layer, part in parts.items():
        if layer in best:
            size = known[layer].size
            small = part.small + (shape[0] < size[0] or shape[1] < size[1])
            made[layer] = replace(part, best=best[layer], small=small)
        else:
            listed = (*part.reasons, (name, reasons[layer]))[:LISTED]
            made[layer] = replace(part, missed=part.missed + 1, reasons=listed)
    return made


def _visit_all(
    net: Module, image: Tensor, layers: list[str], offer: Visit, offered: Mapping[str, object]
) -> dict[str, str]:
    """Offer every layer that can be computed of this picture; of the others, why they cannot."""
    reasons: dict[str, str] = {}
    try:
        visit(net, image, layers, offer)
    except ShapeError as error:
        for layer in layers:
            if layer in offered:
                continue
            try:  # a network that lists its layers may refuse a picture for all because of one
                if is_named(net):
                    visit(net, image, [layer], offer)
                else:
                    reasons[layer] = str(error)
            except ShapeError as own:
                reasons[layer] = str(own)
    return reasons
