"""The progress bar of a style transfer: step, costs, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def bar(steps: int, quiet: bool = False, label: str = "painting") -> Iterator[Callable[[Any], None]]:
    """A bar on standard error; the function that it gives takes the `HistoryRow` of each step."""
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        yield _lines(console, steps)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(),
        TextColumn("{task.fields[costs]}"), TimeRemainingColumn(compact=True), TextColumn("left"),
    )  # fmt: skip
    with Progress(*columns, console=console, expand=True) as progress:
        task = progress.add_task(label, total=steps, costs="")
        yield lambda row: progress.update(task, completed=row.step, costs=costs(row))


def costs(row: Any) -> str:
    """The costs of a step in a few words."""
    return f"{row.size} px, J {row.total:#.3g}, content {row.content:#.2g}, style {sum(row.style.values()):#.2g}"


def _lines(console: Console, steps: int) -> Callable[[Any], None]:
    """Where no bar can be drawn (a log, a pipe): about ten lines in all."""
    every = max(1, steps // 10)

    def show(row: Any) -> None:
        if row.step % every == 0 or row.step in (1, steps):
            console.print(f"step {row.step}/{steps}  {costs(row)}  {row.seconds:.1f} s", highlight=False)

    return show
