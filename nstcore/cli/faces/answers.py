"""``nst faces verify`` and ``identify``: is it the same person, and who is it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nstcore.cli import BAD_INPUT, print_error
from nstcore.cli.faces import options as of
from nstcore.cli.faces.gallery import DEFAULT, AsJson, GalleryPath, open_gallery, show
from nstcore.errors import ArgumentError, ImageError

if TYPE_CHECKING:
    from nstcore.faces import Gallery, Match, Verification

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

    A is a name where --gallery is given, or where there is no file A but a gallery. Exit code 0 for the same person, 1
    for another one, 2 when that cannot be said: no face, several faces, no picture.
    """
    from nstcore import faces

    how = of.encoding(min_size, min_score, flip, jitter, max_pixels)
    if _is_name(context, who, gallery):
        with open_gallery(gallery, encoder=encoder) as opened:
            answer = opened.verify(who, picture, threshold=threshold, **how)
    else:
        answer = faces.verify(who, picture, threshold, encoder=faces.load_encoder(encoder), **how)
    if as_json:
        typer.echo(json.dumps({"a": who, "b": str(picture), **answer.to_json()}, indent=2))
    else:
        typer.echo(_sentence(answer))
    return 0 if answer.same else NO


def _is_name(context: typer.Context, who: str, gallery: Path) -> bool:
    source = context.get_parameter_source("gallery")
    return (source is not None and source.name == "COMMANDLINE") or (not Path(who).exists() and gallery.exists())


def _sentence(answer: Verification) -> str:
    kind = "calibrated" if answer.calibrated else "uncalibrated"
    return (
        f"{'same person' if answer.same else 'different people'}: distance {answer.distance:.3f}, "
        f"threshold {answer.threshold:.3f}, margin {answer.margin:+.3f}, "
        f"probability {percent(answer.probability)} ({kind}); compared with {answer.compared}"
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
    margin, probability, "calibrated" or "uncalibrated", nearest person, with tabs between them.
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
                typer.echo("\t".join(_fields(path, match)))
        return
    header = ("picture", "face", "who", "distance", "threshold", "margin", "probability", "nearest")
    rows = []
    for path, matches in found:
        if not matches:
            rows.append((str(path), "", "no face found", *[""] * 5))
        rows += [(str(path), str(number), *_cells(match)) for number, match in enumerate(matches, 1)]
    show(header, rows, ("face", "distance", "threshold", "margin", "probability"))
    everybody = [match for _, matches in found for match in matches]
    if any(not match.calibrated for match in everybody):
        typer.echo(_UNCALIBRATED)


def _cells(match: Match) -> tuple[str, ...]:
    who = match.name if match.name is not None else "not recognised"
    return (
        who, f"{match.distance:.3f}", f"{match.threshold:.3f}", f"{match.margin:+.3f}", percent(match.probability),
        match.compared,
    )  # fmt: skip


def _fields(path: Path, match: Match) -> list[str]:
    box = ("", "", "", "") if match.face is None else tuple(f"{edge:.1f}" for edge in match.face.box)
    numbers = (f"{value:.6f}" for value in (match.distance, match.threshold, match.margin, match.probability))
    kind = "calibrated" if match.calibrated else "uncalibrated"
    return [str(path), *box, match.name or "", *numbers, kind, match.nearest or ""]


def percent(probability: float) -> str:
    """Without claiming to be certain.

    >>> percent(0.99999), percent(0.876), percent(0.0001)
    ('>99.9%', '87.6%', '<0.1%')
    """
    if probability > 0.999:
        return ">99.9%"
    return "<0.1%" if probability < 0.001 else f"{probability:.1%}"
