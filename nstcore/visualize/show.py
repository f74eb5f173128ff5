"""Cells: a patch, or what a method finds in it, as a small picture; and sheets of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError
from nstcore.images import resize_to
from nstcore.nn.module import Module
from nstcore.visualize.deconv import Method, Projection, cut, project
from nstcore.visualize.index import PatchIndex
from nstcore.visualize.occlusion import Occlusion, occlude
from nstcore.visualize.patches import Patch, for_each_patch
from nstcore.visualize.pictures import Pictures
from nstcore.visualize.receptive_field import Fields, ReceptiveField

Array = NDArray[Any]
Kind = Literal["patch", "deconv", "guided", "gradient", "occlusion"]
GREY = 0.5
_CLIPPED = 99.5  # per cent of a projection's values that are drawn without clipping
_DARK = 0.25  # of the brightness, where covering changes nothing
_SHARP = 4  # enlarged by this or more, pixels are drawn as squares
_SQUARES = 8  # of an occlusion's field, down and across: as many pictures as the square of it go through the network


@dataclass(frozen=True)
class Shown:
    """A patch (without its pixels) and its cells: uint8 (cell, cell, 3) by kind."""

    patch: Patch
    cells: Mapping[str, Array]


def check_kinds(kinds: Sequence[str]) -> tuple[Kind, ...]:
    """`kinds` without repetitions; `ArgumentError` for an unknown one."""
    known = get_args(Kind)
    for kind in kinds:
        if kind not in known:
            raise ArgumentError(f"[patches] expects to show {', '.join(known)}, got {kind!r}")
    return tuple(kind for kind in known if kind in kinds)


def make_cells(
    net: Module,
    known: Pictures,
    index: PatchIndex,
    units: Mapping[str, Sequence[int]],
    count: int,
    kinds: Sequence[Kind],
    cell: int,
    progress: Callable[[int], object] | None = None,
) -> dict[tuple[str, int], list[Shown]]:
    """The cells of the patches of all `units`, by layer and unit; `progress` gets how many patches are done."""
    done = 0
    fields = Fields(net, list(units))

    def make(patch: Patch, layer: str, unit: int, picture: Array) -> Shown:
        nonlocal done
        field = fields.of(layer, picture)
        cells: dict[str, Array] = {
            kind: fit(draw(net, layer, unit, patch, picture, kind, field), cell) for kind in kinds
        }
        done += 1
        if progress is not None:
            progress(done)
        return Shown(replace(patch, pixels=patch.pixels[:0]), cells)

    return for_each_patch(net, known, index, units, count, make)


def draw(net: Module, layer: str, unit: int, patch: Patch, picture: Array, kind: Kind, field: ReceptiveField) -> Array:
    """The patch itself, or what `kind` finds in it, as uint8 on the patch's box."""
    if kind == "patch":
        return patch.pixels
    if kind == "occlusion":
        sides = (max(1, field.size[0] // _SQUARES), max(1, field.size[1] // _SQUARES))
        found = occlude(net, layer, unit, picture, field, patch.place, patch.activation, sides, sides, GREY)
        return spotlight(patch.pixels, _on_box(found, patch, picture.shape))
    method: Method = kind
    return signed(project(net, layer, unit, picture, field, patch.place, patch.activation, method))


def _on_box(found: Occlusion, patch: Patch, shape: tuple[int, ...]) -> Array:
    """An occlusion's drop on the patch's box."""
    drop: Array = cut(found.drop(shape[0], shape[1])[:, :, None], patch.box)[:, :, 0]
    return drop


def signed(projection: Projection) -> Array:
    """A projection as uint8: grey where it is 0, lighter and darker by channel, clipped at its 99.5th percentile."""
    size = float(np.percentile(np.abs(projection.values), _CLIPPED)) or float(np.abs(projection.values).max()) or 1.0
    return np.rint(255 * np.clip(GREY + 0.5 * projection.values / size, 0, 1)).astype(np.uint8)


def spotlight(pixels: Array, weight: Array) -> Array:
    """A picture (uint8) that is bright where `weight` (h, w) is large and dark where it is 0 or less."""
    top = float(weight.max(initial=0.0))
    share = np.clip(weight / top, 0, 1) if top > 0 else np.zeros(weight.shape)
    return np.rint(pixels * (_DARK + (1 - _DARK) * share[:, :, None])).astype(np.uint8)


def fit(pixels: Array, cell: int) -> Array:
    """A picture made to fit a square of `cell` pixels, uint8; much enlarged pixels stay squares."""
    height, width = (max(1, round(side * cell / max(pixels.shape[:2]))) for side in pixels.shape[:2])
    if cell >= _SHARP * max(pixels.shape[:2]):
        rows = np.arange(height) * pixels.shape[0] // height
        columns = np.arange(width) * pixels.shape[1] // width
        resized = pixels[rows][:, columns]
    else:
        resized = np.rint(255 * resize_to(pixels, height, width)).astype(np.uint8)
    found = np.full((cell, cell, 3), 255, np.uint8)
    top, left = (cell - height) // 2, (cell - width) // 2
    found[top : top + height, left : left + width] = resized
    return found


def plain(activation: float) -> str:
    """Three digits, and large ones whole.

    >>> plain(3391.6), plain(12.345), plain(0.00123)
    ('3,392', '12.3', '0.00123')
    """
    return f"{activation:,.0f}" if abs(activation) >= 1000 else f"{activation:.3g}"


LABEL_WIDTH, GAP, MARGIN, _TITLE = 150, 3, 14, 34
_INK, _PALE = "#222222", "#777777"


def sheet_shape(units: int, kinds: int, count: int, cell: int) -> tuple[int, int]:
    """Height and width of the `sheet` of so many units."""
    line = cell + GAP
    return 2 * MARGIN + _TITLE + units * (line * kinds + 2 * GAP), 2 * MARGIN + LABEL_WIDTH + line * count


def sheet(
    rows: Mapping[tuple[str, int], Sequence[Shown]], kinds: Sequence[str], count: int, cell: int, title: str
) -> Array:
    """A contact sheet, uint8: a row of `count` cells for each unit and kind, named at its left."""
    from PIL import Image, ImageDraw, ImageFont

    line = cell + GAP
    block = line * len(kinds) + 2 * GAP
    top = MARGIN + _TITLE
    picture = Image.new("RGB", sheet_shape(len(rows), len(kinds), count, cell)[::-1], "white")
    draw_on, font, small = ImageDraw.Draw(picture), ImageFont.load_default(15), ImageFont.load_default(11)
    draw_on.text((MARGIN, MARGIN), title, fill=_INK, font=font)
    for number, ((layer, unit), shown) in enumerate(rows.items()):
        y = top + block * number
        draw_on.text((MARGIN, y + 2), f"{layer} : {unit}", fill=_INK, font=font)
        first = plain(shown[0].patch.activation) if shown else "never fires"
        draw_on.text((MARGIN, y + 22), first, fill=_PALE, font=small)
        for at, kind in enumerate(kinds):
            if len(kinds) > 1:
                draw_on.text((MARGIN + LABEL_WIDTH - 8, y + at * line + cell // 2), kind, _PALE, small, anchor="rm")
            for column, each in enumerate(shown):
                place = (MARGIN + LABEL_WIDTH + column * line, y + at * line)
                picture.paste(Image.fromarray(each.cells[kind]), place)
    return np.asarray(picture)
