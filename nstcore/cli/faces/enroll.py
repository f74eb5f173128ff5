"""``nst faces enroll``: photographs of one person, or of a folder of people."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nstcore._text import printable
from nstcore.cli import BAD_INPUT, _progress, _stop, print_error, print_warning
from nstcore.cli.faces import options as of
from nstcore.cli.faces.gallery import DEFAULT, AsJson, GalleryPath, open_gallery
from nstcore.errors import ArgumentError, GalleryError, ImageError

if TYPE_CHECKING:
    from nstcore.faces import Enrolment, Gallery

Job = tuple[str, Path]


def enroll(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME IMG... | DIR", help="A name and its pictures, or a folder of folders.", show_default=False
        ),
    ],
    gallery: GalleryPath = DEFAULT,
    check_quality: of.CheckQuality = True,
    min_size: of.MinSize = of.MIN_SIZE,
    min_score: of.MinScore = of.MIN_SCORE,
    flip: of.Flip = False,
    jitter: of.Jitter = 0,
    max_pixels: of.MaxPixels = of.MAX_PIXELS,
    encoder: of.EncoderPath = None,
    as_json: AsJson = False,
) -> int:
    """Enrol the pictures of one person, or a folder in which every person has a folder of that name.

    nst faces enroll "Zoë Kravitz" zoe1.jpg zoe2.jpg

    Every picture has one face; of a folder every file is tried. What is enrolled already is passed over, so that a run
    that was stopped goes on where it was. Exit code 2 when a picture was refused or a folder has things in it that were
    not tried; the others are enrolled all the same. --flip and --jitter are to be the same as when asking later.
    """
    jobs, not_tried = _jobs(what)
    how = of.encoding(min_size, min_score, flip, jitter, max_pixels)
    run = _Run(jobs, not_tried, {**how, "check_quality": check_quality})
    with open_gallery(gallery, create=True, encoder=encoder) as opened:
        try:
            with _progress.counted("enrolling", len(jobs), quiet=as_json) as step:
                run.all(opened, step)
        except KeyboardInterrupt:
            run.interrupted = True
        except GalleryError as error:  # of the file: nothing more can be written, but what was is there
            run.error = str(error)
    run.report(gallery, as_json)
    if run.interrupted:
        return _stop.code()
    return BAD_INPUT if run.failed or run.not_tried or run.error is not None else 0


class _Run:
    """Enrols pictures one by one and keeps what became of each."""

    def __init__(self, jobs: list[Job], not_tried: list[Path], options: dict[str, Any]) -> None:
        self.jobs, self.not_tried, self.options = jobs, not_tried, options
        self.done: list[tuple[Path, Enrolment]] = []
        self.failed: list[tuple[str, Path, str]] = []
        self.interrupted = False
        self.error: str | None = None

    def all(self, gallery: Gallery, step: Callable[[], None]) -> None:
        """Enrol every picture; one that is refused does not stop the rest, a file that cannot be written does."""
        for name, path in self.jobs:
            try:
                self.done.append((path, gallery.enroll(name, path, **self.options)))
            except (ImageError, ArgumentError, GalleryError) as error:
                if isinstance(error.__cause__, sqlite3.Error):
                    raise
                self.failed.append((name, path, str(error)))
            except MemoryError:
                self.failed.append((name, path, f"[enroll] {path}: out of memory; --max-pixels refuses large pictures"))
            step()

    def report(self, gallery: Path, as_json: bool) -> None:
        """What was added, what was there, what was refused and why."""
        added = sum(result.added for _, result in self.done)
        known, left = len(self.done) - added, len(self.jobs) - len(self.done) - len(self.failed)
        if as_json:
            facts = {
                "gallery": str(gallery), "added": added, "known": known, "interrupted": self.interrupted,
                "error": self.error, "left": left,
                "photos": [{"file": str(path), **result.to_json()} for path, result in self.done],
                "failed": [{"name": n, "file": str(path), "error": why} for n, path, why in self.failed],
                "not_tried": [str(path) for path in self.not_tried],
            }  # fmt: skip
            typer.echo(json.dumps(facts, indent=2))
            return
        for path, result in self.done:
            for warning in result.warnings:
                print_warning(f"{path}: {warning}")
        for _, path, why in self.failed:
            where = "" if str(path) in why else f"{path}: "
            print_error(where + why)
        for path in self.not_tried:
            print_error(f"[enroll] not tried: {path}; expects files in a folder a person")
        if self.error is not None:
            print_error(self.error)
        people = {result.photo.name for _, result in self.done if result.added}
        whose = f" of {len(people)} {'person' if len(people) == 1 else 'people'}" if people else ""
        words = [f"{added} photograph{'' if added == 1 else 's'}{whose} added"]
        words += [f"{known} already there"] * bool(known) + [f"{len(self.failed)} refused"] * bool(self.failed)
        words += [f"{len(self.not_tried)} not tried"] * bool(self.not_tried)
        words += [f"interrupted, {left} left; the same command goes on"] * self.interrupted
        words += [f"stopped by the gallery, {left} left"] * (self.error is not None)
        typer.echo(printable(f"{gallery}: {', '.join(words)}"))


def _jobs(what: list[str]) -> tuple[list[Job], list[Path]]:
    """Who is to be enrolled from which file, and what in the folders is none."""
    from nstcore.faces.records import clean_name

    jobs: list[Job] = []
    not_tried: list[Path] = []
    if len(what) == 1:
        folder = Path(what[0])
        if not folder.is_dir():
            raise ArgumentError(
                f"[enroll] expects a name and its pictures, or a folder with a folder a person, got {what[0]!r}"
            )
        for person in _listing(folder):
            if person.is_dir():
                jobs += [(person.name, path) for path in _files(person, not_tried)]
            else:
                not_tried.append(person)
        if not jobs:
            raise ArgumentError(
                f"[enroll] expects a folder a person, with pictures in it, in {folder}, got none; "
                f"the pictures of one person: nst faces enroll NAME {folder}"
            )
        return jobs, not_tried
    _check_no_path(what)
    name, files = clean_name(what[0]), what[1:]
    for path in map(Path, files):
        jobs += [(name, picture) for picture in _files(path, not_tried)] if path.is_dir() else [(name, path)]
    if not jobs:
        raise ArgumentError(f"[enroll] expects pictures, got folders without any: {', '.join(files)}")
    return jobs, not_tried


def _check_no_path(what: list[str]) -> None:
    """Refuse a file or folder where the name belongs: its pictures would be left out, and the others be called so.

    A folder of that name may be what the pictures come from: nst faces enroll anna anna/1.jpg.
    """
    name = Path(what[0])
    if not name.exists():
        return
    place, sources = Path(os.path.realpath(name)), [Path(os.path.realpath(path)) for path in what[1:]]
    from_there = name.is_dir() and all(place in (path, *path.parents) for path in sources)
    if from_there and what[0] == name.name != "..":
        return
    kind = "folder" if name.is_dir() else "file"
    raise ArgumentError(
        f"[enroll] expects a name before its pictures, got {what[0]!r}, which is a {kind} here;"
        f" nst faces enroll NAME {' '.join(what[:3])}{' ...' * (len(what) > 3)}"
    )


def _files(folder: Path, others: list[Path]) -> list[Path]:
    """Every file of a folder but the hidden ones; what is no file goes to the others."""
    found = _listing(folder)
    others += [path for path in found if not path.is_file()]
    return [path for path in found if path.is_file()]


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ArgumentError(f"[enroll] the folder {folder} cannot be read: {error.strerror or error}") from error
