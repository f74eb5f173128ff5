"""``nst dream``: the picture that a unit likes best, made from noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nstcore.cli import _pictures, _progress, _stop


def dream(
    layer: Annotated[str, typer.Option(help="Layer of the unit, such as conv4_2.", show_default=False)],
    unit: Annotated[str, typer.Option(help="Number of the unit; several, 0:4 or 3,7, are set side by side.")] = "0",
    output: Annotated[Path, typer.Option("-o", "--output", help="Picture to write: .png, .jpg or .webp.")] = Path(
        "dream.png"
    ),
    size: Annotated[int, typer.Option(min=1, max=4096, help="Height and width in pixels.")] = 224,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the ascent.")] = 200,
    learning_rate: Annotated[float, typer.Option(help="Share of the pixel range a step.")] = 0.03,
    jitter: Annotated[int, typer.Option(help="Pixels that the picture is shifted by at most.")] = 8,
    blur: Annotated[float, typer.Option(help="Standard deviation of the blur, in pixels; 0: none.")] = 0.7,
    tv_weight: Annotated[float, typer.Option(help="Smoothness (total variation).")] = 0.1,
    decay: Annotated[float, typer.Option(help="Pull towards grey.")] = 0.05,
    octaves: Annotated[int, typer.Option(help="Sizes to begin small from.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    start: Annotated[Path | None, typer.Option("--from", help="Start from this picture instead of noise.")] = None,
    max_pixels: _pictures.MaxPixels = _pictures.MAX_PIXELS,
    net: _pictures.Net = None,
    weights: Annotated[Path | None, typer.Option(help="Weights (.npz) instead of the embedded ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> int:
    """Make the picture that excites a unit most, by gradient ascent on the pixels.

    nst dream --layer conv4_2 --unit 7 -o dream.png
    """
    import numpy as np

    from nstcore.images import check_size, check_suffix, load, save
    from nstcore.visualize.maximize import maximize
    from nstcore.visualize.network import units_of

    check_suffix(output)
    _pictures.check_output(output, [path for path in (start, weights) if path is not None])
    wanted = _pictures.units("dream", unit, "--unit")
    network = _pictures.network("dream", net, weights)
    name = _pictures.one_layer("dream", layer, network)
    numbers = wanted.of(name, units_of(network, [name])[name])
    check_size(output, size, size * len(numbers))
    picture = None if start is None else load(start, size=size, max_pixels=max_pixels)
    made, rows = [], []
    with _progress.counter("dreaming", steps * len(numbers), as_json) as show:
        for at, number in enumerate(numbers):
            found = maximize(
                network, name, number, size=size, steps=steps, learning_rate=learning_rate, jitter=jitter, blur=blur,
                tv_weight=tv_weight, decay=decay, octaves=octaves, seed=seed, init=picture,
                callback=partial(_tell, show, at * steps),
            )  # fmt: skip
            if found.activations:
                made.append(found.image)
                rows.append({"unit": number, "first": found.activations[0], "last": found.activations[-1]})
            if found.stopped:
                break
    if not made:
        typer.echo(f"{output}: interrupted before the first step; nothing was written")
        return _stop.code()
    save(output, np.concatenate(made, axis=1))
    if as_json:
        typer.echo(
            json.dumps({"output": str(output), "layer": name, "stopped": found.stopped, "units": rows}, indent=2)
        )
    else:
        words = ", ".join(f"unit {row['unit']} {row['first']:.4g} -> {row['last']:.4g}" for row in rows)
        typer.echo(f"{output}: {name}, {words}{'; interrupted, this is what was reached' if found.stopped else ''}")
    return _stop.code() if found.stopped else 0


def _tell(show: Callable[[int, str], None], done: int, step: Any) -> None:
    show(done + step.step, f"activation {step.activation:.4g}")
