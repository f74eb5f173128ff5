"""``nst patches``: the nine patches of a folder of pictures that excite each unit most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nstcore.cli import _pictures, _progress, _stop, print_error
from nstcore.errors import ArgumentError

FIRST_UNITS = 16
_CELLS = (96, 16, 400)  # default, least, most


def patches(
    images: Annotated[Path, typer.Argument(help="Folder of pictures.", show_default=False)],
    layer: Annotated[
        str, typer.Option("--layer", "--layers", help="Layers with commas between, or all: shallow to deep.")
    ] = "all",
    units: Annotated[
        str | None, typer.Option(help="0:16, 3,7,100:110, 500: or all. Default: the first 16.", show_default=False)
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="A sheet (.png, .jpg, .webp) or a page (.html).")
    ] = Path("patches.html"),
    show: Annotated[
        str, typer.Option(help="patch, deconv, guided, gradient, occlusion; several with commas between.")
    ] = "patch",
    count: Annotated[int, typer.Option(help="Patches a unit.")] = 9,
    several: Annotated[bool, typer.Option("--several", help="Allow several patches of one picture.")] = False,
    size: Annotated[int, typer.Option(help="Larger pictures are shrunk to this longer side first.")] = 512,
    cell: Annotated[int, typer.Option(help="Side of a drawn patch, in pixels.")] = _CELLS[0],
    max_pixels: _pictures.MaxPixels = _pictures.MAX_PIXELS,
    net: _pictures.Net = None,
    weights: Annotated[Path | None, typer.Option(help="Weights (.npz) instead of the embedded ones.")] = None,
    index: Annotated[
        Path | None, typer.Option(help="Where the pass is kept (.npz). Default: in the cache folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table of all patches as JSON.")] = False,
) -> int:
    """Find and draw the patches of IMAGES that excite the units of a layer most, a unit a row of nine.

    One pass over the pictures finds those of all units of all layers; later calls use it again.

    nst patches photos --layer conv3_2 --units 0:16 -o sheet.png
    """
    job = _Job(images, output, count, several, size, max_pixels, cell, index, as_json)
    return job.run(net, weights, layer, units, show)


class _Job:
    """One run of the command: refuse what cannot work, look at the pictures, draw."""

    def __init__(
        self, images: Path, output: Path, count: int, several: bool, size: int, max_pixels: int, cell: int,
        index: Path | None, as_json: bool,
    ) -> None:  # fmt: skip
        self.images, self.output, self.count, self.several = images, output, count, several
        self.size, self.max_pixels, self.cell, self.index, self.as_json = size, max_pixels, cell, index, as_json

    def run(self, name: str | None, weights: Path | None, layer: str, units: str | None, show: str) -> int:
        from nstcore.visualize.pictures import pictures
        from nstcore.visualize.show import check_kinds

        wanted_units = None if units is None else _pictures.units("patches", units)
        kinds = check_kinds([kind.strip() for kind in show.split(",")])
        self._check_options()
        self.known = pictures(self.images, self.size, self.max_pixels)
        self._check_output(weights)
        self.net = _pictures.network("patches", name, weights)
        self.layers = _pictures.layers("patches", layer, self.net)
        chosen = self._choose(wanted_units)
        self._check_sheet(sum(map(len, chosen.values())), len(kinds))
        try:
            self.found = self._indexed()
        except KeyboardInterrupt:
            return _stop.code()
        self._tell_found()
        with _progress.counter("drawing", self._patch_count(chosen), self.as_json) as drawn:
            from nstcore.visualize.show import make_cells

            rows = make_cells(
                self.net, self.known, self.found, chosen, self.count, kinds, self.cell, lambda done: drawn(done, "")
            )
        self._write(rows, kinds)
        if self.as_json:
            typer.echo(json.dumps(self._table(chosen), indent=1))
        else:
            units_shown = _pictures.plural(sum(map(len, chosen.values())), "unit")
            used = _pictures.plural(max(map(self.found.used, self.layers)), "picture")
            typer.echo(
                f"{self.output}: {units_shown} of {_pictures.plural(len(chosen), 'layer')}, {used}; index {self.path}"
            )
        return 0

    def _check_options(self) -> None:
        from nstcore.images import check_suffix
        from nstcore.visualize.patches import MOST

        if not self._is_page():
            check_suffix(self.output)
        if self.index is not None and self.index.suffix != ".npz":
            raise ArgumentError(f"[patches] expects --index to end in .npz, got {str(self.index)!r}")
        if not 1 <= self.count <= MOST:
            raise ArgumentError(f"[patches] expects --count from 1 to {MOST}, got {self.count}")
        _, least, most = _CELLS
        if not least <= self.cell <= most:
            raise ArgumentError(f"[patches] expects --cell from {least} to {most}, got {self.cell}")

    def _check_output(self, weights: Path | None) -> None:
        others = [] if weights is None else [weights]
        _pictures.check_output(self.output, others, self.images, self.known.names)
        if self.index is not None:
            _pictures.check_output(self.index, [self.output, *others])

    def _check_sheet(self, units: int, kinds: int) -> None:
        """Find out before the pass, which may take hours, whether the sheet can be written."""
        from nstcore.images import MAX_PIXELS, check_size
        from nstcore.visualize.show import sheet_shape

        if self._is_page():
            return
        height, width = sheet_shape(units, kinds, self.count, self.cell)
        if height * width > MAX_PIXELS:
            raise ArgumentError(
                f"[patches] expects a sheet of at most {MAX_PIXELS:,} pixels, got {width}x{height} for {units} units; "
                "take fewer units, a smaller --cell, or a page: -o patches.html"
            )
        check_size(self.output, height, width)

    def _is_page(self) -> bool:
        return self.output.suffix.lower() in (".html", ".htm")

    def _choose(self, wanted: _pictures.Units | None) -> dict[str, list[int]]:
        """Units by layer; without --units the first ones that a layer has."""
        from nstcore.visualize.network import units_of

        counts = units_of(self.net, self.layers)
        if wanted is None:
            return {layer: list(range(min(FIRST_UNITS, units))) for layer, units in counts.items()}
        return {layer: wanted.of(layer, units) for layer, units in counts.items()}

    def _indexed(self) -> Any:
        """The index of the pictures, with all layers that are wanted; Ctrl-C keeps it."""
        from nstcore.visualize.fill import check_used, fill_index

        found, self.path = self._started()
        _pictures.tell_notes(found, self.as_json)
        begun = min(found.found.layers[layer].done for layer in self.layers)
        try:
            with _progress.counter("looking", found.total, self.as_json, begun) as looked:
                fill_index(
                    self.net, self.known, found, self.path,
                    lambda step: looked(step.done, f"{step.skipped} skipped" if step.skipped else ""), self.layers,
                )  # fmt: skip
        except KeyboardInterrupt:
            done = min(found.found.layers[layer].done for layer in self.layers)
            print_error(
                f"interrupted after {done} of {_pictures.plural(found.total, 'picture')}; the same command goes on "
                f"from there (index {self.path})"
            )
            raise
        check_used(found, self.layers, self.known)
        return found

    def _started(self) -> tuple[Any, Path]:
        """An index that was begun or finished before, or a new one, of all layers up to the highest that is wanted."""
        from nstcore.visualize.network import units_of
        from nstcore.visualize.patches import default_layers

        every = list(self.net.layers)
        below = every[: every.index(self.layers[-1]) + 1]
        plain = default_layers(self.net, (1, 1))
        units = units_of(self.net, [name for name in below if name in plain or name in self.layers])
        wanted = {name: units[name] for name in self.layers}
        return _pictures.opened_index(self.net, self.known, wanted, units, self.count, self.several, self.index)

    def _tell_found(self) -> None:
        _pictures.tell_skipped(self.found, self.as_json)
        for layer, note in self._notes().items():
            if note and not self.as_json:
                typer.echo(f"{layer}: {note}")

    def _notes(self) -> dict[str, str]:
        """Of each layer, how many pictures are smaller than what its units see, and of how many it is not computed."""
        notes = {}
        for layer in self.layers:
            part, words = self.found.found.layers[layer], []
            pictures = _pictures.plural(self.found.total, "picture")
            if part.small:
                words.append(
                    f"{part.small} of {pictures} smaller than the receptive field: used, their patches are padded "
                    "(hatched)."
                )
            if part.missed:
                name, reason = part.reasons[0]
                words.append(f"{part.missed} of {pictures} not used, such as {name}: {reason}.")
            notes[layer] = " ".join(words)
        return notes

    def _patch_count(self, chosen: dict[str, list[int]]) -> int:
        layers = self.found.layers
        return sum(len(layers[layer].table(u)[: self.count]) for layer, us in chosen.items() for u in us)

    def _write(self, rows: Any, kinds: Any) -> None:
        from nstcore.images import save
        from nstcore.visualize import pages, show
        from nstcore.visualize.network import PROBE
        from nstcore.visualize.receptive_field import fields_for

        title = f"{', '.join(self.layers) if len(self.layers) < 4 else 'From shallow to deep'}: what excites the units"
        if not self._is_page():
            save(self.output, show.sheet(rows, kinds, self.count, self.cell, title))
            return
        words = (
            f"The {self.count} patches of {_pictures.plural(max(map(self.found.used, self.layers)), 'picture')} that "
            "excite each unit most, "
            "the strongest first, each exactly what the unit sees; hatched is what lies outside of the picture."
        )
        fields = fields_for(self.net, self.layers, PROBE)
        pages.write_patches(self.output, title, words, rows, fields, self._notes(), kinds, self.count)

    def _table(self, chosen: dict[str, list[int]]) -> dict[str, Any]:
        from nstcore.visualize.network import PROBE
        from nstcore.visualize.receptive_field import fields_for

        fields = fields_for(self.net, self.layers, PROBE)
        found = self.found
        layers = {
            layer: {
                "receptive_field": list(fields[layer].size),
                "stride": list(fields[layer].stride),
                "pictures_smaller_than_it": found.small[layer],
                "pictures_not_used": found.missed[layer],
                "units": {
                    str(unit): [
                        {"picture": self.known.names[row["image"]], **row}
                        for row in found.found.layers[layer].best.table(unit)[: self.count]
                    ]
                    for unit in units
                },
            }
            for layer, units in chosen.items()
        }
        return {
            "output": str(self.output), "index": str(self.path), "pictures": found.total, "skipped": found.skipped,
            "broken": [{"picture": name, "reason": reason} for name, reason in found.broken],
            "same": [{"picture": name, "as": first} for name, first in found.copies],
            "recomputed": list(found.notes), "layers": layers,
        }  # fmt: skip
