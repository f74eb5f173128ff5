"""``nst faces enroll``: photographs of one person, or of a folder of people."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nstcore.cli import BAD_INPUT, INTERRUPTED, _progress, print_error
from nstcore.cli.faces.gallery import DEFAULT, AsJson, GalleryPath, open_gallery
from nstcore.cli.faces.options import EncoderPath
from nstcore.errors import ArgumentError, GalleryError, ImageError

if TYPE_CHECKING:
    from nstcore.faces import Enrolment, Gallery

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2"}
Job = tuple[str, Path]


def enroll(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME IMG... | DIR", help="A name and its pictures, or a folder of folders.", show_default=False
        ),
    ],
    gallery: GalleryPath = DEFAULT,
    check_quality: Annotated[
        bool, typer.Option("--check-quality/--no-check-quality", help="Refuse small, blurred and turned faces.")
    ] = True,
    min_size: Annotated[float, typer.Option(help="Side of the smallest face to look for, in pixels.")] = 20,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest picture that is read.")] = 100_000_000,
    encoder: EncoderPath = None,
    as_json: AsJson = False,
) -> int:
    """Enrol the pictures of one person, or a folder in which every person has a folder of that name.

    nst faces enroll "Zoë Kravitz" zoe1.jpg zoe2.jpg

    Every picture has one face. What is enrolled already is passed over, so that a run that was stopped goes on where it
    was. Exit code 2 when a picture was refused; the others are enrolled all the same.
    """
    jobs = _jobs(what)
    run = _Run(jobs, {"min_size": min_size, "max_pixels": max_pixels, "check_quality": check_quality})
    interrupted = False
    with open_gallery(gallery, create=True, encoder=encoder) as opened:
        try:
            with _progress.counted("enrolling", len(jobs), quiet=as_json) as step:
                run.all(opened, step)
        except KeyboardInterrupt:
            interrupted = True
    run.report(gallery, interrupted, as_json)
    return INTERRUPTED if interrupted else BAD_INPUT if run.failed else 0


class _Run:
    """Enrols pictures one by one and keeps what became of each."""

    def __init__(self, jobs: list[Job], options: dict[str, Any]) -> None:
        self.jobs, self.options = jobs, options
        self.done: list[tuple[Path, Enrolment]] = []
        self.failed: list[tuple[str, Path, str]] = []

    def all(self, gallery: Gallery, step: Callable[[], None]) -> None:
        """Enrol every picture; one that is refused does not stop the rest, a file that cannot be written does."""
        for name, path in self.jobs:
            try:
                self.done.append((path, gallery.enroll(name, path, **self.options)))
            except (ImageError, ArgumentError, GalleryError) as error:
                if isinstance(error.__cause__, sqlite3.Error):
                    raise
                self.failed.append((name, path, str(error)))
            step()

    def report(self, gallery: Path, interrupted: bool, as_json: bool) -> None:
        """What was added, what was there, what was refused and why."""
        added = sum(result.added for _, result in self.done)
        known, left = len(self.done) - added, len(self.jobs) - len(self.done) - len(self.failed)
        if as_json:
            facts = {
                "gallery": str(gallery), "added": added, "known": known, "interrupted": interrupted,
                "photos": [{"file": str(path), **result.to_json()} for path, result in self.done],
                "failed": [{"name": n, "file": str(path), "error": why} for n, path, why in self.failed],
            }  # fmt: skip
            typer.echo(json.dumps(facts, indent=2))
            return
        for path, result in self.done:
            for warning in result.warnings:
                typer.echo(f"warning: {path}: {warning}", err=True)
        for _, path, why in self.failed:
            where = "" if str(path) in why else f"{path}: "
            print_error(where + why)
        people = {result.photo.name for _, result in self.done if result.added}
        of = f" of {len(people)} {'person' if len(people) == 1 else 'people'}" if people else ""
        words = [f"{added} photograph{'' if added == 1 else 's'}{of} added"]
        words += [f"{known} already there"] * bool(known) + [f"{len(self.failed)} refused"] * bool(self.failed)
        words += [f"interrupted, {left} left; the same command goes on"] * interrupted
        typer.echo(f"{gallery}: {', '.join(words)}")


def _jobs(what: list[str]) -> list[Job]:
    """Who is to be enrolled from which file."""
    from nstcore.faces.records import clean_name

    if len(what) == 1:
        folder = Path(what[0])
        if not folder.is_dir():
            raise ArgumentError(
                f"[enroll] expects a name and its pictures, or a folder with a folder a person, got {what[0]!r}"
            )
        jobs = [(person.name, path) for person in _listing(folder) if person.is_dir() for path in _pictures(person)]
        if not jobs:
            raise ArgumentError(
                f"[enroll] expects a folder a person, with pictures in it, in {folder}, got none; "
                f"the pictures of one person: nst faces enroll NAME {folder}"
            )
        return jobs
    name, files = clean_name(what[0]), what[1:]
    jobs = []
    for path in map(Path, files):
        jobs += [(name, picture) for picture in _pictures(path)] if path.is_dir() else [(name, path)]
    if not jobs:
        raise ArgumentError(f"[enroll] expects pictures, got folders without any: {', '.join(files)}")
    return jobs


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _listing(folder) if path.suffix.lower() in PICTURES and path.is_file()]


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ArgumentError(f"[enroll] the folder {folder} cannot be read: {error.strerror or error}") from error
