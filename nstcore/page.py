"""Pages that show results: one HTML file with the pictures inside, readable without a network."""

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
from nstcore.images import to_bytes

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


def figure(image: NDArray[Any], caption: str, small: bool = False) -> str:
    """One picture, (h, w, 3) in [0, 1] or uint8, with words under it."""
    kind = ' class="small"' if small else ""
    text = html.escape(caption)
    return f'<figure{kind}><img src="{data_uri(image)}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def write(path: Path, title: str, words: str, parts: Sequence[str], *, made_by: str, style: str = "") -> None:
    """Write a page of `parts`, whole or not at all. `words`, `parts` are HTML; made_by: the command, for the head."""
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8">{mark(made_by)}'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}{style}</style>"
        f"<body><h1>{html.escape(title)}</h1><p>{words}</p>{''.join(parts)}</body></html>\n"
    )
    atomic_write(path, lambda stream: stream.write(page.encode("utf-8", "replace")))


def mark(made_by: str) -> str:
    """What tells a page of ours."""
    return f'<meta name="generator" content="{html.escape(made_by)}">'


def data_uri(image: NDArray[Any], lossless: bool = False) -> str:
    """A picture as the address of an ``<img>``: JPEG, or PNG where every pixel counts."""
    from PIL import Image

    levels = image if image.dtype == np.uint8 else to_bytes(image)
    stream = io.BytesIO()
    if lossless:
        Image.fromarray(levels).save(stream, "PNG")
    else:
        Image.fromarray(levels).save(stream, "JPEG", quality=92, subsampling=0)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
