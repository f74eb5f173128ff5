"""``nst faces train``: an encoder from a folder with a folder of photographs for each person or class."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from nstcore.cli import _stop, print_error
from nstcore.errors import ArgumentError, NonFiniteError, OutputError

_COLUMNS = ("step", "loss", "active", "d² one", "d² two", "gradient", "EER", "one-shot", "threshold", "s")
_HEADS = {"gradient": "grad"}  # where 80 columns have to do
_BLOCKS, _CURVE = "▁▂▃▄▅▆▇█", 64  # of the loss under the table, and how many of them
_SHOWN = 12  # rows of the live table


def train(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of folders, one a class.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The encoder to write: .npz")] = Path("encoder.npz"),
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="The small network, untrained (default).")
    ] = False,
    fine_tune: Annotated[bool, typer.Option("--fine-tune", help="The face encoder's last layers.")] = False,
    start: Annotated[Path | None, typer.Option("--from", help="Go on from an encoder of an earlier training.")] = None,
    last: Annotated[int, typer.Option(min=1, help="Layers that --fine-tune trains.")] = 2,
    align: Annotated[
        bool, typer.Option("--align/--no-align", help="Find and turn faces; --no-align for any other classes.")
    ] = True,
    loss: Annotated[str, typer.Option(help="triplet, contrastive or logistic.")] = "triplet",
    mining: Annotated[
        str, typer.Option(help="batch_all, semi_hard, batch_hard, distance_weighted or random.")
    ] = "semi_hard",
    margin: Annotated[float | None, typer.Option(help="0.2, a squared distance; of contrastive pairs 1.0.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="At most.")] = 600,
    people: Annotated[int, typer.Option(min=2, help="Classes in a batch.")] = 16,
    photos: Annotated[int, typer.Option(min=2, help="Photographs of each.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-3,
    warm_up: Annotated[int, typer.Option(min=0, help="Steps until the rate is reached.")] = 20,
    validation: Annotated[float, typer.Option(help="Share of the classes that is not trained on.")] = 0.2,
    patience: Annotated[int, typer.Option(min=0, help="Looks without a better one before it stops; 0: never.")] = 8,
    every: Annotated[int, typer.Option("--evaluate-every", min=1, help="Steps between two looks.")] = 25,
    size: Annotated[int, typer.Option(min=1, help="Numbers in an encoding, from scratch.")] = 128,
    side: Annotated[int, typer.Option(help="Pixels of a chip, from scratch; a multiple of 16.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    head: Annotated[Path | None, typer.Option(help="Write the head of --loss logistic: .npz")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Write the state here at every look.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run of this state, bit for bit.")] = None,
    history: Annotated[Path | None, typer.Option(help="Write every step: .csv")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw losses and errors: .png, .jpg or .webp")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> int:
    """Train an encoder that puts pictures of one class close together, and those of two apart.

    nst faces train photos/ -o encoder.npz

    Ctrl-C ends the run and writes what was reached (exit code 130); so does SIGTERM (143).
    """
    if from_scratch + fine_tune + (start is not None) > 1:
        raise ArgumentError("[train] expects one of --from-scratch, --fine-tune and --from, got several")
    if head is not None and loss != "logistic":
        raise ArgumentError(f"[train] expects --head with --loss logistic, which trains one, got {loss}")
    outputs = [p for p in (output, head, checkpoint, history, plot) if p is not None]
    _check_outputs(outputs, plot, [p for p in (start, resume) if p is not None and p != checkpoint])
    origin: str | Path = "fine-tune" if fine_tune else start if start is not None else "scratch"
    options: dict[str, Any] = {
        "start": origin, "last": last, "align": align, "size": size, "side": side, "checkpoint": checkpoint,
        "resume": resume, "loss": loss, "mining": mining, "margin": margin, "steps": steps, "people": people,
        "photos": photos, "learning_rate": learning_rate, "warm_up": warm_up, "validation": validation,
        "patience": patience, "evaluate_every": every, "seed": seed,
    }  # fmt: skip
    from nstcore.faces import train_encoder

    try:
        with _progress(steps, quiet=as_json) as (reading, show):
            trained = train_encoder(folder, callback=show, progress=reading, **options)
    except (NonFiniteError, OutputError) as error:
        if error.result is not None:
            _keep(error, output, head, history, plot, as_json)
        raise
    code = _finish(trained, output, head, history, plot, as_json)
    if trained.stopped == "interrupted" and trained.history and checkpoint is not None and not as_json:
        typer.echo(f"to continue, give the same command with --resume {checkpoint}")
    return code


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
            images.save(plot, report.draw(trained.history))
    written = str(output) if trained.history else None
    if as_json:
        typer.echo(json.dumps({"output": written, **facts}, indent=2))
    else:
        for line in report.notices(trained):
            print_error(line) if line == report.COLLAPSED else typer.echo(line)
        typer.echo(f"{output}: {report.sentence(trained)}" if written else f"{output}: nothing was written")
    return _stop.code() if trained.stopped == "interrupted" else 0


Show = Callable[[Any], None]
Reading = Callable[[int, int], None]


@contextmanager
def _progress(steps: int, quiet: bool) -> Iterator[tuple[Reading, Show]]:
    """Functions that show how far reading is and what a step was: a live table on a terminal, else lines."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        yield lambda done, total: None, lambda row: _line(console, row)
        return
    rows: list[Any] = []
    losses: list[float] = []
    with Live("starting", console=console, refresh_per_second=4) as live:

        def reading(done: int, total: int) -> None:
            live.update(f"reading photographs: {done} of {total}" if done < total else "preparing the photographs")

        def show(row: Any) -> None:
            if rows and rows[-1].eer is None:
                rows.pop()  # the step before, of which nothing but its losses is known
            rows.append(row)
            losses.append(row.loss)
            live.update(_shown(rows[-_SHOWN:], losses, steps))

        yield reading, show


def _line(console: Any, row: Any) -> None:
    """Where no table can be drawn (a log, a pipe): a line for each look at the people not trained on."""
    if row.eer is not None or row.step == 1:
        cells = zip(_COLUMNS, _cells(row), strict=True)
        console.print("  ".join(f"{name} {cell}" for name, cell in cells if cell), highlight=False)


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
