"""``nst faces train``: an encoder from a folder with a folder of photographs for each person or class."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from nstcore.cli import _stop, print_warning
from nstcore.cli.faces import train_options as of
from nstcore.cli.faces.train_options import CHANGES, DEFAULT
from nstcore.errors import ArgumentError, NonFiniteError, OutputError

_COLUMNS = ("step", "loss", "active", "d² one", "d² two", "gradient", "EER", "one-shot", "threshold", "s")
_HEADS = {"gradient": "grad"}  # where 80 columns have to do
_BLOCKS, _CURVE = "▁▂▃▄▅▆▇█", 64  # of the loss under the table, and how many of them
_SHOWN = 12  # rows of the live table


def train(
    context: typer.Context,
    folder: of.Folder,
    output: of.Output = Path("encoder.npz"),
    from_scratch: of.FromScratch = False,
    fine_tune: of.FineTune = False,
    start: of.From = None,
    last: of.Last = 2,
    align: of.Align = None,
    loss: of.Loss = DEFAULT.loss,
    mining: of.Mining = DEFAULT.mining,
    margin: of.Margin = None,
    steps: of.Steps = DEFAULT.steps,
    people: of.People = DEFAULT.people,
    photos: of.Photos = DEFAULT.photos,
    learning_rate: of.LearningRate = DEFAULT.learning_rate,
    weight_decay: of.WeightDecay = DEFAULT.weight_decay,
    warm_up: of.WarmUp = DEFAULT.warm_up,
    clip: of.Clip = DEFAULT.clip,
    flip: of.Flip = CHANGES.flip,
    shift: of.Shift = CHANGES.shift,
    scale: of.Scale = CHANGES.scale,
    light: of.Light = CHANGES.light,
    validation: of.Validation = DEFAULT.validation,
    patience: of.Patience = DEFAULT.patience,
    every: of.Every = DEFAULT.evaluate_every,
    size: of.Size = 128,
    side: of.Side = 64,
    seed: of.Seed = DEFAULT.seed,
    head: of.Head = None,
    checkpoint: of.Checkpoint = None,
    resume: of.Resume = None,
    history: of.History = None,
    plot: of.Plot = None,
    as_json: of.AsJson = False,
) -> int:
    """Train an encoder that puts pictures of one class close together, and those of two apart.

    nst faces train photos/ -o encoder.npz

    Ctrl-C ends the run and writes what was reached (exit code 130); so does SIGTERM (143). Warnings and the table go to
    standard error.
    """
    _check_choices(context, from_scratch, fine_tune, start is not None, head, loss)
    outputs = [p for p in (output, head, checkpoint, history, plot) if p is not None]
    _check_outputs(outputs, plot, [p for p in (start, resume) if p is not None and p != checkpoint])
    origin: str | Path = "fine-tune" if fine_tune else start if start is not None else "scratch"
    options: dict[str, Any] = {
        "start": origin, "last": last, "align": align, "size": size, "side": side, "checkpoint": checkpoint,
        "resume": resume, "loss": loss, "mining": mining, "steps": steps, "people": people,
        "photos": photos, "learning_rate": learning_rate, "weight_decay": weight_decay, "warm_up": warm_up,
        "clip": clip, "flip": flip, "shift": shift, "scale": scale, "light": light, "validation": validation,
        "patience": patience, "evaluate_every": every, "seed": seed,
    }  # fmt: skip
    options |= {} if margin is None else {"margin": margin}
    from nstcore.faces import train_encoder

    try:
        with _progress(steps, every, quiet=as_json) as (reading, show):
            trained = train_encoder(folder, callback=show, progress=reading, **options)
    except (NonFiniteError, OutputError) as error:
        if error.result is not None:
            _keep(error, output, head, history, plot, as_json)
        raise
    code = _finish(trained, output, head, history, plot, as_json)
    if trained.stopped == "interrupted" and trained.history and checkpoint is not None and not as_json:
        typer.echo(f"to continue, give the same command with --resume {checkpoint}")
    return code


def _check_choices(
    context: typer.Context, from_scratch: bool, fine_tune: bool, goes_on: bool, head: Path | None, loss: str
) -> None:
    """Raise for choices that exclude each other, and warn of those that change nothing."""
    if from_scratch + fine_tune + goes_on > 1:
        raise ArgumentError("[train] expects one of --from-scratch, --fine-tune and --from, got several")
    if head is not None and loss != "logistic":
        raise ArgumentError(f"[train] expects --head with --loss logistic, which trains one, got {loss}")
    for line in _without_effect(context, fine_tune, goes_on, loss):
        print_warning(line)


def _without_effect(context: typer.Context, fine_tune: bool, goes_on: bool, loss: str) -> Iterator[str]:
    """A sentence for each reason why options that were given change nothing."""
    reasons = [
        (
            fine_tune,
            ("shift", "scale", "light"),
            "--fine-tune takes pictures through the frozen layers once, as they are",
        ),
        (fine_tune or goes_on, ("size", "side"), "they belong to --from-scratch"),
        (not (fine_tune or goes_on), ("last",), "it belongs to --fine-tune"),
        (loss != "triplet", ("mining",), f"the {loss} loss takes pairs, not triplets"),
    ]
    for holds, names, why in reasons:
        given = [f"--{n}" for n in names if (s := context.get_parameter_source(n)) and s.name == "COMMANDLINE"]
        if holds and given:
            yield f"{', '.join(given)} without effect: {why}"


def _check_outputs(outputs: list[Path], plot: Path | None, inputs: list[Path]) -> None:
    from nstcore.files import check_output
    from nstcore.images import check_suffix

    if len({os.path.realpath(p) for p in outputs}) != len(outputs):
        raise ArgumentError(
            "[train] expects different files for -o, --head, --checkpoint, --history and --plot, got one twice"
        )
    if plot is not None:
        check_suffix(plot)
    for path in outputs:
        check_output(path, inputs=inputs)


def _keep(error: NonFiniteError | OutputError, *places: Any) -> None:
    """Write what was reached before an error; where that cannot be written either, both are told."""
    try:
        _finish(error.result, *places)
    except OutputError as second:
        raise type(error)(f"{error}; {second}") from error


def _finish(
    trained: Any, output: Path, head: Path | None, history: Path | None, plot: Path | None, as_json: bool
) -> int:
    from nstcore import images
    from nstcore.faces import train_report as report

    facts = report.summary(trained)
    if trained.history:  # an untrained network is no result, and must not replace an earlier one
        trained.save(output, head)
        if history:
            report.write_csv(history, trained.history)
        if plot:
            images.save(plot, report.draw(trained.history, trained.before))
    written = str(output) if trained.history else None
    if as_json:
        typer.echo(json.dumps({"output": written, **facts, "warnings": report.notices(trained)}, indent=2))
    else:
        for line in report.notices(trained):
            print_warning(line)
        typer.echo(f"{output}: {report.sentence(trained)}" if written else f"{output}: nothing was written")
    return _stop.code() if trained.stopped == "interrupted" else 0


Show = Callable[[Any], None]
Reading = Callable[[int, int], None]


@contextmanager
def _progress(steps: int, every: int, quiet: bool) -> Iterator[tuple[Reading, Show]]:
    """Functions that show how far reading is and what a step was: a live table on a terminal, else lines.

    A row stays, and a line is printed, of every `every` steps and of the last.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        yield lambda done, total: None, lambda row: _line(console, row, steps, every)
        return
    rows: list[Any] = []
    losses: list[float] = []
    with Live("starting", console=console, refresh_per_second=4) as live:

        def reading(done: int, total: int) -> None:
            live.update(f"reading photographs: {done} of {total}" if done < total else "preparing the photographs")

        def show(row: Any) -> None:
            if rows and rows[-1].step % every:
                rows.pop()  # the step before, of which nothing but its losses is known
            rows.append(row)
            losses.append(row.loss)
            live.update(_shown(rows[-_SHOWN:], losses, steps))

        yield reading, show


def _line(console: Any, row: Any, steps: int, every: int) -> None:
    """Where no table can be drawn (a log, a pipe)."""
    if row.step % every == 0 or row.step in (1, steps):
        cells = zip(_COLUMNS, _cells(row), strict=True)
        console.print("  ".join(f"{name} {cell}" for name, cell in cells if cell), highlight=False, soft_wrap=True)


def _cells(row: Any) -> list[str]:
    """A row of the table."""
    looked = ["", "", ""]
    if row.eer is not None:
        looked = [f"{row.eer:.1%}", f"{row.one_shot:.1%}", f"{row.threshold:.3f}"]
    state = "collapsed" if row.collapsed else f"{row.active:.1%}"
    return [
        str(row.step), f"{row.loss:.4f}", state, f"{row.positive:.3f}", f"{row.negative:.3f}", f"{row.gradient:.2g}",
        *looked, f"{row.seconds:.0f}",
    ]  # fmt: skip


def _shown(rows: list[Any], losses: list[float], steps: int) -> Any:
    """The table, and below it the loss of all steps of this run as a curve."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0), title=_title(rows[-1], len(losses), steps), title_justify="left")
    for name in _COLUMNS:
        table.add_column(_HEADS.get(name, name), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return Group(table, Text(f"loss {curve(losses, _CURVE)}"))


def _title(row: Any, taken: int, steps: int) -> str:
    """The step, and the time that is left at the pace so far; `taken`: steps of this process."""
    left = row.seconds / max(1, row.step) * (steps - row.step)
    clock = f"{int(left) // 60}:{int(left) % 60:02}"
    return f"step {row.step} of at most {steps}, {clock} left" if taken > 2 else f"step {row.step} of at most {steps}"


def curve(values: list[float], width: int) -> str:
    """Values as blocks from the lowest to the highest, the mean of several where there are more than `width`.

    >>> curve([4.0, 3.0, 2.5, 1.0, 1.0], 5), curve([1.0, 3.0, 0.0, 0.0], 2), curve([float("nan")], 3)
    ('█▆▅▁▁', '█▁', ' ')
    """
    import numpy as np

    parts = np.array_split(np.array(values), min(width, len(values)))
    means = np.array([part.mean() for part in parts])
    known = means[np.isfinite(means)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((m - low) * scale)] if np.isfinite(m) else " " for m in means)
