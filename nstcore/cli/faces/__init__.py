"""The command group ``nst faces``."""

from __future__ import annotations

import typer

from nstcore.cli.faces.detect import detect

app = typer.Typer(help="Detect, enrol, verify and identify faces.", no_args_is_help=True)
app.command("detect")(detect)
