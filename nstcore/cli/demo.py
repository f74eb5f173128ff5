"""``nst demo``: the main job on pictures in the package, shown on a page."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from nstcore.cli import _progress, _stop
from nstcore.errors import OutputError
from nstcore.style.settings import Settings

NOISE_SIZE, NOISE_STEPS = 100, 200
SNAPSHOTS = (1, 10, 30, 60, 100, NOISE_STEPS)
# At 100 px conv4_2 has 12 x 8 places, too few to tell a cat by: a lower layer, and more content.
NOISE_LAYER, NOISE_STYLE_WEIGHT = "conv3_2", 2e-4


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the page and the pictures.")] = Path(
        "nst-demo"
    ),
    photo: Annotated[str, typer.Option(help="chelsea, coffee, rocket or astronaut.")] = "chelsea",
    painting: Annotated[str, typer.Option(help="swirl, autumn, mosaic or woodcut.")] = "swirl",
    size: Annotated[int, typer.Option(help="Longer side of the picture at the defaults.")] = 384,
    steps: Annotated[int, typer.Option(help="Steps of the run at the defaults, at its smallest size.")] = 80,
) -> int:
    """Paint a photograph that comes with the package, twice, and make a page of it.

    Once at the defaults of `nst style`, once as the course does it: from white noise, by plain gradient descent.
    The folder is a new or empty one, or that of an earlier demo, which is replaced.
    """
    from nstcore.demo import page, picture_path
    from nstcore.demo.painter import paint
    from nstcore.images import load, resize, save

    settings = Settings(size=size, steps=steps)
    _check_folder(output)
    content = load(picture_path(photo), size=size)
    style = paint(painting, 512, 640)
    folder = _folder(output)
    title = f"{photo} in the style of {painting}"
    page.write(folder / "index.html", title, "Not finished.", [])  # first, so that the folder is known for a demo's
    save(folder / "content.jpg", content)
    save(folder / "style.jpg", style)
    section, interrupted = _defaults(folder, content, style, settings)
    sections = [section]
    if not interrupted:
        section, interrupted = _white_noise(folder, resize(content, NOISE_SIZE), style)
        sections.append(section)
    words = "Made by <code>nst demo</code> on this machine: no framework, no download, no GPU."
    page.write(folder / "index.html", title, words, sections)
    state = "interrupted, with what was reached; open it" if interrupted else "open it"
    typer.echo(f"{folder / 'index.html'}: {state} in a browser; the pictures lie beside it")
    return _stop.code() if interrupted else 0


def _check_folder(path: Path) -> None:
    """Refuse to write among files that are not an earlier demo's."""
    from nstcore.demo import page

    try:
        names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError:  # not there yet, or no folder: making it will tell
        return
    if names and not page.is_ours(path / "index.html"):
        raise OutputError(
            f"[demo] expects a new or empty folder, or that of an earlier demo, got {path}, which has {names[0]} in it"
        )


def _folder(path: Path) -> Path:
    """Make the output folder, or say why not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"[demo] cannot make the folder {path}: {error.strerror or error}") from error
    return path


def _side_by_side(pictures: list[Any]) -> Any:
    """Pictures of the first one's height in a row."""
    from nstcore.images import resize_to

    height = pictures[0].shape[0]
    return np.concatenate([resize_to(p, height, round(p.shape[1] * height / p.shape[0])) for p in pictures], axis=1)


def _section(title: str, words: str, figures: list[str], result: Any) -> tuple[str, bool]:
    """One run as a section of the page, and whether it was interrupted."""
    from nstcore.demo.page import section
    from nstcore.style import report

    chart = report.draw_losses(result.history) if result.history else None
    outcome = html.escape(report.sentence(report.summary(result)))
    return section(title, f"{words} {outcome}.", figures, chart), result.stopped == "interrupted"


def _defaults(folder: Path, content: Any, style: Any, settings: Settings) -> tuple[str, bool]:
    """The run at the defaults of ``nst style``."""
    from nstcore.demo.page import figure
    from nstcore.images import save
    from nstcore.style import transfer

    with _progress.bar(sum(level.steps for level in settings.levels()), label="defaults") as show:
        result = transfer(content, style, size=settings.size, steps=settings.steps, callback=show)
    save(folder / "result.png", result.image)
    save(folder / "sheet.jpg", _side_by_side([content, style, result.image]))
    figures = [
        figure(content, "content"),
        figure(style, "style, drawn by nstcore's own painter"),
        figure(result.image, "result"),
    ]
    words = (
        f"<code>nst style content.jpg style.jpg --size {settings.size} --steps {settings.steps}</code>: start from the "
        "photograph, minimise "
        "α J<sub>content</sub> + β J<sub>style</sub> by L-BFGS."
    )
    return _section("At the defaults", words, figures, result)


def _white_noise(folder: Path, content: Any, style: Any) -> tuple[str, bool]:
    """The course's own algorithm, with the picture at some of its steps."""
    from nstcore.demo.page import figure
    from nstcore.images import save
    from nstcore.style import transfer

    snapshots: dict[int, Any] = {}
    with _progress.bar(NOISE_STEPS, label="white noise") as show:

        def after_step(progress: Any) -> None:
            show(progress)
            if progress.row.step in SNAPSHOTS:
                snapshots[progress.row.step] = progress.image

        result = transfer(
            content,
            style,
            size=NOISE_SIZE,
            steps=NOISE_STEPS,
            content_layers=[NOISE_LAYER],
            style_weight=NOISE_STYLE_WEIGHT,
            init="noise",
            optimizer="gd",
            callback=after_step,
        )
    snapshots = snapshots or {len(result.history): result.image}
    save(folder / "white-noise.png", np.concatenate(list(snapshots.values()), axis=1))
    figures = [figure(image, f"step {step}", small=True) for step, image in snapshots.items()]
    words = (
        f"<code>nst style content.jpg style.jpg --size {NOISE_SIZE} --steps {NOISE_STEPS} --init noise --optimizer gd "
        f"--content-layers {NOISE_LAYER} --style-weight {NOISE_STYLE_WEIGHT}</code>: start from white noise and go "
        "down the gradient of the pixels."
    )
    return _section("From white noise, by gradient descent", words, figures, result)
