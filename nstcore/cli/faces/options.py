"""Options that the commands which find and encode faces share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

MinSize = Annotated[float, typer.Option("--min-size", help="Side of the smallest face to look for, in pixels.")]
MinScore = Annotated[float, typer.Option("--min-score", help="How sure the detector must be of a face, 0 to 1.")]
Flip = Annotated[bool, typer.Option("--flip", help="Take the mean over each face and its mirror image.")]
Jitter = Annotated[int, typer.Option("--jitter", help="Take the mean over so many slightly moved copies of a face.")]
MaxPixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Largest picture that is read.")]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", "-t", help="Largest distance of one person; default: the calibration's."),
]
EncoderPath = Annotated[
    Path | None,
    typer.Option("--encoder", envvar="NSTCORE_ENCODER", help="An encoder of nst faces train; default: the package's."),
]
# The values of nstcore.faces, which is loaded when a command runs; a test compares them.
MIN_SIZE, MIN_SCORE, MAX_PIXELS = 20, 0.98, 100_000_000


CheckQuality = Annotated[
    bool, typer.Option("--check-quality/--no-check-quality", help="Refuse small, blurred and turned faces.")
]


def encoding(min_size: float, min_score: float, flip: bool, jitter: int, max_pixels: int) -> dict[str, Any]:
    """The options of `nstcore.faces.encode_faces`."""
    return {
        "min_size": min_size, "min_score": min_score, "flip": flip, "jitter": jitter, "max_pixels": max_pixels,
    }  # fmt: skip
