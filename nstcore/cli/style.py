"""``nst style``: a photograph in the style of one or several paintings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from nstcore.cli import _style_batch, _style_clip
from nstcore.cli._style_job import Job, Options
from nstcore.errors import ArgumentError
from nstcore.style.settings import FRAME_STEPS, STILL_WEIGHT, VIDEOS, Memory, Settings

_D = Settings()
_OUTPUT = (
    "Picture (.png, .jpg, .webp; default out.png). Of a folder: a folder (styled). "
    "Of a clip: .gif, .webp, .mp4, or a folder (as the clip: out.gif, …)."
)
_LAYERS = "Comma-separated, each with an optional weight: conv1_1,conv4_1=0.5. Default: "
_PARSED = ("content_layers", "style_layers", "blend", "memory")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# Options that do nothing without one of these others.
_NEEDED = {
    "film_every": ("film",), "checkpoint_every": ("checkpoint", "resume"), "face_weight": ("keep_face",),
    "frame_steps": ("clip",), "still_weight": ("clip",),
}  # fmt: skip

_RESULTS = partial(typer.Option, rich_help_panel="Results")
_SIZES = partial(typer.Option, rich_help_panel="Sizes and steps")
_COSTS = partial(typer.Option, rich_help_panel="Costs and layers")
_LOOK = partial(typer.Option, rich_help_panel="Paintings, colours and faces")
_NEEDS = partial(typer.Option, rich_help_panel="Memory and time")
_RUNS = partial(typer.Option, rich_help_panel="Interrupted and continued")
_FILMS = partial(typer.Option, rich_help_panel="Films and clips")


def _layers_option(default: Iterable[str]) -> Any:
    """An option whose default stands in its help: in a column of its own a long one would be cut off."""
    return _COSTS(help=_LAYERS + ", ".join(default), show_default=False)


def style(
    content: Annotated[Path, typer.Argument(help="The photograph; or a folder of them.", show_default=False)],
    styles: Annotated[list[Path] | None, typer.Argument(help="One or more paintings.", show_default=False)] = None,
    output: Annotated[Path | None, _RESULTS("-o", "--output", help=_OUTPUT)] = None,
    history: Annotated[Path | None, _RESULTS(help="Write the losses of each step: .csv")] = None,
    plot: Annotated[Path | None, _RESULTS(help="Draw the losses: .png, .jpg or .webp")] = None,
    as_json: Annotated[bool, _RESULTS("--json", help="Print a summary as JSON.")] = False,
    size: Annotated[int, _SIZES(help="Longer side of the result, in pixels.")] = _D.size,
    start_size: Annotated[int, _SIZES(help="Smallest size; as large as --size: only one.")] = _D.start_size,
    steps: Annotated[int, _SIZES(help="Steps at the smallest size; larger sizes take fewer.")] = _D.steps,
    until: Annotated[float | None, _SIZES(help="Leave a size when 10 steps gain less: 0.01 is 1 %.")] = None,
    init: Annotated[str, _SIZES(help="Start from: content, noise or style.")] = _D.init,
    start: Annotated[Path | None, _SIZES(help="Start from this picture.")] = None,
    optimizer: Annotated[str, _SIZES(help="lbfgs, adam, or gd (gradient descent).")] = _D.optimizer,
    learning_rate: Annotated[float | None, _SIZES(help="Of adam and gd, in units of the pixel range.")] = None,
    average: Annotated[float, _SIZES(help="Of adam and gd: average the pictures, as 0.98.")] = _D.average,
    seed: Annotated[int, _SIZES(help="Of the white noise.")] = _D.seed,
    content_weight: Annotated[float, _COSTS(help="Alpha: how much of the photograph stays.")] = _D.content_weight,
    style_weight: Annotated[float, _COSTS(help="Beta: how strong the style is.")] = _D.style_weight,
    tv_weight: Annotated[float, _COSTS(help="Smoothness (total variation).")] = _D.tv_weight,
    content_layers: Annotated[str, _layers_option(_D.content_layers)] = ",".join(_D.content_layers),
    style_layers: Annotated[str, _layers_option(_D.style_layers)] = ",".join(_D.style_layers),
    pooling: Annotated[str, _COSTS(help="Of the network: max or avg.")] = _D.pooling,
    weights: Annotated[Path | None, _COSTS(help="VGG weights (.npz) instead of the embedded VGG-16.")] = None,
    style_scale: Annotated[float, _LOOK(help="Size of the strokes: 2 doubles it.")] = _D.style_scale,
    blend: Annotated[str | None, _LOOK(help="Weights of the paintings: 0.7,0.3")] = None,
    colors: Annotated[str, _LOOK(help="Of the painting (style), or kept: luminance, match.")] = _D.colors,
    region: Annotated[list[Path] | None, _LOOK(help="Where a style goes: one mask a painting.")] = None,
    style_mask: Annotated[list[Path] | None, _LOOK(help="What counts: one mask a painting.")] = None,
    keep_face: Annotated[bool, _LOOK("--keep-face", help="Keep the faces recognisable.")] = False,
    face_weight: Annotated[float, _LOOK(help="Of --keep-face: how much they stay.")] = _D.face_weight,
    plan: Annotated[bool, _NEEDS("--plan", help="Say what memory and time it takes; no run.")] = False,
    memory: Annotated[str, _NEEDS(help="normal, low (the same picture in less), or 1G: fit.")] = "normal",
    max_pixels: Annotated[int, _NEEDS(min=1, help="Largest picture that is read.")] = 100_000_000,
    checkpoint: Annotated[Path | None, _RUNS(help="Save the run here (.npz), also on Ctrl-C.")] = None,
    checkpoint_every: Annotated[int, _RUNS(min=1, help="Steps between two savings.")] = 50,
    resume: Annotated[Path | None, _RUNS(help="Continue a saved run; of --clip, its frames.")] = None,
    save_every: Annotated[int | None, _FILMS(min=1, help="Also write the picture every N steps.")] = None,
    film: Annotated[Path | None, _FILMS(help="Film of the run: .gif, .webp or .mp4.")] = None,
    film_every: Annotated[int | None, _FILMS(min=1, help="Steps between its pictures.")] = None,
    clip: Annotated[bool, _FILMS("--clip", help="CONTENT is a clip, or a folder of its frames.")] = False,
    frame_steps: Annotated[int, _FILMS(min=1, help="Of --clip: steps of each later frame.")] = FRAME_STEPS,
    still_weight: Annotated[float, _FILMS(help="Of --clip: how still still parts stay.")] = STILL_WEIGHT,
) -> int:
    """Paint CONTENT in the style of STYLES.

    nst style photo.jpg painting.jpg -o out.png
    """
    return _run(Options(**locals()))


def _run(options: Options) -> int:
    _check_needed(options)
    settings = Settings(
        **{name: getattr(options, name) for name in Settings.names() if name not in _PARSED}
        | {
            "content_layers": _layers("--content-layers", options.content_layers),
            "style_layers": _layers("--style-layers", options.style_layers),
            "blend": _numbers("--blend", options.blend),
            "memory": _memory(options.memory),
        }
    )
    if options.clip:
        return _style_clip.run(options, settings)
    if options.content.suffix.lower() in VIDEOS:
        raise ArgumentError(f"[style] {options.content} is a video: --clip paints its frames")
    if _style_batch.is_batch(options.content):
        return _style_batch.run(options, settings)
    return Job(options, settings).run()


def _memory(text: str) -> Any:
    """``1G``, ``800M``, ``1.5 GB`` or a number of bytes; names as they are."""
    if text in get_args(Memory):
        return text
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise ArgumentError(f"[style] expects --memory as normal, low, or a size such as 1G or 800M; got {text!r}")
    return round(float(found[1]) * _UNITS[found[2].upper()])


def _check_needed(options: Options) -> None:
    """Refuse what would be without effect: whoever gives it expects one."""
    for name, partners in _NEEDED.items():
        default = inspect.signature(style).parameters[name].default
        if getattr(options, name) != default and not any(getattr(options, partner) for partner in partners):
            flags = " or ".join(f"--{partner.replace('_', '-')}" for partner in partners)
            raise ArgumentError(f"[style] --{name.replace('_', '-')} is without effect unless {flags} is given")
    if options.start and options.init != _D.init:
        raise ArgumentError("[style] expects --start or --init, got both")


def _layers(option: str, text: str) -> dict[str, float]:
    """``conv1_1,conv4_1=0.5`` as name -> weight."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    named = [(name.strip(), weight) for name, _, weight in (part.partition("=") for part in parts)]
    if not named or len({name for name, _ in named}) != len(named):
        raise ArgumentError(f"[style] expects {option} as different layer names with commas between, got {text!r}")
    return {name: _number(option, weight) if weight else 1.0 for name, weight in named}


def _numbers(option: str, text: str | None) -> list[float] | None:
    return None if text is None else [_number(option, part) for part in text.split(",")]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"[style] expects a number in {option}, got {text.strip()!r}") from None
