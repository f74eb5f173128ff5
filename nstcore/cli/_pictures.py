"""What ``nst patches``, ``nst dream`` and ``nst gram`` share: the network, lists of layers and units, and the index."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nstcore.errors import ArgumentError, OutputError, PatchIndexError

NETWORKS = ("vgg16", "vgg19", "alexnet", "face_encoder")
MAX_PIXELS = 100_000_000
MaxPixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Largest picture that is read.")]
Net = Annotated[
    str | None, typer.Option(help=f"{', '.join(NETWORKS)}. Default: vgg16, or that of --weights.", show_default=False)
]
_PART = re.compile(r"\s*([0-9]*)\s*(:?)\s*([0-9]*)\s*")


def network(command: str, name: str | None, weights: Path | None) -> Any:
    """A network by name with its embedded weights, or the one that the file `weights` is of."""
    from nstcore import models
    from nstcore import weights as files

    if name is not None and name not in NETWORKS:
        raise ArgumentError(f"[{command}] expects --net {', '.join(NETWORKS)}, got {name!r}")
    architecture = (name or "vgg16") if weights is None else files.load(weights).architecture
    build: dict[str, Any] = {
        "vgg16": models.vgg16, "vgg19": models.vgg19, "alexnet": models.alexnet,
        "alexnet_torchvision": models.alexnet, "face_encoder": models.face_encoder,
    }  # fmt: skip
    if architecture not in build:
        raise ArgumentError(f"[{command}] expects --weights of {', '.join(NETWORKS)}; {weights} is of {architecture}")
    if name is not None and build[architecture] is not build[name]:
        raise ArgumentError(
            f"[{command}] expects --weights of the network that --net names; {weights} is of {architecture}, "
            f"not {name}: leave --net out, or name another file"
        )
    return build[architecture](weights)


def layers(command: str, text: str, net: Any) -> list[str]:
    """``conv1_1,conv3_2`` as names in the order of the network; ``all`` is every layer but the pools."""
    from nstcore.visualize.network import check_layers
    from nstcore.visualize.patches import default_layers

    known = list(net.layers)
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    if not wanted:
        raise ArgumentError(f"[{command}] expects --layer as names with commas between, or all; got {text!r}")
    if wanted == ["all"]:
        return default_layers(net, (1, 1))
    return sorted(check_layers(net, wanted), key=known.index)


def one_layer(command: str, text: str, net: Any) -> str:
    """The name of the one layer that the command works on."""
    names = layers(command, text, net)
    if len(names) != 1:
        raise ArgumentError(f"[{command}] expects one --layer, got {', '.join(names)}")
    return names[0]


@dataclass(frozen=True)
class Units:
    """Units that were asked for, as ranges from a first one to before a last one; None for the layer's end."""

    ranges: tuple[tuple[int, int | None], ...]

    def of(self, layer: str, total: int) -> list[int]:
        """Their numbers in a layer of `total` units, without repetitions; `ArgumentError` for one that it lacks."""
        from nstcore.visualize.network import check_unit

        found: dict[int, None] = {}
        for low, high in self.ranges:
            check_unit(layer, low, total)
            if high is not None:
                check_unit(layer, max(low, min(high - 1, total)), total)
            found.update(dict.fromkeys(range(low, total if high is None else high)))
        return list(found)


def units(command: str, text: str, option: str = "--units") -> Units:
    """``0:16``, ``3,7,100:110``, ``:5``, ``500:`` or ``all``; digits are 0 to 9."""
    if text.strip() == "all":
        return Units(((0, None),))
    ranges: list[tuple[int, int | None]] = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        first, colon, last = match.groups() if match else ("", "", "")
        low = int(first or 0)
        high = (int(last) if last else None) if colon else low + 1
        if not (first or last) or (high is not None and high <= low):
            raise ArgumentError(f"[{command}] expects {option} as 0:16, 3,7, 500: or all, got {text!r}")
        ranges.append((low, high))
    return Units(tuple(ranges))


def check_output(output: Path, inputs: Iterable[Path], folder: Path | None = None, names: Iterable[str] = ()) -> None:
    """Refuse to write over an input, or a picture into the folder of pictures, where a later call would read it.

    names: the pictures in the folder, as paths from it.
    """
    from nstcore.files import check_output as check

    check(output, inputs=inputs)
    if folder is None:
        return
    if output.exists():
        check(output, inputs=(folder / name for name in names))
    from nstcore.images import SUFFIXES

    if output.suffix.lower() in SUFFIXES and Path(os.path.realpath(folder)) in Path(os.path.realpath(output)).parents:
        raise OutputError(
            f"[output] {output} lies in the folder of pictures {folder}, and would be one of them in the next call; "
            "choose another folder"
        )


def opened_index(
    net: Any, known: Any, wanted: Mapping[str, int], below: Mapping[str, int], count: int, several: bool,
    path: Path | None = None,
) -> tuple[Any, Path]:  # fmt: skip
    """The index in `path`, or the one that is kept in the cache folder, with room for the layers of `wanted`.

    One in the cache that is damaged is made again; a file that the user named is not replaced.
    """
    from nstcore.visualize.fill import open_index
    from nstcore.visualize.network import network_digest

    if path is not None:
        return open_index(net, known, wanted, below, count, several, path), path
    path = _cached_index(network_digest(net), known.digest(), str(several))
    try:
        return open_index(net, known, wanted, below, count, several, path), path
    except PatchIndexError as error:
        reason = str(error).removesuffix("; delete it to make a new one")
        typer.echo(f"warning: {reason}; it is made again", err=True)
    return open_index(net, known, wanted, below, count, several, None), path


def tell_notes(index: Any, quiet: bool) -> None:
    """What the index lacks, and is looked for now."""
    for note in () if quiet else index.notes:
        typer.echo(f"looking {note}", err=True)


def tell_skipped(index: Any, quiet: bool) -> None:
    """Warn of pictures that cannot be read, the first of them by name; and say which ones are the same."""
    from nstcore._text import printable
    from nstcore.visualize.fill import LISTED

    for name, reason in index.broken[:LISTED]:
        typer.echo(f"warning: skipped {printable(f'{name}: {reason}')}", err=True)
    if index.skipped > LISTED:
        typer.echo(f"warning: skipped {index.skipped} of {index.total} pictures in all; --json lists them", err=True)
    copied = index.found.copied
    if copied and not quiet:
        name, first = index.copies[0]
        more = f"; so it is with {copied - 1} more" if copied > 1 else ""
        typer.echo(printable(f"{name} has the same pixels as {first} and does not count again{more}"), err=True)


def plural(number: int, noun: str) -> str:
    """A number and a noun.

    >>> plural(1, "unit"), plural(4224, "unit")
    ('1 unit', '4224 units')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def _cached_index(*facts: str) -> Path:
    """Where the index of these facts is kept from call to call: in the user's cache folder, which is made."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nstcore" / "patches"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"[patches] the cache folder {base} cannot be made: {error.strerror or error}; name a file with --index"
        ) from error
    return base / f"{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:24]}.npz"
