"""``nst faces list``, ``remove``, ``rename``, ``merge``, ``forget`` and others: the people of a gallery."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nstcore._text import printable

if TYPE_CHECKING:
    from nstcore.faces import Gallery, Person, Photo

GalleryPath = Annotated[
    Path,
    typer.Option("--gallery", "-g", envvar="NSTCORE_GALLERY", help="The gallery's file."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A person's name.", show_default=False)]
DEFAULT = Path("people.db")


def open_gallery(path: Path, *, create: bool = False, encoder: Path | None = None) -> Gallery:
    """The gallery; one that does not exist is made only for photographs that are to go into it.

    encoder: the file of the encoder that it was made with, or is to be made with; None: the package's.
    """
    from nstcore.errors import GalleryError
    from nstcore.faces import Gallery, load_encoder

    if not create and not path.exists():
        raise GalleryError(
            f"[gallery] {path} does not exist; nst faces enroll makes one, --gallery or NSTCORE_GALLERY names another"
        )
    return Gallery(path, create=create, encoder=None if encoder is None else load_encoder(encoder))


def say(as_json: bool, facts: dict[str, Any], sentence: str) -> None:
    """One outcome, as JSON or in words."""
    typer.echo(json.dumps(facts, indent=2) if as_json else printable(sentence))


def tabbed(fields: Sequence[str]) -> str:
    """One line of fields with tabs between them, whatever is in them."""
    return "\t".join(map(printable, fields))


def show(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table on a terminal, however narrow; in a pipe a line each, with tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo(tabbed(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for title in header:  # numbers stay whole, names go on in the next line rather than being cut
        table.add_column(title, justify="right", no_wrap=True) if title in right else table.add_column(
            title, overflow="fold"
        )
    for row in rows:
        # as it is: a name may have brackets, which are markup to rich
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def list_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Whose photographs.", show_default=False)] = None,
    gallery: GalleryPath = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List the people of a gallery, or the photographs of one.

    Into a pipe, people are lines of name, photographs, state and merged names, photographs of number, file, name,
    width of the face and sharpness, with tabs between them.
    """
    with open_gallery(gallery) as opened:
        if name is not None:
            photos = opened.photos(name)
            if as_json:
                typer.echo(json.dumps([photo.to_json() for photo in photos], indent=2))
            else:
                header = ("number", "file", "enrolled as", "face", "sharpness")
                show(header, [_photo_row(photo) for photo in photos], ("number", "face", "sharpness"))
            return
        people = opened.people()
        if as_json:
            facts = {"gallery": str(gallery), "model": opened.model, "digest": opened.digest}
            typer.echo(json.dumps({**facts, "people": [person.to_json() for person in people]}, indent=2))
        elif not people and sys.stdout.isatty():
            typer.echo(printable(f"{gallery}: nobody is enrolled"))
        else:
            show(("name", "photographs", "state", "merged"), [_person_row(p) for p in people], ("photographs",))


def _person_row(person: Person) -> tuple[str, ...]:
    state = "removed" if person.removed else ""
    return person.name, str(person.photos), state, ", ".join(person.merged)


def _photo_row(photo: Photo) -> tuple[str, ...]:
    quality = photo.about.get("quality")
    quality = quality if isinstance(quality, dict) else {}
    size, sharpness = (_number(quality.get(key), digits) for key, digits in (("size", 0), ("sharpness", 2)))
    return str(photo.id), photo.source or "", photo.enrolled_as, size, sharpness


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else ""


def remove(name: Name, gallery: GalleryPath = DEFAULT, as_json: AsJson = False) -> None:
    """Take a person out of the answers; nothing is deleted, and restore takes it back."""
    with open_gallery(gallery) as opened:
        changed = opened.remove(name)
    words = "is out of the answers; nst faces restore takes them back" if changed else "was removed already"
    say(as_json, {"name": name, "removed": True, "changed": changed}, f"{name} {words}")


def restore(name: Name, gallery: GalleryPath = DEFAULT, as_json: AsJson = False) -> None:
    """Take a removed person back into the answers."""
    with open_gallery(gallery) as opened:
        changed = opened.restore(name)
    words = "is in the answers again" if changed else "was not removed"
    say(as_json, {"name": name, "removed": False, "changed": changed}, f"{name} {words}")


def rename(
    name: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The new name.", show_default=False)],
    gallery: GalleryPath = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Give a person another name."""
    with open_gallery(gallery) as opened:
        opened.rename(name, new)
    say(as_json, {"name": new, "before": name}, f"{name} is called {new} now")


def merge(
    name: Name,
    into: Annotated[str, typer.Argument(metavar="INTO", help="The person who stays.", show_default=False)],
    gallery: GalleryPath = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Make one person of two; unmerge takes it back."""
    with open_gallery(gallery) as opened:
        opened.merge(name, into)
    say(as_json, {"name": name, "into": into}, f"{name} is {into} now; nst faces unmerge takes it back")


def unmerge(name: Name, gallery: GalleryPath = DEFAULT, as_json: AsJson = False) -> None:
    """Take out what was merged into another person, as it was before."""
    with open_gallery(gallery) as opened:
        into = opened.unmerge(name)
    say(as_json, {"name": name, "from": into}, f"{name} and {into} are two people again")


def forget(
    name: Name,
    gallery: GalleryPath = DEFAULT,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> int:
    """Delete a person, with those merged into them, from the gallery's file; this cannot be taken back.

    Copies, backups and exports of the file are not touched. Without a terminal to ask at, --yes is needed.
    """
    from nstcore.errors import ArgumentError
    from nstcore.faces.records import clean_name

    with open_gallery(gallery) as opened:
        photos = opened.photos(name)
        if not yes:
            if not sys.stdin.isatty():
                raise ArgumentError(f"[forget] expects --yes where nobody can be asked, to delete {name!r} for good")
            others = sorted({photo.enrolled_as for photo in photos} - {clean_name(name)})
            merged = f", with {', '.join(others)} merged into them," * bool(others)
            count = len(photos)
            if not typer.confirm(f"Delete {name}{merged} and {count} photograph{_s(count)} from {gallery} for good?"):
                return 1
        count = opened.forget(name)
    say(as_json, {"name": name, "photos": count}, f"forgotten, with {count} photograph{_s(count)}")
    return 0


def export(
    output: Annotated[Path, typer.Argument(metavar="OUT.npz", help="The file to write.", show_default=False)],
    gallery: GalleryPath = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Write a gallery into an .npz: the encodings, and everything else as JSON."""
    from nstcore.files import check_output

    check_output(output, inputs=[gallery])
    with open_gallery(gallery) as opened:
        count = opened.export(output)
    say(as_json, {"output": str(output), "photos": count}, f"{output}: {count} photograph{_s(count)}")


def import_command(
    file: Annotated[Path, typer.Argument(metavar="FILE.npz", help="What export wrote.", show_default=False)],
    gallery: GalleryPath = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Add what was exported from another gallery, all of it or nothing; a gallery that does not exist is made."""
    from nstcore.faces import exchange

    content = exchange.read(file)  # first: a file that is no export makes no gallery
    if not gallery.exists():
        exchange.make(gallery, content)
    with open_gallery(gallery) as opened:
        added, known = opened.load_from(content)
    words = f"{added} photograph{_s(added)} added, {known} were there already"
    say(as_json, {"file": str(file), "added": added, "known": known}, f"{gallery}: {words}")


def _s(count: int) -> str:
    return "" if count == 1 else "s"
