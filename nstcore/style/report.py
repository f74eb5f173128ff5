"""The costs of a run as a table, a drawing and a sentence."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError
from nstcore.files import atomic_write
from nstcore.style.result import HistoryRow, Result

COLORS = ("#d1495b", "#00798c", "#edae49", "#30638e", "#6a994e", "#8d5a97", "#5c5c5c", "#bc6c25")
WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 90, 190, 40, 60


def write_csv(path: str | Path, history: Sequence[HistoryRow]) -> None:
    """Write one line a step: step, seconds, total, content, the style cost of each layer, tv, size in pixels."""
    layers = list(history[0].style) if history else []
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "seconds", "total", "content", *(f"style_{name}" for name in layers), "tv", "size"])
    for row in history:
        values = [row.total, row.content, *(row.style[name] for name in layers), row.tv]
        table.writerow([row.step, f"{row.seconds:.3f}", *(f"{v:.9g}" for v in values), row.size])
    atomic_write(path, lambda stream: stream.write(text.getvalue().encode()))


def summary(result: Result) -> dict[str, Any]:
    """The end of a run in plain values; the losses are those of the last size."""
    rows = result.history
    return {
        "width": int(result.image.shape[1]),
        "height": int(result.image.shape[0]),
        "steps": len(rows),
        "seconds": rows[-1].seconds if rows else 0.0,
        "stopped": result.stopped,
        "loss_start": next((row.total for row in rows if row.size == rows[-1].size), None),
        "loss_end": rows[-1].total if rows else None,
    }


def sentence(facts: dict[str, Any]) -> str:
    """`summary` in one line for a person."""
    size = f"{facts['width']}x{facts['height']}"
    if not facts["steps"]:
        return f"{size}, {facts['stopped']} before the first step: the picture is the start"
    text = f"{size}, {facts['steps']} steps in {facts['seconds']:.1f} s"
    text += f", loss {facts['loss_start']:.4g} -> {facts['loss_end']:.4g}"
    return text + (f"; {facts['stopped']}, this is what was reached" if facts["stopped"] else "")


def curves(history: Sequence[HistoryRow]) -> dict[str, list[float]]:
    """Each cost over the steps, by name."""
    lines = {"total": [r.total for r in history], "content": [r.content for r in history]}
    for name in history[0].style if history else ():
        lines[f"style {name}"] = [r.style[name] for r in history]
    return lines


def draw_losses(history: Sequence[HistoryRow]) -> NDArray[np.uint8]:
    """A picture (540, 960, 3) of every cost over the steps, on a logarithmic scale; costs of 0 are left out."""
    from PIL import Image, ImageDraw, ImageFont

    if not history:
        raise ArgumentError("[plot] expects at least one step, got none")
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    lines = {name: values for name, values in curves(history).items() if max(values) > 0}
    steps = [row.step for row in history]
    low, high = _decades(lines)
    place = _Axes(steps[0], steps[-1], low, high)
    _draw_axes(draw, font, place)
    spacing = min(24.0, (HEIGHT - TOP - BOTTOM) / len(lines)) if lines else 0.0
    for i, (name, values) in enumerate(lines.items()):
        color, width = COLORS[i % len(COLORS)], 4 if name == "total" else 2
        points = [place(s, v) for s, v in zip(steps, values, strict=True) if v > 0]
        draw.line(points if len(points) > 1 else points * 2, fill=color, width=width, joint="curve")
        y = TOP + spacing * i
        draw.line([(WIDTH - RIGHT + 20, y + 9), (WIDTH - RIGHT + 44, y + 9)], fill=color, width=width)
        draw.text((WIDTH - RIGHT + 52, y), name, fill="#333333", font=font)
    return np.asarray(picture)


class _Axes:
    """Where step and cost lie in the picture."""

    def __init__(self, first: int, last: int, low: int, high: int) -> None:
        self.first, self.last, self.low, self.high = first, last, low, high

    def __call__(self, step: float, cost: float) -> tuple[float, float]:
        across = (step - self.first) / max(1, self.last - self.first)
        up = (math.log10(cost) - self.low) / (self.high - self.low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _decades(lines: dict[str, list[float]]) -> tuple[int, int]:
    """Whole powers of ten around all costs."""
    values = [v for line in lines.values() for v in line if v > 0] or [1.0]
    low = math.floor(math.log10(min(values)))
    return low, max(low + 1, math.ceil(math.log10(max(values))))


def _ticks(first: int, last: int) -> list[int]:
    """At most eight steps to label, evenly spaced: multiples of 1, 2 or 5 times a power of ten."""
    spacings = (factor * 10**power for power in range(20) for factor in (1, 2, 5))
    every = next(s for s in spacings if last // s - (first - 1) // s <= 8)
    return list(range(-(-first // every) * every, last + 1, every))


def _draw_axes(draw: Any, font: Any, place: _Axes) -> None:
    every = max(1, (place.high - place.low) // 8)
    for power in range(place.low, place.high + 1, every):
        x, y = place(place.first, 10.0**power)
        draw.line([(x, y), (WIDTH - RIGHT, y)], fill="#dddddd")
        draw.text((x - 12, y), f"1e{power}", fill="#333333", font=font, anchor="rm")
    for step in _ticks(place.first, place.last):
        x, y = place(step, 10.0**place.low)
        draw.line([(x, y), (x, y + 6)], fill="#333333")
        draw.text((x, y + 10), str(step), fill="#333333", font=font, anchor="ma")
    draw.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 24), "step", fill="#333333", font=font, anchor="ma")
    draw.text((LEFT, TOP - 26), "cost (logarithmic)", fill="#333333", font=font)
