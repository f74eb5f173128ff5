"""An evaluation as text and as a drawing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import _chart, images
from nstcore._chart import Axis, Canvas, Panel
from nstcore._text import printable
from nstcore.errors import OutputError
from nstcore.faces._statistics import Rate, needed_trials
from nstcore.faces.calibrate import CalibrationReport
from nstcore.faces.evaluate import CONFIDENCE, Evaluation
from nstcore.faces.folders import Photographs
from nstcore.faces.head_fit import HeadReport, Separation
from nstcore.files import PathLike, atomic_write

_WIDTH, _HEIGHT, _TOP, _BOTTOM = 1440, 540, 50, 470
_BINS = 60
_MOST_FAILURES = 20


def text(found: Evaluation) -> str:
    """An evaluation for a person to read."""
    return "\n".join([
        f"{found.people} people, {found.same:,} pairs of one person, {found.different:,} of two",
        "", *_pairs(found), "", *_people(found),
    ])  # fmt: skip


def failures(photographs: Photographs) -> list[str]:
    """What could not be used, for a person to read; nothing where all is well."""
    count, bad = len(photographs.paths) + len(photographs.failures), photographs.failures
    lines = []
    if bad:
        lines = [f"{len(bad)} of {count} photographs took no part:"]
        lines += [printable(f"  {path}: {why}") for path, why in bad[:_MOST_FAILURES]]
        lines += [f"  and {len(bad) - _MOST_FAILURES} more, see --json"] if len(bad) > _MOST_FAILURES else []
    if photographs.several:
        lines.append(f"{len(photographs.several)} photographs have several faces; one of each was taken")
    return lines


def calibration_text(report: CalibrationReport) -> str:
    """What a calibration is worth, for a person to read."""
    found, percent = report.calibration, f"{report.confidence:.0%}"
    of_people = f" of {report.people} people" if report.people is not None else ""
    lines = [
        f"threshold        {found.threshold:.4f}, from {found.same:,} pairs of one person and {found.different:,} of "
        f"two{of_people}",
        f"false accepts    {rate_text(report.false_accept, report.confidence)}",
        f"false rejects    {rate_text(report.false_reject, report.confidence)}",
        f"claim            at most {found.false_accept_rate:g} of pairs of two people accepted, {percent} sure if the "
        "pairs were independent",
    ]
    if report.people is not None:
        lines.append(
            f"people           {report.people}, and pairs that share one are not independent; drawn anew they give"
        )
        lines.append(f"                 {_drawn('false accepts', report.false_accept_people)}, ")
        lines[-1] += _drawn("false rejects", report.false_reject_people)
        if report.false_accept_people is not None and report.false_accept_people[1] > (found.false_accept_rate or 1):
            lines.append("                 so that the claim may not hold for other people than these")
    if report.several:
        lines.append("in a gallery     " + ", ".join(_enrolled(n, rate) for n, rate in _some(report.several)))
        lines.append(
            "                 of comparisons with a stranger accepted: the nearest photograph decides, and the"
        )
        lines.append("                 claim is for one a person; with several, choose a smaller --far")
    return "\n".join(lines)


_KEPT = {
    "fitted": "kept",
    "distance": "not kept: the distance alone gives probabilities at least as good",
    "present": "not kept: the gallery's own head gives probabilities at least as good",
}


def head_text(report: HeadReport, replace: bool = False) -> str:
    """What a verification head is worth, for a person to read; replace: it takes the place of the gallery's own."""
    ours, plain, old = report.by_head, report.by_distance, report.by_present
    kept = ("fitted" if report.helps else "distance") if replace else report.kept
    lines = [
        f"head             {report.head.form}, decay {report.decay:g}, from {report.same:,} pairs of one person and "
        f"{report.different:,} of two; {_KEPT[kept]}",
        f"                 on people it was not fitted to: equal error rate {ours.eer:.2%} (distance {plain.eer:.2%}),",
        f"                 mean -ln of the probability given to the truth {ours.loss:.4f} (distance {plain.loss:.4f})",
    ]
    if old is not None:
        fate = "it stays; --replace-head takes it out" if kept == "present" else "it is taken out"
        lines += [
            f"the gallery's    head on the same pairs: equal error rate {old.eer:.2%}, mean -ln {old.loss:.4f}; {fate}",
            "                 (where these people are those that it was fitted to, that is too good)",
        ]
    return "\n".join(lines)


def by_head_text(found: Separation) -> str:
    """What a gallery's verification head does on an evaluation's pairs, in a line for a person."""
    return (
        f"verification head: equal error rate {found.eer:.2%}, AUC {found.auc:.4f}, mean -ln of the probability given "
        f"to the truth {found.loss:.4f}; it gives the probabilities, the threshold on the distance decides"
    )


def _some(several: tuple[tuple[int, float], ...]) -> list[tuple[int, float]]:
    """One, two, five and the most photographs, as far as there are so many."""
    return [(n, rate) for n, rate in several if n in (1, 2, 5, several[-1][0])]


def _enrolled(photographs: int, rate: float) -> str:
    return f"{photographs} photograph{'' if photographs == 1 else 's'} a person {rate:.2%}"


def _drawn(what: str, interval: tuple[float, float] | None) -> str:
    return f"no {what} to judge by" if interval is None else f"{what} {interval[0]:.2%} to {interval[1]:.2%}"


def rate_text(rate: Rate, confidence: float) -> str:
    """Share, count and interval.

    >>> rate_text(Rate.of(1, 1000, 0.95), 0.95)
    '0.10% (1 of 1,000; 95% interval 0.00% to 0.56%)'
    """
    interval = f"{confidence:.0%} interval {rate.low:.2%} to {rate.high:.2%}"
    return f"{rate.rate:.2%} ({rate.events:,} of {rate.trials:,}; {interval})"


def draw(found: Evaluation) -> NDArray[np.uint8]:
    """A picture (540, 1440, 3): the ROC on a logarithmic axis, and the distances of both kinds of pairs."""
    canvas = _chart.Raster(_WIDTH, _HEIGHT)
    _draw(canvas, found)
    return canvas.pixels()


def svg(found: Evaluation) -> str:
    """The same drawing as the text of an SVG file."""
    canvas = _chart.Svg(_WIDTH, _HEIGHT)
    _draw(canvas, found)
    return canvas.document()


def check_plot(path: PathLike) -> None:
    """Refuse a suffix that `write_plot` cannot write, with OutputError."""
    if Path(path).suffix.lower() != ".svg":
        try:
            images.check_suffix(path)
        except OutputError as error:
            raise OutputError(str(error).replace("one of ", "one of .svg, ")) from None


def write_plot(path: PathLike, found: Evaluation) -> None:
    """Write the drawing, as SVG or as a picture by the path's suffix."""
    check_plot(path)
    if Path(path).suffix.lower() == ".svg":
        document = svg(found).encode()
        atomic_write(path, lambda stream: stream.write(document))
    else:
        images.save(path, draw(found))


def _row(label: str, value: str) -> str:
    return f"{label:24}{value}"


def _pairs(found: Evaluation) -> Iterator[str]:
    kind = "calibrated" if found.calibration.calibrated else "uncalibrated"
    yield f"at the threshold {found.calibration.threshold:.3f} ({kind})"
    yield _row("  false accepts", rate_text(found.false_accept, CONFIDENCE))
    yield _row("  false rejects", rate_text(found.false_reject, CONFIDENCE))
    if found.folds is None:
        yield _row("accuracy", "not known: there are too few people for folds, or the list has one fold")
    else:
        low, high = min(found.folds.thresholds), max(found.folds.thresholds)
        accuracy, count = found.folds.accuracy, len(found.folds.accuracies)
        error = f"{accuracy:.2%} ± {found.folds.standard_error:.2%}"
        yield _row(
            "accuracy", f"{error} (mean and standard error of {count} folds; thresholds {low:.3f} to {high:.3f})"
        )
    yield _row("ROC", f"AUC {found.roc.auc:.5f}, equal error rate {found.roc.eer:.2%}")
    for validation in found.validation:
        if validation.rate is None:
            needed = needed_trials(validation.false_accept_rate, CONFIDENCE)
            value = f"not known: takes {needed:,} pairs of two people, got {found.different:,}"
        else:
            value = f"{rate_text(validation.rate, CONFIDENCE)}, threshold {validation.threshold:.3f}"
        yield _row(f"  TAR at FAR {validation.false_accept_rate:g}", value)


def _people(found: Evaluation) -> Iterator[str]:
    who = found.identification
    if who is None:
        yield _row("identification", "not known: takes all photographs of people, two of them with two each")
        return
    rows = f"{who.known} people known by one photograph each, the others unknown; mean and deviation of {who.trials} "
    rows += "drawings"
    yield _row("identification", rows)
    yield _row(
        "  nearest is right",
        f"{who.rank1:.2%} ± {who.rank1_deviation:.2%} of {who.known_probes:.0f} photographs of known people",
    )
    right, wrong = (f"{mean:.2%} ± {deviation:.2%}" for mean, deviation in (who.detection, who.false_alarm))
    unknown = f"{who.unknown_probes:.0f} photographs of unknown people"
    yield _row(f"  at {who.threshold:.3f}", f"{right} named rightly; {wrong} of {unknown} taken for somebody")
    for rate, detection in who.at_false_alarm.items():
        needed = needed_trials(rate, CONFIDENCE)
        value = f"not known: takes {needed} photographs of unknown people, got {who.unknown_probes:.0f}"
        yield _row(f"  at false alarms {rate:g}", value if detection is None else f"{detection:.2%} named rightly")


def _draw(canvas: Canvas, found: Evaluation) -> None:
    _draw_roc(canvas, found)
    _draw_distances(canvas, found)


def _draw_roc(canvas: Canvas, found: Evaluation) -> None:
    """The upper end of the curve, where it is decided; points without a false accept stand at the left end."""
    curve, lowest = found.roc, 10.0 ** -np.ceil(np.log10(found.different))
    bottom = min(float(np.min(curve.true_accept[curve.false_accept > 0])), 1 - found.false_reject.rate)
    axis = Axis(max(0.0, np.floor(bottom * 20 - 1e-9) / 20 - (0.05 if bottom == 1 else 0)), 1.0)
    panel = Panel(canvas, (90, _TOP, 590, _BOTTOM), Axis(min(lowest, 0.1), 1.0, logarithmic=True), axis)
    panel.frame("true-accept rate", "false-accept rate (logarithmic)")
    panel.curve(_roc_points(curve, panel), _chart.COLORS[1], 3)
    far, tar = max(found.false_accept.rate, panel.across.low), 1 - found.false_reject.rate
    x, y = panel.place(far, max(tar, axis.low))
    for points in ([(x - 7, y), (x + 7, y)], [(x, y - 7), (x, y + 7)]):
        canvas.line(points, _chart.COLORS[0], 3)
    entries = [("ROC", _chart.COLORS[1], 3), (f"at {found.calibration.threshold:.3f}", _chart.COLORS[0], 3)]
    panel.legend(entries, (440, _BOTTOM - 60))


def _roc_points(curve: Any, panel: Panel) -> list[tuple[float, float]]:
    """The corners of the curve that the panel can show, at most about a thousand."""
    inside = np.flatnonzero((curve.true_accept >= panel.up.low) & (curve.false_accept <= 1))
    across = np.maximum(curve.false_accept[inside], panel.across.low)
    corners = np.round(500 * np.log10(across)) * 10_000 + np.round(1000 * curve.true_accept[inside])
    kept = np.union1d(np.unique(corners, return_index=True)[1], [0, len(inside) - 1])
    points = [(float(across[kept[0]]), panel.up.low)]
    for x, y in zip(across[kept], curve.true_accept[inside][kept], strict=True):
        if points and points[-1][0] != x and points[-1][1] != y:
            points.append((float(x), points[-1][1]))
        points.append((float(x), float(y)))
    return points


def _draw_distances(canvas: Canvas, found: Evaluation) -> None:
    distances, same = found.pairs.distances, found.pairs.same
    edges = np.linspace(0, max(float(distances.max()), found.calibration.threshold) * 1.02, _BINS + 1)
    heights = [np.histogram(distances[kind], edges)[0] / kind.sum() for kind in (same, ~same)]
    top = float(max(h.max() for h in heights)) * 1.05
    panel = Panel(canvas, (710, _TOP, 1240, _BOTTOM), Axis(0.0, float(edges[-1])), Axis(0.0, top))
    panel.frame("share of pairs", "distance")
    entries = []
    for height, color, name in zip(heights, _chart.COLORS[1:3], ("one person", "two people"), strict=True):
        panel.steps(edges.tolist(), height.tolist(), color)
        entries.append((name, color, 3))
    limit = found.calibration.threshold
    panel.curve([(limit, 0.0), (limit, top)], _chart.COLORS[0], 2)
    panel.legend([*entries, (f"threshold {limit:.3f}", _chart.COLORS[0], 2)], (1262, _TOP))
