"""``nst ops``: the operations, from their records."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from nstcore.ops import OPS, Op


def operations(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every operation of the engine: its shapes, kernels and source."""
    if as_json:
        typer.echo(json.dumps([_row(op) for op in OPS.values()], indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("operation", "shapes", "kernels", "gradient", "what it computes"):
        table.add_column(column, overflow="fold")
    for op in OPS.values():
        row = _row(op)
        table.add_row(row["name"], row["shapes"], row["kernels"], "yes" if row["gradient"] else "no", row["summary"])
    Console().print(table)


def _row(op: Op) -> dict[str, str | bool]:
    summary = (op.public.__doc__ or "").strip().split("\n")[0]
    return {
        "name": op.name,
        "shapes": op.signature.replace("[", "(").replace("]", ")"),
        "kernels": "native" if op.cpu else "NumPy",
        "gradient": op.gradient,
        "summary": summary,
        "source": op.source,
    }
