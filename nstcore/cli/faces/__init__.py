"""The command group ``nst faces``."""

from __future__ import annotations

import typer

app = typer.Typer(help="Detect, enrol, verify and identify faces.", no_args_is_help=True)
