"""One run of ``nst style``: refuse what cannot work, run, write."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from nstcore.cli import _progress, _stop
from nstcore.errors import ArgumentError, ImageError, NonFiniteError, OutputError
from nstcore.style.settings import Settings

DEFAULT_OUTPUT = Path("out.png")


@dataclass
class Options:
    """What the command was told, by the names of its options."""

    content: Path
    styles: list[Path] | None
    output: Path | None
    size: int
    steps: int
    start_size: int
    until: float | None
    content_weight: float
    style_weight: float
    tv_weight: float
    content_layers: str
    style_layers: str
    style_scale: float
    blend: str | None
    colors: str
    region: list[Path] | None
    style_mask: list[Path] | None
    keep_face: bool
    face_weight: float
    init: str
    start: Path | None
    optimizer: str
    learning_rate: float | None
    average: float
    pooling: str
    seed: int
    memory: str
    plan: bool
    weights: Path | None
    checkpoint: Path | None
    checkpoint_every: int
    resume: Path | None
    save_every: int | None
    film: Path | None
    film_every: int | None
    clip: bool
    frame_steps: int
    still_weight: float
    history: Path | None
    plot: Path | None
    max_pixels: int
    as_json: bool

    @property
    def inputs(self) -> list[Path]:
        """Every file that is read, and so must not be written."""
        one = [path for path in (self.weights, self.start) if path]
        return [self.content, *(self.styles or []), *(self.region or []), *(self.style_mask or []), *one]

    @property
    def saved(self) -> Path | None:
        """Where the run is saved: a resumed one goes on in its own file unless told otherwise."""
        return self.checkpoint or self.resume


class Job:
    """One photograph, from the options to the files."""

    def __init__(self, options: Options, settings: Settings) -> None:
        self.options, self.settings = options, settings
        self.output = options.output or DEFAULT_OUTPUT
        self.steps = sum(level.steps for level in settings.levels())

    def run(self) -> int:
        """Paint and write; gives the exit code."""
        from nstcore.style import transfer

        options = self.options
        _warn_of_frames(options.content)
        self._check_outputs()
        net = self.network()
        if options.plan:
            return self._plan(net)
        with _progress.bar(self.steps, quiet=options.as_json) as show:

            def after_step(progress: Any) -> None:
                show(progress)
                if options.save_every and progress.row.step % options.save_every == 0:
                    self._write(self._numbered(progress.row.step), progress.image)

            try:
                result = transfer(
                    options.content, options.styles, net=net, callback=after_step, start=options.start,
                    regions=options.region or None, style_masks=options.style_mask or None,
                    checkpoint=options.saved, checkpoint_every=options.checkpoint_every, resume=options.resume,
                    film=options.film, film_every=options.film_every, max_pixels=options.max_pixels,
                    **{name: getattr(self.settings, name) for name in Settings.names()},
                )  # fmt: skip
            except (NonFiniteError, OutputError) as error:
                if error.result is not None:  # the picture is not to be lost with the film or the checkpoint
                    self._finish(error.result)
                raise
        return self._finish(result)

    def _plan(self, net: Any) -> int:
        """Print what the run would need."""
        from dataclasses import asdict

        from nstcore.style import plan_transfer

        found = plan_transfer(
            self.options.content, self.options.styles, net=net, max_pixels=self.options.max_pixels,
            start=self.options.start, regions=self.options.region or None, style_masks=self.options.style_mask or None,
            **{name: getattr(self.settings, name) for name in Settings.names()},
        )  # fmt: skip
        typer.echo(json.dumps(asdict(found), indent=2) if self.options.as_json else "\n".join(found.lines()))
        return 0

    def network(self) -> Any:
        """The network, when it is not the default one."""
        if self.options.weights is None:
            return None
        from nstcore import models
        from nstcore import weights as files

        architecture = files.load(self.options.weights).architecture
        build = {"vgg16": models.vgg16, "vgg19": models.vgg19}.get(architecture)
        if build is None:
            raise ArgumentError(f"[style] expects --weights of vgg16 or vgg19, got {architecture}")
        return build(self.options.weights, pooling=self.settings.pooling)

    def _check_outputs(self) -> None:
        """Find out before the work starts whether the results can be written."""
        from nstcore.files import check_output
        from nstcore.images import check_suffix

        options = self.options
        if not options.styles:
            raise ArgumentError(
                "[style] expects at least one painting after the photograph: nst style photo.jpg painting.jpg"
            )
        pictures = [self.output] + ([options.plot] if options.plot else [])
        for path in pictures:
            check_suffix(path)
        targets = pictures + [path for path in (options.history, options.saved, options.film) if path]
        taken = {os.path.realpath(path) for path in targets}
        if len(taken) != len(targets):
            raise ArgumentError(
                "[style] expects different files for -o, --history, --plot, --film and --checkpoint, got the same twice"
            )
        for path in targets:
            check_output(path, inputs=options.inputs)
        if options.save_every:
            self._check_numbered(options.inputs, taken)

    def _check_numbered(self, inputs: list[Path], taken: set[str]) -> None:
        """The same for the pictures of --save-every; `taken` are the other outputs."""
        from nstcore.files import check_output

        folder, every = os.path.realpath(self.output.parent), self.options.save_every or 1
        for step in range(every, self.steps + 1, every):
            path = self._numbered(step)
            exists = os.path.lexists(path)
            if (os.path.realpath(path) if exists else os.path.join(folder, path.name)) in taken:
                raise ArgumentError(
                    f"[style] expects different files for -o, --history, --plot and --save-every, got {path} twice"
                )
            if exists:  # a new name in a folder that was just tried needs no trial
                check_output(path, inputs=inputs)

    def _numbered(self, step: int) -> Path:
        digits = len(str(self.steps))
        return self.output.with_name(f"{self.output.stem}-{step:0{digits}d}{self.output.suffix}")

    def _write(self, path: Path, image: Any) -> None:
        from nstcore.images import save

        save(path, image)

    def _finish(self, result: Any) -> int:
        from nstcore.style import report

        options, summary = self.options, report.summary(result)
        if not result.history:  # the start is no result, and must not replace an earlier one
            if options.as_json:
                typer.echo(json.dumps({"output": None, **summary}, indent=2))
            else:
                typer.echo(f"{self.output}: {result.stopped} before the first step; nothing was written")
            return _stop.code()
        self._write(self.output, result.image)
        if options.history:
            report.write_csv(options.history, result.history)
        if options.plot:
            self._write(options.plot, report.draw_losses(result.history))
        if options.as_json:
            typer.echo(json.dumps({"output": str(self.output), **summary}, indent=2))
        else:
            typer.echo(f"{self.output}: {report.sentence(summary)}")
            if result.stopped == "interrupted" and options.saved:
                typer.echo(f"to continue, give the same command with --resume {options.saved}")
        return _stop.code() if result.stopped == "interrupted" else 0


def _warn_of_frames(content: Path) -> None:
    """Say that an animation has more than the frame that is painted."""
    from nstcore import _decode
    from nstcore.cli import print_warning
    from nstcore.images import MAX_PIXELS

    name = str(content)
    try:
        with (
            _decode.open_path(name) as stream,
            _decode.opened(stream, name, MAX_PIXELS) as picture,
            _decode.damage_as_image_error(name, MAX_PIXELS),
        ):
            frames = getattr(picture, "n_frames", 1)
    except ImageError:  # whatever is wrong with it is told when it is read
        return
    if frames > 1 and picture.format in ("GIF", "WEBP", "PNG"):
        print_warning(f"{content} has {frames} frames, of which the first is painted; --clip paints all")
