"""``nst ops``: the operations, from their records."""

from __future__ import annotations

import json
import re
import sys
from typing import Annotated, TypedDict

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nstcore import ops
from nstcore.ops import OPS, Op

PIPE_WIDTH = 200  # in a pipe, a line an operation is what the next program wants


class Row(TypedDict):
    """What is told of an operation."""

    name: str
    shapes: str
    kernels: str
    gradient: bool
    summary: str
    source: str


def operations(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every operation of the engine: what it computes, on which shapes, with which kernels."""
    rows = [_row(op) for op in OPS.values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    terminal = sys.stdout.isatty()
    table = Table(
        "operation", "kernels", "what it computes, on which shapes", box=box.SIMPLE_HEAD if terminal else None
    )
    for row in rows:
        shapes = [row["shapes"]] if row["shapes"].strip(". ,->") else []
        words = ("\n" if terminal else "   ").join([_clause(row["summary"]), *shapes])
        table.add_row(row["name"], row["kernels"], Text(words))  # Text, since brackets in a formula are no markup
    Console(width=None if terminal else PIPE_WIDTH, highlight=False).print(table)


def _clause(summary: str) -> str:
    """The first clause of a sentence: what follows a semicolon is for the documentation."""
    return re.split(r"[;:] ", summary)[0].removesuffix(".")


def _row(op: Op) -> Row:
    summary = (getattr(ops, op.name).__doc__ or "").strip().split("\n")[0]
    return {
        "name": op.name,
        "shapes": op.signature.replace("[", "(").replace("]", ")").strip(),
        "kernels": "native" if op.cpu else "NumPy",
        "gradient": op.gradient,
        "summary": summary,
        "source": op.source,
    }
