"""``nst gram``: what a style is, pair of channels by pair of channels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nstcore.cli import _pictures, _progress
from nstcore.errors import ArgumentError

_CELL, _COUNT = 96, 9


def gram(
    image: Annotated[Path, typer.Argument(help="A picture.", show_default=False)],
    other: Annotated[Path | None, typer.Argument(help="Another one, to compare.", show_default=False)] = None,
    layer: Annotated[str, typer.Option(help="One layer, such as conv3_1.")] = "conv3_1",
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write: .html.")] = Path("gram.html"),
    pairs: Annotated[int, typer.Option(min=1, max=100, help="Pairs of channels to show.")] = 8,
    images: Annotated[
        Path | None, typer.Option(help="Folder to take the units' patches from. Default: the pictures themselves.")
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Larger pictures are shrunk to this longer side.")] = 512,
    max_pixels: _pictures.MaxPixels = _pictures.MAX_PIXELS,
    net: _pictures.Net = None,
    weights: Annotated[Path | None, typer.Option(help="Weights (.npz) instead of the embedded ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the pairs as JSON.")] = False,
) -> None:
    """Draw the Gram matrix of IMAGE as correlations between channels, and show what they are.

    Names the most correlated pairs of channels, shows both units' nine patches, and where in the picture they fire
    together; with a second picture, which pairs make the two styles differ.

    nst gram painting.jpg photo.jpg --layer conv3_1 -o page.html
    """
    from nstcore.visualize import pages
    from nstcore.visualize.gram import correlations, style_difference
    from nstcore.visualize.pictures import Pictures, pictures

    if output.suffix.lower() not in (".html", ".htm"):
        raise ArgumentError(f"[gram] expects -o with the suffix .html, got {str(output)!r}")
    paths = [image, *([other] if other else [])]
    own = Pictures(tuple(path.name for path in paths), tuple(paths), size, max_pixels)
    known = own if images is None else pictures(images, size, max_pixels)
    _pictures.check_output(output, [*paths, *([weights] if weights else [])], images, known.names)
    network = _pictures.network("gram", net, weights)
    name = _pictures.one_layer("gram", layer, network)
    shown = [own.load(number) for number in range(len(own))]
    found = [correlations(network, name, picture) for picture in shown]
    together = found[0].pairs(pairs)
    differing = style_difference(found[0], found[1], pairs) if other else []
    units = sorted({unit for pair in (*together, *differing) for unit in (pair.first, pair.second)})
    cells, index = _cells(network, name, units, known, images is None, as_json)
    source = "The units' patches are from the pictures themselves."
    if images is not None:
        source = f"The units' patches are the strongest of {_pictures.plural(index.used(name), 'picture')}."
    pages.write_gram(output, own.names, shown, found, together, differing, cells, _COUNT, source)
    table = {
        "output": str(output),
        "layer": name,
        "pictures": list(own.names),
        "pairs": _rows(together),
        "differences": [{**row, "share": pair.score} for row, pair in zip(_rows(differing), differing, strict=True)],
        "skipped": [{"picture": name, "reason": reason} for name, reason in index.broken],
    }
    if as_json:
        typer.echo(json.dumps(table, indent=2))
    else:
        best = ", ".join(f"{pair.first} and {pair.second} ({pair.correlation:.2f})" for pair in together[:3])
        typer.echo(f"{output}: {name}, most correlated: {best or 'none'}{_most(differing)}")


def _most(differing: Sequence[Any]) -> str:
    """The pairs that make the styles differ most, in a few words."""
    words = [
        f"{pair.first} {'with itself' if pair.first == pair.second else f'and {pair.second}'} ({pair.score:.1%})"
        for pair in differing[:3]
    ]
    return f"; what differs most: {', '.join(words)}" if words else ""


def _rows(pairs: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"channels": [pair.first, pair.second], "correlation": pair.correlation} for pair in pairs]


def _cells(network: Any, layer: str, units: list[int], known: Any, itself: bool, quiet: bool) -> tuple[Any, Any]:
    """The units' nine patches, from a folder or from the pictures themselves, and the index that found them."""
    from nstcore.visualize.fill import check_used, fill_index
    from nstcore.visualize.index import new_index
    from nstcore.visualize.network import units_of
    from nstcore.visualize.show import make_cells

    wanted = units_of(network, [layer])
    index, path = new_index(network, known, wanted, _COUNT, several=True), None
    if not itself:
        index, path = _pictures.opened_index(network, known, wanted, {}, _COUNT, False)
        _pictures.tell_notes(index, quiet)
    with _progress.counter("looking", index.total, quiet, index.found.layers[layer].done) as looked:
        fill_index(network, known, index, path, lambda step: looked(step.done, ""), wanted)
    check_used(index, [layer], known)
    if not itself:
        _pictures.tell_skipped(index, quiet)
    return make_cells(network, known, index, {layer: units}, _COUNT, ("patch",), _CELL), index
