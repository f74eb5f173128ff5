"""The costs of a run as a table, a drawing and a sentence."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import _chart
from nstcore.errors import ArgumentError
from nstcore.files import atomic_write
from nstcore.style.result import HistoryRow, Result


def write_csv(path: str | Path, history: Sequence[HistoryRow]) -> None:
    """Write one line a step: step, seconds, total, content, the style cost of each layer, tv, size; more costs."""
    layers, more = (list(history[0].style), list(history[0].extra)) if history else ([], [])
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "seconds", "total", "content", *(f"style_{name}" for name in layers), "tv", "size", *more])
    for row in history:
        values = [row.total, row.content, *(row.style[name] for name in layers), row.tv]
        rest = [f"{row.extra[name]:.9g}" for name in more]
        table.writerow([row.step, f"{row.seconds:.3f}", *(f"{v:.9g}" for v in values), row.size, *rest])
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
        **({"faces": [round(d, 4) for d in result.faces]} if result.faces else {}),
    }


def sentence(facts: dict[str, Any]) -> str:
    """`summary` in one line for a person."""
    size = f"{facts['width']}x{facts['height']}"
    if not facts["steps"]:
        return f"{size}, {facts['stopped']} before the first step: the picture is the start"
    text = f"{size}, {facts['steps']} steps in {facts['seconds']:.1f} s"
    text += f", loss {facts['loss_start']:.4g} -> {facts['loss_end']:.4g}"
    if facts.get("faces"):
        text += "; faces at " + ", ".join(f"{d:.2f}" for d in facts["faces"]) + " from the photograph"
    return text + (f"; {facts['stopped']}, this is what was reached" if facts["stopped"] else "")


def curves(history: Sequence[HistoryRow]) -> dict[str, list[float]]:
    """Each cost over the steps, by name."""
    lines = {"total": [r.total for r in history], "content": [r.content for r in history]}
    for name in history[0].style if history else ():
        lines[f"style {name}"] = [r.style[name] for r in history]
    for name in history[0].extra if history else ():
        lines[name] = [r.extra[name] for r in history]
    return lines


def draw_losses(history: Sequence[HistoryRow]) -> NDArray[np.uint8]:
    """A picture (540, 960, 3) of every cost over the steps, on a logarithmic scale; costs of 0 are left out."""
    if not history:
        raise ArgumentError("[plot] expects at least one step, got none")
    lines = {name: values for name, values in curves(history).items() if max(values) > 0}
    steps = [row.step for row in history]
    canvas, box = _chart.Raster(960, 540), (90, 40, 770, 480)
    costs = [v for values in lines.values() for v in values if v > 0] or [1.0]
    panel = _chart.Panel(canvas, box, _chart.Axis(steps[0], steps[-1]), _chart.decades(costs))
    panel.frame("cost (logarithmic)", "step")
    legend = []
    for i, (name, values) in enumerate(lines.items()):
        color, width = _chart.COLORS[i % len(_chart.COLORS)], 4 if name == "total" else 2
        panel.curve([(s, v) for s, v in zip(steps, values, strict=True) if v > 0], color, width)
        legend.append((name, color, width))
    panel.legend(legend, (790, box[1]), min(24.0, (box[3] - box[1]) / max(1, len(legend))))
    return canvas.pixels()
