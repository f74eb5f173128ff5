"""``nst faces verify`` and ``identify``: is it the same person, and who is it?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nstcore._text import printable
from nstcore.cli import BAD_INPUT, print_error
from nstcore.cli.faces import options as of
from nstcore.cli.faces.gallery import DEFAULT, AsJson, GalleryPath, open_gallery, show, tabbed
from nstcore.errors import ArgumentError, GalleryError, ImageError

if TYPE_CHECKING:
    from nstcore.faces import Gallery, Match, Verification

_NOBODY = "nobody is called"
_KINDS = {"head": "verification head", "calibrated": "calibrated", "uncalibrated": "uncalibrated"}
NO = 1  # exit code: another person, a stranger, or no face
_UNCALIBRATED = "probabilities are uncalibrated, from the encoder's own data; nst faces calibrate fits them to yours"


def verify(
    context: typer.Context,
    who: Annotated[str, typer.Argument(metavar="A", help="A picture, or a name in the gallery.", show_default=False)],
    picture: Annotated[Path, typer.Argument(metavar="B", help="A picture.", show_default=False)],
    gallery: GalleryPath = DEFAULT,
    threshold: of.Threshold = None,
    min_size: of.MinSize = of.MIN_SIZE,
    min_score: of.MinScore = of.MIN_SCORE,
    flip: of.Flip = False,
    jitter: of.Jitter = 0,
    max_pixels: of.MaxPixels = of.MAX_PIXELS,
    encoder: of.EncoderPath = None,
    as_json: AsJson = False,
) -> int:
    """Do two pictures, or a person of the gallery and a picture, show the same person?

    A is a name where there is no file A but a gallery; with --gallery, a person of that name comes before the file. Two
    pictures are judged by the gallery's calibration where there is a gallery. Exit code 0 for the same person, 1 for
    another one, 2 when that cannot be said: no face, several faces, no picture.
    """
    from nstcore import faces

    if not who:
        raise ArgumentError("[verify] expects A as a picture or a name in the gallery, got an empty text")
    how = of.encoding(min_size, min_score, flip, jitter, max_pixels)
    source = context.get_parameter_source("gallery")
    wanted = source is not None and source.name == "COMMANDLINE"
    # without a word about galleries, an encoder of one's own is not held against the gallery that happens to lie here
    beside = gallery.exists() and (encoder is None or source is None or source.name != "DEFAULT")
    is_file = Path(who).exists()
    if wanted or beside or (not is_file and gallery.exists()):
        with open_gallery(gallery, encoder=encoder) as opened:
            if not is_file or (wanted and _is_somebody(opened, who)):
                answer = _verify_person(opened, who, picture, is_file, threshold=threshold, **how)
            else:
                judge, by, head = opened.encoder, opened.calibration, opened.head
                answer = faces.verify(who, picture, threshold, encoder=judge, calibration=by, head=head, **how)
    else:
        answer = faces.verify(who, picture, threshold, encoder=faces.load_encoder(encoder), **how)
    if as_json:
        typer.echo(json.dumps({"a": who, "b": str(picture), **answer.to_json()}, indent=2))
    else:
        typer.echo(printable(_sentence(answer)))
    return 0 if answer.same else NO


def _is_somebody(gallery: Gallery, name: str) -> bool:
    """Whether anybody has that name, or had it before a merge."""
    try:
        gallery.photos(name)
    except (GalleryError, ArgumentError) as error:
        if isinstance(error, GalleryError) and _NOBODY not in str(error):
            raise
        return False
    return True


def _verify_person(gallery: Gallery, who: str, picture: Path, is_file: bool, **options: Any) -> Verification:
    """By name; where nobody has it, a path may have been meant."""
    try:
        return gallery.verify(who, picture, **options)
    except GalleryError as error:
        if is_file or _NOBODY not in str(error):
            raise
        raise GalleryError(f"{error}, and there is no file of that name") from error


def _sentence(answer: Verification) -> str:
    return (
        f"{'same person' if answer.same else 'different people'}: distance {answer.distance:.3f}, "
        f"threshold {answer.threshold:.3f}, margin {answer.margin:+.3f}, "
        f"probability {percent(answer.probability)} ({_KINDS[_kind(answer)]}); compared with {answer.compared}"
    )


def identify(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMG...", help="Pictures.", show_default=False)],
    gallery: GalleryPath = DEFAULT,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the picture with names: .png, .jpg or .webp.")
    ] = None,
    one_each: Annotated[bool, typer.Option("--one-each", help="Give a person at most one face of a picture.")] = False,
    threshold: of.Threshold = None,
    min_size: of.MinSize = of.MIN_SIZE,
    min_score: of.MinScore = of.MIN_SCORE,
    flip: of.Flip = False,
    jitter: of.Jitter = 0,
    max_pixels: of.MaxPixels = of.MAX_PIXELS,
    encoder: of.EncoderPath = None,
    as_json: AsJson = False,
) -> int:
    """Say who is in pictures: a line a face, the largest first, strangers as "not recognised".

    Exit code 0 when every face is recognised, 1 when one is not or a picture has none, 2 when a picture cannot be read.
    Into a pipe each face is a line: file, left, top, right, bottom, name (empty for a stranger), distance, threshold,
    margin, probability, its kind ("calibrated", "uncalibrated" or "head"), nearest person, with tabs between them; a
    picture without a face has empty fields, and so has the distance from nobody.
    """
    from nstcore import files, images

    if output is not None:
        if len(pictures) != 1:
            raise ArgumentError(f"[identify] --output takes one picture, got {len(pictures)}")
        images.check_suffix(output)
        files.check_output(output, inputs=[*pictures, gallery])
    how = {**of.encoding(min_size, min_score, flip, jitter, max_pixels), "threshold": threshold, "one_each": one_each}
    found: list[tuple[Path, list[Match]]] = []
    failed: list[tuple[Path, str]] = []
    with open_gallery(gallery, encoder=encoder) as opened:
        for path in pictures:
            try:
                found.append((path, _identified(opened, path, output, how)))
            except ImageError as error:
                print_error(str(error))
                failed.append((path, str(error)))
    if as_json:
        rows = [{"file": str(path), "faces": [match.to_json() for match in matches]} for path, matches in found]
        typer.echo(json.dumps(rows + [{"file": str(path), "error": why} for path, why in failed], indent=2))
    else:
        _show(found)
    if failed:
        return BAD_INPUT
    return 0 if all(matches and all(match.name is not None for match in matches) for _, matches in found) else NO


def _identified(gallery: Gallery, path: Path, output: Path | None, how: dict[str, Any]) -> list[Match]:
    """Who is in a picture, which is also drawn where that is wanted."""
    from nstcore import faces, images

    picture = images.load(path, max_pixels=how["max_pixels"])
    matches = gallery.identify(picture, **how)
    if output is not None:
        boxes = [(match.face, _label(match), match.name is not None) for match in matches if match.face is not None]
        images.save(output, faces.draw(picture, boxes))
    return matches


def _label(match: Match) -> str:
    return f"{match.name} {match.distance:.2f}" if match.name is not None else "not recognised"


def _show(found: list[tuple[Path, list[Match]]]) -> None:
    """A table on a terminal, tabs in a pipe."""
    import sys

    if not sys.stdout.isatty():
        for path, matches in found:
            for match in matches:
                typer.echo(tabbed(_fields(path, match)))
            if not matches:
                typer.echo(tabbed([str(path), *[""] * 11]))
        return
    header = ("picture", "face", "who", "distance", "margin", "probability", "nearest")
    rows = []
    for path, matches in found:
        if not matches:
            rows.append((str(path), "none", *[""] * 5))
        rows += [(str(path), str(number), *_cells(match)) for number, match in enumerate(matches, 1)]
    show(header, rows, ("face", "distance", "margin", "probability"))
    everybody = [match for _, matches in found for match in matches]
    if everybody:
        note = "" if all(match.calibrated or match.by_head for match in everybody) else f"; {_UNCALIBRATED}"
        note += "; probabilities by the gallery's verification head" if any(m.by_head for m in everybody) else ""
        typer.echo(f"threshold {everybody[0].threshold:.3f}{note}")


def _cells(match: Match) -> tuple[str, ...]:
    who = match.name if match.name is not None else "not recognised"
    numbers = (_known(match.distance, ".3f"), _known(match.margin, "+.3f"), percent(match.probability))
    return who, *numbers, match.compared


def _fields(path: Path, match: Match) -> list[str]:
    box = ("", "", "", "") if match.face is None else tuple(f"{edge:.1f}" for edge in match.face.box)
    numbers = (_known(value, ".6f") for value in (match.distance, match.threshold, match.margin, match.probability))
    return [str(path), *box, match.name or "", *numbers, _kind(match), match.nearest or ""]


def _kind(answer: Verification | Match) -> str:
    """Where the probability comes from, in a word."""
    return "head" if answer.by_head else "calibrated" if answer.calibrated else "uncalibrated"


def _known(value: float, form: str) -> str:
    """The number; nothing for the distance from nobody, which is infinite."""
    return format(value, form) if math.isfinite(value) else ""


def percent(probability: float) -> str:
    """Without claiming to be certain.

    >>> percent(0.99999), percent(0.876), percent(0.0001)
    ('>99.9%', '87.6%', '<0.1%')
    """
    if probability > 0.999:
        return ">99.9%"
    return "<0.1%" if probability < 0.001 else f"{probability:.1%}"
