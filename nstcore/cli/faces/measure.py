"""``nst faces calibrate`` and ``evaluate``: thresholds from the user's own photographs, and what they are worth."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nstcore._text import printable
from nstcore.cli import _progress
from nstcore.cli.faces import options as of
from nstcore.cli.faces.gallery import DEFAULT, AsJson, GalleryPath, open_gallery
from nstcore.errors import ArgumentError

if TYPE_CHECKING:
    from nstcore.faces import Calibration, Encoder
    from nstcore.faces.folders import Photographs, Progress

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="A folder in which every person has a folder.", show_default=False),
]
PairsFile = Annotated[
    Path | None,
    typer.Option("--pairs", help="A list of pairs in LFW's format; DIR defaults to the list's folder."),
]


def calibrate(
    folder: Folder = None,
    pairs: PairsFile = None,
    far: Annotated[float, typer.Option("--far", help="The false-accept rate: how many of two people's pairs.")] = 0.001,
    confidence: Annotated[float, typer.Option("--confidence", help="Of the rate and the intervals, 0 to 1.")] = 0.95,
    gallery: GalleryPath = DEFAULT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; the gallery is left alone.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the encoder's own calibration.")] = False,
    min_size: of.MinSize = of.MIN_SIZE,
    min_score: of.MinScore = of.MIN_SCORE,
    flip: of.Flip = False,
    jitter: of.Jitter = 0,
    max_pixels: of.MaxPixels = of.MAX_PIXELS,
    encoder: of.EncoderPath = None,
    as_json: AsJson = False,
) -> None:
    """Fit threshold and probability to photographs whose people are known, and keep them in the gallery.

    A rate that so few pairs cannot show is refused: at 95 %, 1 in 1000 takes 2,995 pairs of two people. The gallery is
    made where there is none. A calibration holds for faces that are encoded with the same --flip and --jitter. A folder
    also shows how much more often a person with several photographs is taken for a stranger.
    """
    from nstcore.faces import report
    from nstcore.faces._statistics import check_rate
    from nstcore.faces.calibrate import calibrate_pairs, check_numbers, with_several
    from nstcore.faces.folders import most_pairs, pairs_in

    if reset:
        _reset(gallery, folder is not None or pairs is not None, as_json)
        return
    root = _root("calibrate", folder, pairs)
    rate = {"false_accept_rate": check_rate("calibrate", "--far", far)}
    rate["confidence"] = check_rate("calibrate", "--confidence", confidence)
    how = of.encoding(min_size, min_score, flip, jitter, max_pixels)
    check_numbers(*most_pairs(root, pairs), rate["false_accept_rate"], rate["confidence"])  # before the work
    chosen = _encoder(gallery, dry_run, encoder)
    with _bar("encoding", as_json) as progress:
        found, photographs = pairs_in(root, pairs, encoder=chosen, progress=progress, **how)
    source = f"{len(photographs.paths)} photographs of {found.people} people in {root.name or 'a folder'}"
    source += "".join(f", {key} {value}" for key, value in how.items() if key in ("flip", "jitter") and value)
    result = calibrate_pairs(found, source=source, **rate)
    if pairs is None:
        result = with_several(result, photographs.encodings, photographs.people)
    if not dry_run:  # a new gallery is made for something that can be kept, not for a refusal
        with open_gallery(gallery, create=True, encoder=encoder) as opened:
            opened.set_calibration(result.calibration)
    if as_json:
        facts = {"gallery": None if dry_run else str(gallery), **result.to_json(), **_losses(photographs)}
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo("\n".join([report.calibration_text(result), *report.failures(photographs)]))
    typer.echo("nothing was stored" if dry_run else printable(f"stored in {gallery}"))


def evaluate(
    context: typer.Context,
    folder: Folder = None,
    pairs: PairsFile = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            "--gallery", "-g", envvar="NSTCORE_GALLERY", help="Judge this gallery's threshold; default: the encoder's."
        ),
    ] = None,
    threshold: of.Threshold = None,
    ways: Annotated[
        int | None, typer.Option("--one-shot", min=2, help="Also identify among N people with one photograph each.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw ROC and distances: .svg, .png, .jpg or .webp.")
    ] = None,
    min_size: of.MinSize = of.MIN_SIZE,
    min_score: of.MinScore = of.MIN_SCORE,
    flip: of.Flip = False,
    jitter: of.Jitter = 0,
    max_pixels: of.MaxPixels = of.MAX_PIXELS,
    encoder: of.EncoderPath = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well people are told apart: accuracy, ROC, rates with intervals, identification with strangers.

    Every rate that so few pairs cannot show is left out. docs/guide/faces-thresholds.md defines all of them.
    """
    from nstcore import files
    from nstcore.faces import report
    from nstcore.faces.evaluate import evaluate as run
    from nstcore.faces.evaluate import evaluate_pairs
    from nstcore.faces.folders import pairs_in
    from nstcore.faces.oneshot import one_shot

    if ways is not None and pairs is not None:
        raise ArgumentError("[evaluate] expects --one-shot with a folder of people, got a list of pairs")
    root = _root("evaluate", folder, pairs)
    if plot is not None:
        report.check_plot(plot)
        inputs = [path for path in (pairs, gallery) if path is not None]
        files.check_output(plot, inputs=[*inputs, *root.glob("*/*")])
    calibration, chosen = _judged(context, gallery, encoder, threshold)
    how = of.encoding(min_size, min_score, flip, jitter, max_pixels)
    with _bar("encoding", as_json) as progress:
        found, photographs = pairs_in(root, pairs, encoder=chosen, progress=progress, **how)
    shot = one_shot(photographs.encodings, photographs.people, ways) if ways is not None else None
    if pairs is None:
        result = run(photographs.encodings, photographs.people, calibration)
    else:
        result = evaluate_pairs(found, calibration)
    if plot is not None:
        report.write_plot(plot, result)
    if as_json:
        shots = {} if shot is None else {"one_shot": shot.to_json()}
        typer.echo(json.dumps({**result.to_json(), **shots, **_losses(photographs)}, indent=2))
    else:
        words = [] if shot is None else ["", str(shot)]
        typer.echo("\n".join([report.text(result), *words, *report.failures(photographs)]))
        if plot is not None:
            typer.echo(printable(f"drawn in {plot}"))


def _judged(
    context: typer.Context, gallery: Path | None, encoder: Path | None, threshold: float | None
) -> tuple[Calibration, Encoder]:
    """What is to be evaluated: the calibration and encoder of the gallery, if there is one, at the wanted threshold."""
    from dataclasses import replace

    from nstcore.faces.decide import chosen_threshold
    from nstcore.faces.encoder import load_encoder

    chosen = load_encoder(encoder)
    calibration = chosen.calibration
    if gallery is not None and (gallery.exists() or _is_named(context)):
        with open_gallery(gallery, encoder=encoder) as opened:
            calibration, chosen = opened.calibration, opened.encoder
    if threshold is None:
        return calibration, chosen
    limit = chosen_threshold(calibration, threshold)
    return replace(calibration, threshold=limit, calibrated=False), chosen


def _encoder(gallery: Path, dry_run: bool, encoder: Path | None) -> Encoder:
    """The encoder of the gallery, if there is one; a place where none can be made is found before the work."""
    from nstcore import files
    from nstcore.faces import load_encoder

    if gallery.exists():
        with open_gallery(gallery, encoder=encoder) as opened:
            return opened.encoder
    if not dry_run:
        files.check_output(gallery)
    return load_encoder(encoder)


def _is_named(context: typer.Context) -> bool:
    """Whether the gallery stands in the command, where one that does not exist is a mistake."""
    source = context.get_parameter_source("gallery")
    return source is not None and source.name == "COMMANDLINE"


def _root(task: str, folder: Path | None, pairs: Path | None) -> Path:
    if folder is None and pairs is None:
        raise ArgumentError(f"[{task}] expects a folder with a folder a person, or --pairs, got neither")
    return folder if folder is not None else pairs.parent  # type: ignore[union-attr]


def _reset(gallery: Path, more: bool, as_json: bool) -> None:
    if more:
        raise ArgumentError("[calibrate] expects --reset alone, got photographs too")
    with open_gallery(gallery) as opened:
        opened.set_calibration(None)
        own = opened.calibration
    facts = {"gallery": str(gallery), "calibration": own.to_json()}
    words = printable(f"{gallery}: the encoder's own calibration again, threshold {own.threshold:.3f}")
    typer.echo(json.dumps(facts, indent=2) if as_json else words)


def _losses(photographs: Photographs) -> dict[str, Any]:
    return {
        "failures": [{"file": str(path), "error": why} for path, why in photographs.failures],
        "several_faces": [str(path) for path in photographs.several],
    }


@contextmanager
def _bar(label: str, quiet: bool) -> Iterator[Progress]:
    """A bar whose length is known at the first step."""
    with contextlib.ExitStack() as stack:
        step: Any = None

        def progress(_: int, total: int) -> None:
            nonlocal step
            if step is None:
                step = stack.enter_context(_progress.counted(label, total, quiet))
            step()

        yield progress
