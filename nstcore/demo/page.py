"""The demo's page, and how to tell that a page is one."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nstcore import page
from nstcore.page import figure

__all__ = ["figure", "is_ours", "section", "write"]

MADE_BY = "nst demo"


def is_ours(path: Path) -> bool:
    """Whether a file is a page that `write` has written."""
    try:
        with open(path, "rb") as stream:
            return page.mark(MADE_BY).encode() in stream.read(1000)
    except OSError:
        return False


def section(title: str, words: str, figures: Sequence[str], chart: NDArray[Any] | None) -> str:
    """A run: what it is, its pictures in a row, and its costs, if there are any. `words` is HTML."""
    costs = "" if chart is None else f'<div class="chart">{figure(chart, "Costs over the steps")}</div>'
    return (
        f"<section><h2>{html.escape(title)}</h2><p>{words}</p>"
        f'<div class="row">{"".join(figures)}</div>{costs}</section>'
    )


def write(path: Path, title: str, words: str, sections: Sequence[str]) -> None:
    """Write the page, whole or not at all. `words` is HTML."""
    page.write(path, title, words, sections, made_by=MADE_BY)
