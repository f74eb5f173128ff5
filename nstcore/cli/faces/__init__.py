"""The command group ``nst faces``."""

from __future__ import annotations

import typer

from nstcore.cli.faces import answers, gallery, measure
from nstcore.cli.faces.detect import detect
from nstcore.cli.faces.enroll import enroll
from nstcore.cli.faces.train import train

app = typer.Typer(help="Detect, enrol, verify and identify faces.", no_args_is_help=True)
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
