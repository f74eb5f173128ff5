"""Progress bars: of a style transfer with its costs, and of anything that can be counted; with the time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn


@contextmanager
def bar(steps: int, quiet: bool = False, label: str = "painting") -> Iterator[Callable[[Any], None]]:
    """A bar on standard error; the function that it gives takes the `Progress` of each step."""
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        yield _lines(console, steps)
        return
    with Progress(*_columns("words"), console=console, expand=True) as progress:
        task = progress.add_task(label, total=steps, words="")
        yield lambda now: progress.update(task, completed=now.row.step, total=now.steps, words=costs(now.row))


def _columns(*fields: str) -> tuple[ProgressColumn, ...]:
    """Label, bar, count, the named fields of the task, time left."""
    middle = [TextColumn(f"{{task.fields[{field}]}}") for field in fields]
    start = TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn()
    return (*start, *middle, TimeRemainingColumn(compact=True), TextColumn("left"))


def costs(row: Any) -> str:
    """The costs of a step in a few words."""
    return f"{row.size} px, J {row.total:#.3g}, content {row.content:#.2g}, style {sum(row.style.values()):#.2g}"


def _lines(console: Console, steps: int) -> Callable[[Any], None]:
    """Where no bar can be drawn (a log, a pipe): about ten lines in all."""
    every = max(1, steps // 10)

    def show(now: Any) -> None:
        row = now.row
        if row.step % every == 0 or row.step in (1, now.steps):
            console.print(f"step {row.step}/{now.steps}  {costs(row)}  {row.seconds:.1f} s", highlight=False)

    return show


@contextmanager
def counted(label: str, steps: int, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A bar on standard error, where that is a terminal and there is something to wait for; to be called each step."""
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal or steps < 2:
        yield lambda: None
        return
    with Progress(*_columns(), console=console, expand=True, transient=True) as progress:
        task = progress.add_task(label, total=steps)
        yield lambda: progress.advance(task)


@contextmanager
def counter(label: str, total: int, quiet: bool = False, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """A bar on standard error for `total` things; the function that it gives takes how many are done and some words."""
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:
        every = max(1, total // 10)

        def say(now: int, words: str) -> None:
            if now % every == 0 or now == total:
                console.print(f"{label} {now}/{total}  {words}".rstrip(), highlight=False)

        yield say
        return
    with Progress(*_columns("words"), console=console, expand=True) as progress:
        task = progress.add_task(label, total=total, completed=done, words="")
        yield lambda now, words: progress.update(task, completed=now, words=words)


@contextmanager
def each(name: Callable[[int], str], quiet: bool = False) -> Iterator[Callable[[int, int, Any], None]]:
    """Of several pictures; takes the number of one, from 0, how many steps it has, and the `HistoryRow` of a step."""
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal:

        def say(index: int, steps: int, row: Any) -> None:
            if row.step == steps:
                console.print(
                    f"{name(index)}  {costs(row)}  {row.seconds:.1f} s", highlight=False, markup=False, soft_wrap=True
                )

        yield say
        return
    beside = sys.stdout.isatty()  # or what is printed on the way would go to the bar's stream
    with Progress(*_columns("words"), console=console, expand=True, redirect_stdout=beside) as progress:
        task = progress.add_task(escape(name(0)), total=None, words="")
        yield lambda index, steps, row: progress.update(
            task, description=escape(name(index)), total=steps, completed=row.step, words=costs(row)
        )
