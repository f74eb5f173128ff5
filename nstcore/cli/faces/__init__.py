"""The command group ``nst faces``."""

from __future__ import annotations

import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from nstcore.cli import BAD_INPUT, is_told
from nstcore.cli.faces import answers, gallery, measure
from nstcore.cli.faces.detect import detect
from nstcore.cli.faces.enroll import enroll
from nstcore.cli.faces.train import train
from nstcore.errors import ImageError


class _Group(TyperGroup):
    """Exit code 1 is an answer here, "another person" or "not recognised": whatever goes wrong gives 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MemoryError as error:
            raise ImageError("[faces] out of memory; smaller pictures need less, see --max-pixels") from error
        except Exception as error:
            if isinstance(error, (typer.Abort, typer.Exit)) or is_told(error):
                raise
            traceback.print_exception(error)
            raise typer.Exit(BAD_INPUT) from error


app = typer.Typer(cls=_Group, help="Detect, enrol, verify and identify faces.", no_args_is_help=True)
app.command("detect")(detect)
app.command("enroll")(enroll)
app.command("verify")(answers.verify)
app.command("identify")(answers.identify)
app.command("list")(gallery.list_command)
app.command("remove")(gallery.remove)
app.command("restore")(gallery.restore)
app.command("rename")(gallery.rename)
app.command("merge")(gallery.merge)
app.command("unmerge")(gallery.unmerge)
app.command("forget")(gallery.forget)
app.command("export")(gallery.export)
app.command("import")(gallery.import_command)
app.command("train")(train)
app.command("calibrate")(measure.calibrate)
app.command("evaluate")(measure.evaluate)
