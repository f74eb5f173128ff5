"""The command group `nst weights`: list what is embedded, verify files, convert from other formats."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nstcore import weights
from nstcore.cli import print_error
from nstcore.errors import WeightsError

app = typer.Typer(help="List, verify and convert pretrained weights.", no_args_is_help=True)
_DIGEST_SHOWN = 12  # characters of a digest in the table; --json gives all
_PIPE_WIDTH = 200


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the weights that travel inside the package."""
    rows = [_row(name) for name in weights.available()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "architecture", "dtype", "parameters", "size", "digest", "arrays", "licence", box=None)
    for row in rows:
        size = f"{row['bytes'] / 1e6:.1f} MB"
        table.add_row(
            row["name"],
            row["architecture"],
            row["dtype"],
            f"{row['parameters']:,}",
            size,
            row["digest"][:_DIGEST_SHOWN],
            row["arrays_digest"][:_DIGEST_SHOWN],
            row["licence"].split(",")[0],  # the holder's name is in --json
        )
    # into a pipe rich would wrap at 80 columns; a line a file is what the next program wants
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _row(name: str) -> dict[str, Any]:
    """Describe one embedded file."""
    path = weights.embedded(name)
    found = weights.load(path)
    return {
        "name": name,
        "architecture": found.architecture,
        "dtype": found.meta["dtype"],
        "parameters": found.parameters,
        "bytes": path.stat().st_size,
        "digest": found.digest,
        "arrays_digest": found.arrays_digest,
        "preprocessing": found.preprocessing,
        "source": found.meta["source"],
        "licence": found.meta["licence"],
    }


@app.command()
def verify(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Weights files; default: all embedded.")
    ] = None,
) -> None:
    """Check every digest, shape and fact of weights files; exit code 2 if one is not sound.

    The first digest is of the whole file; the one of the arrays is the same for all files with the same weights,
    whatever they say about their source.
    """
    paths = files or [weights.embedded(name) for name in weights.available()]
    failures = []
    for path in paths:
        try:
            found = weights.verify(path)
        except WeightsError as error:
            failures.append(error)
        else:
            kind = f"{found.architecture} {found.meta['dtype']}"
            typer.echo(f"ok  {path}  {kind}  {found.digest}  arrays {found.arrays_digest}")
    for failure in failures[:-1]:
        print_error(str(failure))
    if failures:
        raise failures[-1]


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help=".onnx, .pth, .pt, .safetensors, .h5, .npz (Keras), .mat, .caffemodel, .dat (dlib) or .whl "
            "(facenet-pytorch) file."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .npz to write.")],
    dtype: Annotated[str, typer.Option(help="float16 (half the size) or float32 (exact).")] = "float16",
    architecture: Annotated[
        str | None,
        typer.Option(help="Insist on vgg16, vgg19, alexnet, alexnet_torchvision, face_encoder or mtcnn."),
    ] = None,
    origin: Annotated[str | None, typer.Option(help="Where the source came from; kept in the file.")] = None,
) -> None:
    """Turn a VGG, an AlexNet, dlib's face encoder or MTCNN into a weights file."""
    from nstcore.weights.convert import convert as run

    found = run(source, output, architecture=architecture, dtype=dtype, origin=origin)
    typer.echo(
        f"{output}: {found.architecture} {dtype}, {found.parameters:,} parameters, "
        f"{output.stat().st_size / 1e6:.1f} MB, digest {found.digest}, arrays {found.arrays_digest}"
    )
