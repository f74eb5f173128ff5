"""The command's tree of groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import nstcore
from nstcore.cli import demo, doctor, dream, faces, gram, operations, patches, style, weights


class Escape(Exception):
    """Carries Ctrl-C and a closed pipe past Typer, which would end the process on its own."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason


class _Group(TyperGroup):
    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _escaping():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _escaping():
            return super().invoke(ctx)


@contextmanager
def _escaping() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError) as error:
        raise Escape(error) from error


app = typer.Typer(
    cls=_Group,
    help="Paint photographs in the style of paintings, on an engine of its own: no framework, no download, no GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("style")(style.style)
app.command("demo")(demo.demo)
app.command("patches")(patches.patches)
app.command("dream")(dream.dream)
app.command("gram")(gram.gram)
app.command("doctor")(doctor.doctor)
app.command("ops")(operations.operations)
app.add_typer(faces.app, name="faces")
app.add_typer(weights.app, name="weights")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nstcore {nstcore.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to use; default: every core.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that stand before the command."""
    if threads is not None:
        nstcore.set_num_threads(threads)
