"""``nst style --clip``: every frame of a clip, its still parts as in the frame before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import typer

from nstcore.cli import _progress, _stop
from nstcore.cli._style_job import Job, Options
from nstcore.errors import ArgumentError
from nstcore.style.settings import VIDEOS, Settings

NOT_OF_A_CLIP = (
    "start", "checkpoint", "save_every", "film", "film_every", "history", "plot", "plan",
)  # fmt: skip
DEFAULT_CLIP = Path("out")


def run(options: Options, settings: Settings) -> int:
    """Paint the clip into the animation or the folder that ``-o`` names; 130 or 143 when it was stopped."""
    from nstcore.style import transfer_clip

    given = [name for name in NOT_OF_A_CLIP if getattr(options, name)]
    if given:
        raise ArgumentError(f"[style] --{given[0].replace('_', '-')} is not for --clip")
    if not options.styles:
        raise ArgumentError("[style] expects at least one painting after the clip: nst style clip.gif painting.jpg")
    output = _default(options.content) if options.output is None else options.output
    with _progress.each(lambda i: f"frame {i + 1}", quiet=options.as_json) as show:

        def after_step(frame: int, progress: Any) -> None:
            show(frame, progress.steps, progress.row)

        result = transfer_clip(
            options.content, options.styles, output, net=Job(options, settings).network(), callback=after_step,
            regions=options.region or None, style_masks=options.style_mask or None, frame_steps=options.frame_steps,
            still_weight=options.still_weight, resume=_resumes(options, output), max_pixels=options.max_pixels,
            **{name: getattr(settings, name) for name in Settings.names()},
        )  # fmt: skip
    return _told(options, result, settings.keep_face)


def _default(clip: Path) -> Path:
    """out.mp4 for a video, the folder out for a folder, else out.gif or out.webp as the clip is."""
    if os.path.isdir(clip):
        return DEFAULT_CLIP
    suffix = clip.suffix.lower()
    return DEFAULT_CLIP.with_suffix(".mp4" if suffix in VIDEOS else ".webp" if suffix == ".webp" else ".gif")


def _resumes(options: Options, output: Path) -> bool:
    """Whether to go on; the folder that ``--resume`` names is the one that belongs to the output."""
    from nstcore.style.clip import frames_folder

    if options.resume is None:
        return False
    folder = frames_folder(output)
    if options.resume.resolve() != folder.resolve():
        raise ArgumentError(f"[resume] the frames of {output} are in {folder}, got {options.resume}")
    return True


def _told(options: Options, result: Any, keep_face: bool) -> int:
    stopped = result.stopped is not None
    if options.as_json:
        facts = {"output": None if result.output is None else str(result.output), "frames": result.frames}
        typer.echo(json.dumps({**facts, "stopped": result.stopped}, indent=2))
    elif stopped:
        typer.echo(f"interrupted: {_counted(result.frames)} done")
        if result.frames:
            typer.echo(f"to continue, give the same command with --resume {result.folder}")
    else:
        typer.echo(f"{result.output}: {_counted(result.frames)}")
    if keep_face and not options.as_json:
        typer.echo(f"a face was found and kept in {_counted(result.with_faces)}")
    return _stop.code() if stopped else 0


def _counted(frames: int) -> str:
    return f"{frames} frame" if frames == 1 else f"{frames} frames"
