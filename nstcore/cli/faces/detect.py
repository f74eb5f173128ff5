"""``nst faces detect``: where the faces are in pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nstcore.cli import BAD_INPUT, print_error
from nstcore.cli.faces.gallery import show, tabbed
from nstcore.errors import ArgumentError, ImageError
from nstcore.faces.detect import MIN_SIZE
from nstcore.faces.face import Face

NONE_FOUND = 1


def detect(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMG...", help="Pictures.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the picture with boxes here: .png, .jpg or .webp.")
    ] = None,
    min_size: Annotated[float, typer.Option(help="Side of the smallest face to look for, in pixels.")] = MIN_SIZE,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest picture that is read.")] = 100_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Find the faces in pictures, the largest first.

    Exit code 0 when every picture has a face, 1 when one has none, 2 when one cannot be read. Into a pipe each face is
    a line: file, left, top, right, bottom and score, with tabs between them; a picture without one has empty fields.
    """
    from nstcore import files, images

    if output is not None:
        if len(pictures) != 1:
            raise ArgumentError(f"[detect] --output takes one picture, got {len(pictures)}")
        images.check_suffix(output)
        files.check_output(output, inputs=pictures)
    rows, code = [], 0
    for path in pictures:
        try:
            row, faces = _search(path, output, min_size, max_pixels)
        except ImageError as error:
            print_error(str(error))
            row, faces, code = {"file": str(path), "error": str(error)}, [], BAD_INPUT
        else:
            code = code or (0 if faces else NONE_FOUND)
        rows.append((row, faces))
    if as_json:
        typer.echo(json.dumps([row for row, _ in rows], indent=2))
    else:
        _show(rows)
    return code


def _search(path: Path, output: Path | None, min_size: float, max_pixels: int) -> tuple[dict[str, Any], list[Face]]:
    """What is printed of a picture, and its faces."""
    from nstcore import faces, images

    image = images.load(path, max_pixels=max_pixels)
    found = faces.detect(image, min_size=min_size, max_pixels=max_pixels)
    if output is not None:
        images.save(output, faces.draw(image, [(face, f"{face.score:.2f}", None) for face in found]))
    height, width = image.shape[:2]
    row = {"file": str(path), "width": width, "height": height, "faces": [face.to_json() for face in found]}
    return row, found


def _show(rows: list[tuple[dict[str, Any], list[Face]]]) -> None:
    """A table on a terminal, tabs in a pipe."""
    read = [(row["file"], faces) for row, faces in rows if "error" not in row]
    if not sys.stdout.isatty():
        for file, faces in read:
            for face in faces:
                typer.echo(tabbed([file, *(f"{edge:.1f}" for edge in face.box), f"{face.score:.4f}"]))
            if not faces:
                typer.echo(tabbed([file, *[""] * 5]))
        return
    table = []
    for file, faces in read:
        if not faces:
            table.append((file, "none", *[""] * 5))
        for number, face in enumerate(faces, 1):
            sizes = (face.box[0], face.box[1], face.width, face.height)
            table.append((file, str(number), *(f"{size:.0f}" for size in sizes), f"{face.score:.2f}"))
    header = ("picture", "face", "left", "top", "width", "height", "score")
    show(header, table, header[1:])
