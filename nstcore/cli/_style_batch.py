"""``nst style`` on a folder or a pattern of photographs: each is painted, and what fails is told at the end."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path
from typing import Any

import typer

from nstcore._text import printable
from nstcore.cli import _progress, _stop
from nstcore.cli._style_job import Job, Options
from nstcore.errors import ArgumentError
from nstcore.style.settings import Settings

ONE_ONLY = ("checkpoint", "resume", "history", "plot", "save_every", "film", "film_every", "plan")
DEFAULT_FOLDER = Path("styled")


def is_batch(content: Path) -> bool:
    """Whether a folder or a pattern is meant rather than one file."""
    return os.path.isdir(content) or (not os.path.exists(content) and glob.has_magic(str(content)))


def run(options: Options, settings: Settings) -> int:
    """Paint every photograph into the folder that ``-o`` names; 1 when some failed, 130 or 143 when it was stopped."""
    from nstcore.style import report
    from nstcore.style.batch import photographs, transfer_folder

    given = [name for name in ONE_ONLY if getattr(options, name)]
    if given:
        raise ArgumentError(f"[style] --{given[0].replace('_', '-')} is for one photograph, not for a folder of them")
    if not options.styles:
        raise ArgumentError("[style] expects at least one painting: nst style photos painting.jpg")
    photos = photographs(options.content)
    places = {photo: i for i, photo in enumerate(photos)}

    def done(photo: Path, picture: Path, result: Any) -> None:
        if not options.as_json:
            line = f"{picture}: {report.sentence(report.summary(result))}"
            print(printable(line))  # not echo, which would write into the bar

    with _progress.each(lambda i: printable(f"{i + 1}/{len(photos)} {photos[i]}"), quiet=options.as_json) as show:
        found = transfer_folder(
            photos, options.styles, options.output or DEFAULT_FOLDER,
            net=Job(options, settings).network(), done=done, start=options.start, max_pixels=options.max_pixels,
            callback=lambda photo, progress: show(places[photo], progress.steps, progress.row),
            regions=options.region or None, style_masks=options.style_mask or None,
            **{name: getattr(settings, name) for name in Settings.names()},
        )  # fmt: skip
    return _told(options, found, len(photos))


def _told(options: Options, found: Any, count: int) -> int:
    if options.as_json:
        painted = {str(photo): str(picture) for photo, picture in found.painted.items()}
        failures = {str(photo): reason for photo, reason in found.failures.items()}
        typer.echo(json.dumps({"painted": painted, "failures": failures, "stopped": found.stopped}, indent=2))
    for photo, reason in found.failures.items():
        typer.echo(printable(f"failed: {photo}: {reason}"), err=True)
    if not options.as_json:
        stopped = f"{found.stopped}: " if found.stopped else ""
        typer.echo(printable(f"{stopped}{len(found.painted)} of {count} photographs painted into {found.folder}"))
    return _stop.code() if found.stopped else 1 if found.failures else 0
