"""The demo's page: one HTML file with the pictures inside, readable without a network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.files import atomic_write

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
.row { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
figure { margin: 0; flex: 1 1 14rem } figure.small { flex: 0 1 10rem }
img { width: 100%; height: auto; display: block; border-radius: 4px }
figcaption { font-size: .85rem; opacity: .8; margin-top: .3rem }
code { font-size: .9em; background: #8882; padding: .1em .3em; border-radius: 3px }
.chart { max-width: 48rem; margin-top: 1rem } .chart img { background: white }
"""


MARK = '<meta name="generator" content="nst demo">'


def is_ours(path: Path) -> bool:
    """Whether a file is a page that `write` has written."""
    try:
        with open(path, "rb") as stream:
            return MARK.encode() in stream.read(1000)
    except OSError:
        return False


def figure(image: NDArray[Any], caption: str, small: bool = False) -> str:
    """One picture, (h, w, 3) in [0, 1] or uint8, with words under it."""
    kind = ' class="small"' if small else ""
    text = html.escape(caption)
    return f'<figure{kind}><img src="{_data_uri(image)}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def section(title: str, words: str, figures: Sequence[str], chart: NDArray[Any] | None) -> str:
    """A run: what it is, its pictures in a row, and its costs, if there are any. `words` is HTML."""
    costs = "" if chart is None else f'<div class="chart">{figure(chart, "Costs over the steps")}</div>'
    return (
        f"<section><h2>{html.escape(title)}</h2><p>{words}</p>"
        f'<div class="row">{"".join(figures)}</div>{costs}</section>'
    )


def write(path: Path, title: str, words: str, sections: Sequence[str]) -> None:
    """Write the page, whole or not at all. `words` is HTML."""
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8">{MARK}'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
        f"<body><h1>{html.escape(title)}</h1><p>{words}</p>{''.join(sections)}</body></html>\n"
    )
    atomic_write(path, lambda stream: stream.write(page.encode()))


def _data_uri(image: NDArray[Any]) -> str:
    from PIL import Image

    levels = image if image.dtype == np.uint8 else np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "JPEG", quality=92, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
