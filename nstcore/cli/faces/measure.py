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
    from nstcore.faces import Calibration, CalibrationReport, Encoder, HeadReport, VerificationHead
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
    with_head: Annotated[
        bool, typer.Option("--head", help="Also fit a verification head, which then gives the probabilities.")
    ] = False,
    head_from: Annotated[
        Path | None, typer.Option("--head-from", help="Keep the head of this file (nst faces train --head) instead.")
    ] = None,
    replace_head: Annotated[
        bool,
        typer.Option("--replace-head", help="With --head: the gallery's own head goes, however good it is."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; the gallery is left alone.")] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Go back to the encoder's own calibration, without a head.")
    ] = False,
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

    A verification head is a logistic regression on how two encodings differ, number by number. It is tried on people
    that it was not fitted to, and kept only where its probabilities are better there than those of the distance, and
    than those of a head that the gallery has already, such as one of nst faces train --head.
    """
    from nstcore.faces._statistics import check_rate
    from nstcore.faces.calibrate import calibrate_pairs, check_numbers, with_several
    from nstcore.faces.folders import most_pairs, pairs_in

    if reset or head_from is not None:
        _alone(reset, head_from, folder is not None or pairs is not None or with_head or replace_head)
        _reset(gallery, as_json) if head_from is None else _keep_head(gallery, head_from, encoder, as_json)
        return
    if replace_head and not with_head:
        raise ArgumentError("[calibrate] expects --replace-head with --head, which fits another one")
    if with_head and pairs is not None:
        raise ArgumentError("[calibrate] expects --head with a folder of people, got a list of pairs")
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
    fitted = _fit_head(photographs, chosen, _present(gallery, encoder), as_json) if with_head else None
    stays = False if dry_run else _store(gallery, encoder, result, fitted, replace_head)
    place = None if dry_run else gallery
    if as_json:
        _tell_json(place, result, fitted, photographs)
    else:
        _tell(place, result, fitted, photographs, replace_head, stays)


def _tell_json(
    gallery: Path | None, result: CalibrationReport, fitted: HeadReport | None, photographs: Photographs
) -> None:
    heads = {} if fitted is None else {"head": fitted.to_json()}
    place = None if gallery is None else str(gallery)
    typer.echo(json.dumps({"gallery": place, **result.to_json(), **heads, **_losses(photographs)}, indent=2))


def _tell(
    gallery: Path | None,
    result: CalibrationReport,
    fitted: HeadReport | None,
    photographs: Photographs,
    replace_head: bool,
    stays: bool,
) -> None:
    from nstcore.faces import report

    heads = [] if fitted is None else [report.head_text(fitted, replace_head)]
    typer.echo("\n".join([report.calibration_text(result), *heads, *report.failures(photographs)]))
    typer.echo("nothing was stored" if gallery is None else printable(f"stored in {gallery}"))
    if stays:
        typer.echo("its verification head stays and gives the probabilities; --reset takes it out, --head fits another")


def _present(gallery: Path, encoder: Path | None) -> VerificationHead | None:
    """The head that the gallery has."""
    if not gallery.exists():
        return None
    with open_gallery(gallery, encoder=encoder) as opened:
        return opened.head


def _fit_head(
    photographs: Photographs, encoder: Encoder, present: VerificationHead | None, as_json: bool
) -> HeadReport:
    from nstcore.faces.head_fit import fit_head

    with _bar("fitting heads", as_json) as progress:
        return fit_head(photographs.encodings, photographs.people, encoder, present=present, progress=progress)


def _store(
    gallery: Path, encoder: Path | None, result: CalibrationReport, fitted: HeadReport | None, replace_head: bool
) -> bool:
    """Keep what was fitted; whether there is a head that was there before, although none was fitted.

    A new gallery is made for something that can be kept, not for a refusal.
    """
    with open_gallery(gallery, create=True, encoder=encoder) as opened:
        opened.set_calibration(result.calibration)
        if fitted is None:
            return opened.head is not None
        if replace_head or fitted.kept != "present":
            opened.set_head(fitted.head if fitted.helps else None)
        return False


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
    from nstcore.faces.head_fit import judge
    from nstcore.faces.oneshot import one_shot

    if ways is not None and pairs is not None:
        raise ArgumentError("[evaluate] expects --one-shot with a folder of people, got a list of pairs")
    root = _root("evaluate", folder, pairs)
    if plot is not None:
        report.check_plot(plot)
        inputs = [path for path in (pairs, gallery) if path is not None]
        files.check_output(plot, inputs=[*inputs, *root.glob("*/*")])
    calibration, chosen, head = _judged(context, gallery, encoder, threshold)
    how = of.encoding(min_size, min_score, flip, jitter, max_pixels)
    with _bar("encoding", as_json) as progress:
        found, photographs = pairs_in(root, pairs, encoder=chosen, progress=progress, **how)
    shot = one_shot(photographs.encodings, photographs.people, ways) if ways is not None else None
    by_head = None
    if pairs is None:
        result = run(photographs.encodings, photographs.people, calibration)
        by_head = None if head is None else judge(head, photographs.encodings, photographs.people)
    else:
        result = evaluate_pairs(found, calibration)
    if plot is not None:
        report.write_plot(plot, result)
    if as_json:
        shots = {} if shot is None else {"one_shot": shot.to_json()}
        shots |= {} if by_head is None else {"by_head": by_head.to_json()}
        typer.echo(json.dumps({**result.to_json(), **shots, **_losses(photographs)}, indent=2))
    else:
        words = [] if by_head is None else ["", report.by_head_text(by_head)]
        words += [] if shot is None else ["", str(shot)]
        typer.echo("\n".join([report.text(result), *words, *report.failures(photographs)]))
        if plot is not None:
            typer.echo(printable(f"drawn in {plot}"))


def _judged(
    context: typer.Context, gallery: Path | None, encoder: Path | None, threshold: float | None
) -> tuple[Calibration, Encoder, VerificationHead | None]:
    """What is to be evaluated: the gallery's calibration, encoder and head, or the encoder's own; that threshold."""
    from dataclasses import replace

    from nstcore.faces.decide import chosen_threshold
    from nstcore.faces.encoder import load_encoder

    chosen = load_encoder(encoder)
    calibration, head = chosen.calibration, None
    if gallery is not None and (gallery.exists() or _is_named(context)):
        with open_gallery(gallery, encoder=encoder) as opened:
            calibration, chosen, head = opened.calibration, opened.encoder, opened.head
    if threshold is None:
        return calibration, chosen, head
    limit = chosen_threshold(calibration, threshold)
    return replace(calibration, threshold=limit, calibrated=False), chosen, head


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


def _alone(reset: bool, head_from: Path | None, more: bool) -> None:
    if more or (reset and head_from is not None):
        raise ArgumentError(f"[calibrate] expects --{'reset' if reset else 'head-from'} alone, got more")


def _keep_head(gallery: Path, file: Path, encoder: Path | None, as_json: bool) -> None:
    from nstcore.faces import load_encoder, load_head

    head = load_head(file)
    if encoder is not None and not gallery.exists():  # before a gallery is made
        chosen = load_encoder(encoder)
        _check_head(head, file, f"the encoder {encoder}", chosen.digest, chosen.size)
    with open_gallery(gallery, create=encoder is not None, encoder=encoder) as opened:
        _check_head(head, file, f"the gallery {gallery}", opened.digest, opened.size)
        opened.set_head(head)
        model = opened.model
    facts = {"gallery": str(gallery), "head": {"form": head.form, "encoder": head.encoder}}
    words = printable(f"{gallery}: the verification head of {file} gives the probabilities now, for {model}")
    typer.echo(json.dumps(facts, indent=2) if as_json else words)


def _check_head(head: VerificationHead, file: Path, other: str, digest: str, size: int) -> None:
    """Raise, with whose head it is, unless it is for these encodings."""
    if head.encoder is None:
        raise ArgumentError(f"[calibrate] {file} does not say which encoder's encodings it takes")
    if (head.encoder, head.size) != (digest, size):
        raise ArgumentError(
            f"[calibrate] {file} is the head of the encoder {head.encoder[:12]} ({head.size} numbers), got {other}, "
            f"whose encodings are those of {digest[:12]} ({size} numbers); encodings of different encoders cannot be "
            "compared"
        )


def _reset(gallery: Path, as_json: bool) -> None:
    with open_gallery(gallery) as opened:
        opened.set_calibration(None)
        opened.set_head(None)
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
