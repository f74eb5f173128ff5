"""The pictures of docs/style.md: what each option does, from the package's own photographs and paintings.

python tools/style_pictures.py             # all rows into docs/images/style-<row>.jpg: half an hour on two cores
python tools/style_pictures.py colors      # one row

A row is one pair of pictures at one size; all that differs between its pictures is the option under each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import nstcore as nst
from nstcore.demo import picture_path
from nstcore.demo.painter import paint

Array = NDArray[Any]
Cell = tuple[str, Array]

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE, SHOWN, GAP, CAPTION = 256, 240, 6, 22


def styled(photo: str, painting: str | Array, **options: Any) -> Array:
    """One picture at the row's size."""
    paintings = paint(painting, SIZE, SIZE) if isinstance(painting, str) else painting
    return nst.style.transfer(picture_path(photo), paintings, **{"size": SIZE, **options}).image


def variants(photo: str, painting: str, options: dict[str, dict[str, Any]]) -> list[Cell]:
    """The photograph, the painting, and a picture for each set of options."""
    shown = [("photograph", nst.images.load(picture_path(photo))), ("painting", paint(painting, SIZE, SIZE))]
    return shown + [(name, styled(photo, painting, **some)) for name, some in options.items()]


def weights() -> list[Cell]:
    """How strong the style is, and how smooth the picture."""
    return variants("coffee", "swirl", {
        "--style-weight 3e-6": {"style_weight": 3e-6},
        "--style-weight 3e-5": {"style_weight": 3e-5},
        "2e-3 (default)": {},
        "--tv-weight 3e6": {"tv_weight": 3e6},
    })  # fmt: skip


def strokes() -> list[Cell]:
    """Size of the strokes, layers of the style, pooling."""
    return variants("rocket", "mosaic", {
        "--style-scale 0.5": {"style_scale": 0.5},
        "--style-scale 2": {"style_scale": 2.0},
        "--style-layers conv1_1,conv2_1": {"style_layers": ("conv1_1", "conv2_1")},
        "--pooling avg": {"pooling": "avg"},
    })  # fmt: skip


def colors() -> list[Cell]:
    """Whose colours the picture has."""
    return variants("chelsea", "swirl", {
        "--colors style (default)": {},
        "--colors luminance": {"colors": "luminance"},
        "--colors match": {"colors": "match"},
    })  # fmt: skip


def starts() -> list[Cell]:
    """What the run starts from, and the optimiser, at 100 steps of one size."""
    return variants("rocket", "autumn", {
        "--init content": {"start_size": SIZE},
        "--init noise": {"init": "noise"},
        "--init style": {"init": "style"},
        "--optimizer adam --average 0.98": {"optimizer": "adam", "average": 0.98},
    })  # fmt: skip


def mixtures() -> list[Cell]:
    """Two paintings: blended, and each in its region."""
    photo = nst.images.load(picture_path("rocket"), size=SIZE)
    both = [paint("swirl", SIZE, SIZE), paint("woodcut", SIZE, SIZE)]
    below = np.clip(np.linspace(-1, 2, photo.shape[0], dtype=np.float32), 0, 1)[:, None].repeat(photo.shape[1], 1)

    def mixed(**options: Any) -> Array:
        return nst.style.transfer(photo, both, size=SIZE, **options).image

    return [
        ("swirl", both[0]),
        ("woodcut", both[1]),
        ("--blend 0.8,0.2", mixed(blend=[0.8, 0.2])),
        ("--blend 0.2,0.8", mixed(blend=[0.2, 0.8])),
        ("--region above --region below", mixed(regions=[1 - below, below])),
    ]


def portrait() -> list[Cell]:
    """A face that stays recognisable."""
    return variants("astronaut", "swirl", {"without": {}, "--keep-face": {"keep_face": True}})


def sizes() -> list[Cell]:
    """A preview and the picture four times as large, from coarse to fine and each at its size alone."""
    cells = [("photograph", nst.images.load(picture_path("coffee")))]
    for name, options in (("coarse to fine", {}), ("one size", {"start_size": 16384})):
        for size in (SIZE, 4 * SIZE):
            painting = paint("swirl", 4 * SIZE, 4 * SIZE)
            cells.append((f"{name}, {size} px", styled("coffee", painting, size=size, **options)))
    return cells


ROWS: dict[str, Callable[[], list[Cell]]] = {
    row.__name__: row for row in (weights, strokes, colors, starts, mixtures, portrait, sizes)
}


def sheet(cells: list[Cell]) -> Image.Image:
    """Squares side by side, each with its caption below."""
    width = len(cells) * (SHOWN + GAP) - GAP
    page = Image.new("RGB", (width, SHOWN + CAPTION), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for i, (name, picture) in enumerate(cells):
        image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side)).resize((SHOWN, SHOWN), Image.Resampling.LANCZOS)
        page.paste(square, (i * (SHOWN + GAP), 0))
        draw.text((i * (SHOWN + GAP) + SHOWN // 2, SHOWN + 4), name, fill="black", font=font, anchor="ma")
    return page


def main() -> None:
    """Make the rows that are named, or all."""
    unknown = sorted(set(sys.argv[1:]) - set(ROWS))
    if unknown:
        raise SystemExit(f"expects rows of {', '.join(ROWS)}, got {unknown[0]!r}")
    for name in sys.argv[1:] or ROWS:
        target = IMAGES / f"style-{name}.jpg"
        sheet(ROWS[name]()).save(target, quality=85, optimize=True)
        print(f"{target}: {target.stat().st_size // 1024} KB", flush=True)


if __name__ == "__main__":
    main()
