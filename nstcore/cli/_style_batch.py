"""``nst style`` on a folder or a pattern of photographs: each is painted, and what fails is told at the end."""

from __future__ import annotations

import glob
from collections import Counter
from dataclasses import replace
from pathlib import Path

import typer

from nstcore.cli import _stop
from nstcore.cli._style_job import Job, Options
from nstcore.errors import ArgumentError, NstError
from nstcore.style.settings import Settings

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
ONE_ONLY = ("checkpoint", "resume", "history", "plot", "save_every", "film", "plan", "as_json")
DEFAULT_OUTPUT, DEFAULT_FOLDER = Path("out.png"), Path("styled")


def photographs(content: Path) -> list[Path] | None:
    """The pictures of a folder, or those that a pattern such as ``photos/*.jpg`` names; None for one file.

    Raises `ArgumentError` when there are none.
    """
    if content.is_dir():
        found = sorted(path for path in content.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        if not found:
            raise ArgumentError(f"[style] {content} is a folder without pictures")
        return found
    if content.exists() or not glob.has_magic(str(content)):
        return None
    found = sorted(path for path in map(Path, glob.glob(str(content))) if path.is_file())
    if not found:
        raise ArgumentError(f"[style] expects photographs, got nothing for {content}")
    return found


def run(options: Options, settings: Settings, photos: list[Path]) -> int:
    """Paint every photograph into the folder that ``-o`` names; 1 when some failed, 130 or 143 when it was stopped."""
    folder = DEFAULT_FOLDER if options.output == DEFAULT_OUTPUT else options.output
    given = [name for name in ONE_ONLY if getattr(options, name)]
    if given:
        raise ArgumentError(f"[style] --{given[0].replace('_', '-')} is for one photograph, got {len(photos)}")
    if not options.styles:
        raise ArgumentError("[style] expects at least one painting: nst style photos painting.jpg")
    if folder.suffix or (folder.exists() and not folder.is_dir()):
        raise ArgumentError(f"[style] expects a folder as -o for several photographs, got {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"[style] cannot make the folder {folder}: {error.strerror or error}") from error
    stems = Counter(photo.stem for photo in photos)
    failures: list[str] = []
    for i, photo in enumerate(photos, 1):
        typer.echo(f"{i}/{len(photos)} {photo}", err=True)
        name = photo.stem if stems[photo.stem] == 1 else photo.name.replace(".", "-")
        try:
            code = Job(replace(options, content=photo, output=folder / f"{name}.png"), settings).run()
        except (NstError, MemoryError) as error:
            failures.append(f"{photo}: {error or 'out of memory'}")
            continue
        if code in _stop.CODES:
            return code
    for failure in failures:
        typer.echo(f"failed: {failure}", err=True)
    typer.echo(f"{len(photos) - len(failures)} of {len(photos)} photographs painted into {folder}")
    return 1 if failures else 0
