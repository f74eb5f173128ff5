"""A training run as a table, a drawing and a few sentences."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import _chart
from nstcore.errors import ArgumentError
from nstcore.faces.scores import Scores
from nstcore.faces.split import FEW_PAIRS, FEW_PEOPLE
from nstcore.faces.train import Trained
from nstcore.faces.trainer import TrainRow
from nstcore.files import atomic_write

COLLAPSED = (
    "all encodings have become one point: every loss is stuck at the margin, and the gradient vanishes. The hardest "
    "negatives pull too early: take --mining semi_hard, a smaller --learning-rate, or a larger --warm-up"
)
UNJUDGED = (
    "nobody was kept apart, so nothing unseen has judged this encoder: it has the weights of the last step, and its "
    "threshold is from the people trained on and may be wrong for others; nst faces evaluate measures it"
)
FEW = (
    "{people} people with {pairs} pairs of one person were kept apart, too few to judge by: their errors and the "
    "choice of weights by them say little; give more people, or take --validation 0 and the weights of the last step"
)
NO_BETTER = (
    "no look at the people kept apart was better than that before the first step: the weights are those of the start"
)
NOTHING_LEARNT = (
    "no look at the people kept apart was better than that before the first step: what was learnt helps these people "
    "not at all; more people or steps may, and with few people kept apart it may be chance"
)
PERFECT = (0.0, -1.0)  # of `_rank`
NOT_NOTED = (
    "the file that this started from does not say which photographs it was trained on: people kept apart here may be "
    "among them"
)
NO_TRIPLET = "no triplet of this batch has a loss any more: the classes trained on are told apart by the margin"


def write_csv(path: str | Path, history: Sequence[TrainRow]) -> None:
    """Write one line a step, with the names of `TrainRow`; empty where there is nothing."""
    names = [f.name for f in fields(TrainRow)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    for row in history:
        values = row.to_json()
        table.writerow(["" if values[n] is None else _number(values[n]) for n in names])
    atomic_write(path, lambda stream: stream.write(text.getvalue().encode()))


def _number(value: Any) -> Any:
    return f"{value:.9g}" if isinstance(value, float) else value


def draw(history: Sequence[TrainRow], before: Scores | None = None) -> NDArray[np.uint8]:
    """A picture (540, 1440, 3): loss, active share, squared distances; beside them the errors of new people.

    before: what was found of them before the first step (`Trained.before`), where their lines begin.
    """
    if not history:
        raise ArgumentError("[plot] expects at least one step, got none")
    canvas = _chart.Raster(1440, 540)
    first = history[0].step if before is None else 0
    across = _chart.Axis(first, max(history[-1].step, first + 1))
    looks: list[tuple[int, Any]] = [] if before is None else [(0, before)]
    looks += [(row.step, row) for row in history if row.eer is not None]
    lines: dict[str, Any] = {
        name: [(r.step, getattr(r, name)) for r in history] for name in ("loss", "active", "positive", "negative")
    }
    names = {
        "loss": "loss",
        "active": "active triplets",
        "positive": "d² of one class",
        "negative": "d² of two",
    }
    most = max((v for line in lines.values() for _, v in line if np.isfinite(v)), default=1.0)
    left = _chart.Panel(canvas, (90, 40, 560, 480), across, _chart.Axis(0.0, _chart_top(most)))
    _panel(left, "what is trained on", {names[k]: v for k, v in lines.items()}, (580, 40))
    errors: dict[str, Any] = {
        "equal error rate": [(step, r.eer) for step, r in looks],
        "1 - AUC": [(step, 1 - r.auc) for step, r in looks],
        "one-shot error": [(step, 1 - r.one_shot) for step, r in looks],
    }
    top = max((v for line in errors.values() for _, v in line if v is not None), default=1.0)
    if not looks:
        canvas.text((810, 260), "nobody was kept apart")
        return canvas.pixels()
    right = _chart.Panel(canvas, (810, 40, 1240, 480), across, _chart.Axis(0.0, _chart_top(top)))
    _panel(right, "people who are not trained on", errors, (1260, 40))
    return canvas.pixels()


def _chart_top(value: float) -> float:
    """The end of an axis above all values."""
    return max(value, 1e-6) * 1.05


def _panel(panel: _chart.Panel, title: str, lines: dict[str, Any], legend: tuple[float, float]) -> None:
    panel.frame(title, "step")
    entries = []
    for i, (name, points) in enumerate(lines.items()):
        color = _chart.COLORS[i]
        known = [(float(s), float(v)) for s, v in points if np.isfinite(v)]
        if known:
            panel.curve(known, color)
        entries.append((name, color, 2))
    panel.legend(entries, legend)


def notices(trained: Trained) -> list[str]:
    """What a person should know about the run, beside its result."""
    lines = [f"left out: {why}" for why in trained.left_out[:20]]
    if len(trained.left_out) > 20:
        lines.append(f"left out: and {len(trained.left_out) - 20} more")
    if trained.negatives_only:
        count = trained.negatives_only
        who = "1 class has a single photograph" if count == 1 else f"{count} classes have a single photograph each"
        lines.append(f"{who}: there is no pair to pull together, so it serves as a negative only")
    if not trained.history:
        return lines
    lines += _about_judges(trained)
    if trained.history and trained.history[-1].collapsed:
        lines.append(COLLAPSED)
    elif trained.settings.loss == "triplet" and trained.history and trained.history[-1].active == 0:
        lines.append(NO_TRIPLET)
    return lines


def _about_judges(trained: Trained) -> list[str]:
    """What the people kept apart, by whom weights and threshold were chosen, can say."""
    if trained.scores is None:
        return [UNJUDGED]
    people, pairs, lines = len(trained.validation), trained.scores.same, []
    if people < FEW_PEOPLE or pairs < FEW_PAIRS:
        lines.append(FEW.format(people=people, pairs=pairs))
    if trained.best_step == 0:
        lines.append(NO_BETTER)
    elif trained.before and _rank(trained.scores) >= _rank(trained.before) > PERFECT:
        lines.append(NOTHING_LEARNT)
    if trained.photographs is None:
        lines.append(NOT_NOTED)
    return lines


def _rank(scores: Scores) -> tuple[float, float]:
    """What looks are compared by; less is better."""
    return scores.eer, -scores.auc


def summary(trained: Trained) -> dict[str, Any]:
    """The run in plain values."""
    last = trained.history[-1] if trained.history else None
    return {
        "steps": len(trained.history),
        "seconds": last.seconds if last else 0.0,
        "stopped": trained.stopped,
        "best_step": trained.best_step,
        "loss": last.loss if last else None,
        "collapsed": bool(last and last.collapsed),
        "before": trained.before.to_json() if trained.before else None,
        "validation": trained.scores.to_json() if trained.scores else None,
        "validation_people": list(trained.validation),
        "negatives_only": trained.negatives_only,
        "left_out": list(trained.left_out),
        "threshold": trained.net.threshold,
        "threshold_from": trained.threshold_from,
        "chips": trained.net.chips,
    }


def sentence(trained: Trained) -> str:
    """`summary` in a few lines for a person."""
    facts = summary(trained)
    endings = {
        "interrupted": "; interrupted, this is what was reached",
        "patience": "; stopped, new people got no better",
        "not finite": "; the loss was not finite, this is what was reached before",
        "checkpoint": "; the checkpoint could not be written, this is what was reached",
    }
    lines = [f"{facts['steps']} steps in {facts['seconds']:.0f} s{endings.get(trained.stopped, '')}"]
    if trained.scores and trained.before:
        before, after = trained.before, trained.scores
        lines += [
            f"{len(trained.validation)} people not trained on: equal error rate {before.eer:.1%} -> {after.eer:.1%},",
            f"{after.ways}-way one-shot {before.one_shot:.1%} -> {after.one_shot:.1%}; best at step "
            f"{trained.best_step}, threshold {after.threshold:.3f}",
        ]
    elif trained.history and facts["threshold"] is not None:
        lines.append(f"threshold {facts['threshold']:.3f}, from the people trained on")
    return "\n".join(lines)
