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
    net: Annotated[str, typer.Option(help=f"{', '.join(_pictures.NETWORKS)}.")] = "vgg16",
    weights: Annotated[Path | None, typer.Option(help="Weights (.npz) instead of the embedded ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the pairs as JSON.")] = False,
) -> None:
    """Draw the Gram matrix of IMAGE as correlations between channels, and show what they are.

    Names the most correlated pairs of channels, shows both units' nine patches, and where in the picture they fire
    together; with a second picture, which pairs make the two styles differ.

    nst gram painting.jpg photo.jpg --layer conv3_1 -o page.html
    """
    from nstcore.files import check_output
    from nstcore.visualize import pages
    from nstcore.visualize.gram import correlations, style_difference
    from nstcore.visualize.pictures import Pictures

    if output.suffix.lower() not in (".html", ".htm"):
        raise ArgumentError(f"[gram] expects -o with the suffix .html, got {str(output)!r}")
    paths = [image, *([other] if other else [])]
    check_output(output, inputs=paths)
    network = _pictures.network("gram", net, weights)
    names = _pictures.layers("gram", layer, network)
    if len(names) != 1:
        raise ArgumentError(f"[gram] expects one --layer, got {', '.join(names)}")
    own = Pictures(tuple(path.name for path in paths), tuple(paths), size)
    shown = [own.load(number) for number in range(len(own))]
    found = [correlations(network, names[0], picture) for picture in shown]
    together = found[0].pairs(pairs)
    differing = style_difference(found[0], found[1], pairs) if other else []
    units = sorted({unit for pair in (*together, *differing) for unit in (pair.first, pair.second)})
    cells, source = _cells(network, names[0], units, own, images, size, as_json)
    pages.write_gram(output, own.names, shown, found, together, differing, cells, _COUNT, source)
    table = {
        "output": str(output),
        "layer": names[0],
        "pictures": list(own.names),
        "pairs": _rows(together),
        "differences": [{**row, "share": pair.score} for row, pair in zip(_rows(differing), differing, strict=True)],
    }
    if as_json:
        typer.echo(json.dumps(table, indent=2))
    else:
        best = ", ".join(f"{pair.first} and {pair.second} ({pair.correlation:.2f})" for pair in together[:3])
        typer.echo(f"{output}: {names[0]}, most correlated: {best or 'none'}")


def _rows(pairs: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"channels": [pair.first, pair.second], "correlation": pair.correlation} for pair in pairs]


def _cells(
    network: Any, layer: str, units: list[int], own: Any, images: Path | None, size: int, quiet: bool
) -> tuple[Any, str]:
    """The units' nine patches, from a folder or from the pictures themselves, and a sentence about where from."""
    from nstcore.visualize.index import check_index, fill_index, load_index, new_index
    from nstcore.visualize.network import units_of
    from nstcore.visualize.pictures import pictures
    from nstcore.visualize.show import make_cells

    known = own if images is None else pictures(images, size)
    wanted = new_index(network, known, units_of(network, [layer]), _COUNT, several=images is None)
    path, index = None, wanted
    if images is not None:
        path = _pictures.cached_index(wanted.network, wanted.pictures, str(_COUNT), "False")
        if path.exists():
            index = load_index(path)
            if layer in index.layers:
                check_index(index, wanted, path)
            else:
                index, path = wanted, None  # the file has layers that other calls want
    with _progress.counter("looking", index.total, quiet, index.done) as looked:
        fill_index(network, known, index, path, lambda step: looked(step.done, ""))
    cells = make_cells(network, known, index, {layer: units}, _COUNT, ("patch",), _CELL)
    if images is None:
        return cells, "The units' patches are from the pictures themselves."
    return cells, f"The units' patches are the strongest of {index.done - index.skipped} pictures."
