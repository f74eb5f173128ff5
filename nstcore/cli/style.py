"""``nst style``: a photograph in the style of one or several paintings."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from nstcore.cli import INTERRUPTED, _progress
from nstcore.errors import ArgumentError, NonFiniteError
from nstcore.style.settings import Init, Memory, OptimizerName, Pooling, Settings

_D = Settings()
_LAYERS = "Comma-separated, each with an optional weight: conv1_1,conv4_1=0.5. Default: "


def _layers_option(default: Iterable[str]) -> Any:
    """An option whose default stands in its help: in a column of its own a long one would be cut off."""
    return typer.Option(help=_LAYERS + ", ".join(default), show_default=False)


def style(
    content: Annotated[Path, typer.Argument(help="The photograph.", show_default=False)],
    styles: Annotated[list[Path] | None, typer.Argument(help="One or more paintings.", show_default=False)] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write: .png, .jpg or .webp.")] = Path(
        "out.png"
    ),
    size: Annotated[int, typer.Option(help="Longer side of the result, in pixels.")] = _D.size,
    steps: Annotated[int, typer.Option(help="Steps of the optimiser.")] = _D.steps,
    content_weight: Annotated[float, typer.Option(help="Alpha: how much of the photograph stays.")] = _D.content_weight,
    style_weight: Annotated[float, typer.Option(help="Beta: how strong the style is.")] = _D.style_weight,
    tv_weight: Annotated[float, typer.Option(help="Smoothness (total variation).")] = _D.tv_weight,
    content_layers: Annotated[str, _layers_option(_D.content_layers)] = ",".join(_D.content_layers),
    style_layers: Annotated[str, _layers_option(_D.style_layers)] = ",".join(_D.style_layers),
    blend: Annotated[str | None, typer.Option(help="Weights of the paintings: 0.7,0.3")] = None,
    init: Annotated[str, typer.Option(help="Start from: content, noise or style.")] = _D.init,
    optimizer: Annotated[str, typer.Option(help="lbfgs, adam, or gd (gradient descent).")] = _D.optimizer,
    learning_rate: Annotated[float | None, typer.Option(help="Of adam and gd, in units of the pixel range.")] = None,
    pooling: Annotated[str, typer.Option(help="Of the network: max or avg.")] = _D.pooling,
    seed: Annotated[int, typer.Option(help="Of the white noise.")] = _D.seed,
    memory: Annotated[str, typer.Option(help="normal, or low: the same picture in less of it.")] = _D.memory,
    weights: Annotated[Path | None, typer.Option(help="VGG weights (.npz) instead of the embedded VGG-16.")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Also write the picture every N steps.")] = None,
    history: Annotated[Path | None, typer.Option(help="Write the losses of each step: .csv")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the losses: .png, .jpg or .webp")] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest picture that is read.")] = 100_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> int:
    """Paint CONTENT in the style of STYLES.

    nst style photo.jpg painting.jpg -o out.png
    """
    settings = Settings(
        size=size, steps=steps, content_weight=content_weight, style_weight=style_weight, tv_weight=tv_weight,
        content_layers=_layers("--content-layers", content_layers),
        style_layers=_layers("--style-layers", style_layers),
        blend=_numbers("--blend", blend), init=cast(Init, init), optimizer=cast(OptimizerName, optimizer),
        learning_rate=learning_rate, pooling=cast(Pooling, pooling), seed=seed,
        memory=cast(Memory, memory),
    )  # fmt: skip
    job = _Job(content, styles or [], output, settings, weights, save_every, history, plot, max_pixels)
    return job.run(as_json)


def _layers(option: str, text: str) -> dict[str, float]:
    """``conv1_1,conv4_1=0.5`` as name -> weight."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    named = [(name.strip(), weight) for name, _, weight in (part.partition("=") for part in parts)]
    if not named or len({name for name, _ in named}) != len(named):
        raise ArgumentError(f"[style] expects {option} as different layer names with commas between, got {text!r}")
    return {name: _number(option, weight) if weight else 1.0 for name, weight in named}


def _numbers(option: str, text: str | None) -> list[float] | None:
    return None if text is None else [_number(option, part) for part in text.split(",")]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"[style] expects a number in {option}, got {text.strip()!r}") from None


class _Job:
    """One run of the command: refuse what cannot work, run, write."""

    def __init__(
        self, content: Path, styles: list[Path], output: Path, settings: Settings, weights: Path | None,
        save_every: int | None, history: Path | None, plot: Path | None, max_pixels: int,
    ) -> None:  # fmt: skip
        self.content, self.styles, self.output, self.settings = content, styles, output, settings
        self.weights, self.save_every, self.history, self.plot = weights, save_every, history, plot
        self.max_pixels = max_pixels

    def run(self, as_json: bool) -> int:
        from nstcore.style import transfer

        self._check_outputs()
        net = self._network()
        with _terminated_as_interrupted(), _progress.bar(self.settings.steps, quiet=as_json) as show:

            def after_step(progress: Any) -> None:
                show(progress.row)
                if self.save_every and progress.row.step % self.save_every == 0:
                    self._write(self._numbered(progress.row.step), progress.image)

            try:
                result = transfer(
                    self.content, self.styles, net=net, callback=after_step, max_pixels=self.max_pixels,
                    **{name: getattr(self.settings, name) for name in Settings.names()},
                )  # fmt: skip
            except NonFiniteError as error:
                self._finish(error.result, as_json)
                raise
        return self._finish(result, as_json)

    def _network(self) -> Any:
        """The network, when it is not the default one."""
        if self.weights is None:
            return None
        from nstcore import models
        from nstcore import weights as files

        architecture = files.load(self.weights).architecture
        build = {"vgg16": models.vgg16, "vgg19": models.vgg19}.get(architecture)
        if build is None:
            raise ArgumentError(f"[style] expects --weights of vgg16 or vgg19, got {architecture}")
        return build(self.weights, pooling=self.settings.pooling)

    def _check_outputs(self) -> None:
        """Find out before the work starts whether the results can be written."""
        from nstcore.files import check_output
        from nstcore.images import check_suffix

        if not self.styles:
            raise ArgumentError(
                "[style] expects at least one painting after the photograph: nst style photo.jpg painting.jpg"
            )
        inputs = [self.content, *self.styles, *([self.weights] if self.weights else [])]
        pictures = [self.output] + ([self.plot] if self.plot else [])
        for path in pictures:
            check_suffix(path)
        targets = pictures + ([self.history] if self.history else [])
        taken = {os.path.realpath(path) for path in targets}
        if len(taken) != len(targets):
            raise ArgumentError("[style] expects different files for -o, --history and --plot, got the same twice")
        for path in targets:
            check_output(path, inputs=inputs)
        if self.save_every:
            self._check_numbered(inputs, taken)

    def _check_numbered(self, inputs: list[Path], taken: set[str]) -> None:
        """The same for the pictures of --save-every; `taken` are the other outputs."""
        from nstcore.files import check_output

        folder = os.path.realpath(self.output.parent)
        for step in range(self.save_every or 1, self.settings.steps + 1, self.save_every or 1):
            path = self._numbered(step)
            exists = os.path.lexists(path)
            if (os.path.realpath(path) if exists else os.path.join(folder, path.name)) in taken:
                raise ArgumentError(
                    f"[style] expects different files for -o, --history, --plot and --save-every, got {path} twice"
                )
            if exists:  # a new name in a folder that was just tried needs no trial
                check_output(path, inputs=inputs)

    def _numbered(self, step: int) -> Path:
        digits = len(str(self.settings.steps))
        return self.output.with_name(f"{self.output.stem}-{step:0{digits}d}{self.output.suffix}")

    def _write(self, path: Path, image: Any) -> None:
        from nstcore.images import save

        save(path, image)

    def _finish(self, result: Any, as_json: bool) -> int:
        from nstcore.style import report

        summary = report.summary(result)
        if not result.history:  # the start is no result, and must not replace an earlier one
            if as_json:
                typer.echo(json.dumps({"output": None, **summary}, indent=2))
            else:
                typer.echo(f"{self.output}: {result.stopped} before the first step; nothing was written")
            return INTERRUPTED
        self._write(self.output, result.image)
        if self.history:
            report.write_csv(self.history, result.history)
        if self.plot:
            self._write(self.plot, report.draw_losses(result.history))
        if as_json:
            typer.echo(json.dumps({"output": str(self.output), **summary}, indent=2))
        else:
            typer.echo(f"{self.output}: {report.sentence(summary)}")
        return INTERRUPTED if result.stopped == "interrupted" else 0


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let a polite kill, such as a time limit's, keep what is done, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():  # the only one that may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
