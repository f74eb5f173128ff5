"""A training run on disk: everything that its next step depends on, so that it goes on bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import weights
from nstcore.errors import ArgumentError, WeightsError
from nstcore.faces.trainer import Trainer, TrainRow

Array = NDArray[Any]

ARCHITECTURE, VERSION = "training", 3
LOOKED = ("eer", "auc", "one_shot", "threshold")  # of a row: there only where the people kept apart were looked at
COLUMNS = tuple(name for name in TrainRow.__dataclass_fields__ if name not in LOOKED)
MAY_BE_NAN = ("positive", "negative")  # means over nothing
REMEDY = "take another checkpoint, or start again without --resume"


def save_state(path: str | Path, trainer: Trainer, best: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint: the state, the best weights so far, and `facts`, which `load_state` compares.

    The history is two arrays: ``history``, a row of numbers for each step, and ``looks``, the number of a step and
    what was seen there of the people kept apart. Raises `OutputError` when the place refuses.
    """
    arrays = {**trainer.arrays(), **{f"best.{name}": a for name, a in best.items()}, **_history(trainer.rows)}
    meta = {"architecture": ARCHITECTURE, "version": VERSION, "steps": trainer.steps, "seconds": trainer.seconds,
            "columns": COLUMNS, "looked": LOOKED, "facts": facts}  # fmt: skip
    weights.save(path, arrays, meta)


def load_state(
    path: str | Path, trainer: Trainer, best: Mapping[str, Array], facts: Mapping[str, Any]
) -> dict[str, Array]:
    """Take over a checkpoint and give its best weights; nothing changes when it is refused.

    best: weights as `save_state` got them, for their names, shapes and types.
    Raises `WeightsError` for a file that is damaged or no checkpoint, `ArgumentError`, with the first difference, when
    it is of other photographs or choices.
    """
    file = weights.load(path, remedy=REMEDY)
    if file.architecture != ARCHITECTURE:
        raise WeightsError(f"[train] {path}: expects a checkpoint of a training run, got {file.architecture}")
    if file.meta.get("version") != VERSION:
        found = file.meta.get("version", 1)
        raise WeightsError(f"[train] {path}: expects a checkpoint of version {VERSION}, got {found!r:.40}; {REMEDY}")
    _compare(path, file.meta.get("facts"), json.loads(json.dumps(facts)))
    try:
        steps, seconds = _counts(file.meta, trainer.settings.steps)
        wanted = {**trainer.arrays(), **{f"best.{name}": a for name, a in best.items()}}
        _check_arrays(file.arrays, wanted, steps)
        rows = _rows(file, steps)
    except ValueError as error:
        raise WeightsError(f"[train] {path}: is damaged: {error}; {REMEDY}") from None
    trainer.load({name: file.arrays[name] for name in trainer.arrays()}, str(path))
    trainer.rows, trainer.steps, trainer.seconds = rows, steps, seconds
    return {name: np.array(file.arrays[f"best.{name}"]) for name in best}


def _history(rows: Sequence[TrainRow]) -> dict[str, Array]:
    table = [[getattr(row, name) for name in COLUMNS] for row in rows]
    looks = [[row.step, *(getattr(row, name) for name in LOOKED)] for row in rows if row.eer is not None]
    return {
        "history": np.array(table, np.float64).reshape(len(table), len(COLUMNS)),
        "looks": np.array(looks, np.float64).reshape(len(looks), 1 + len(LOOKED)),
    }


def _rows(file: weights.WeightsFile, steps: int) -> list[TrainRow]:
    """The history of a file as it was; ValueError where the arrays are none of that many steps."""
    if [*COLUMNS, *LOOKED] != [*_names(file.meta, "columns"), *_names(file.meta, "looked")]:
        raise ValueError("its history has other columns")
    table, looks = file.arrays.get("history"), file.arrays.get("looks")
    for name, array, width in (("history", table, len(COLUMNS)), ("looks", looks, 1 + len(LOOKED))):
        if array is None or array.dtype != np.float64 or array.ndim != 2 or array.shape[1] != width:
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise ValueError(f"{name} expects float64 (n, {width}), got {found}")
    assert table is not None
    assert looks is not None
    if len(table) != steps or not np.array_equal(table[:, 0], np.arange(1, steps + 1)):
        raise ValueError(f"history expects the steps 1 to {steps}, got {len(table)} rows")
    known = table[:, [name not in MAY_BE_NAN for name in COLUMNS]]
    if not (np.isfinite(known).all() and np.isfinite(looks).all()):
        raise ValueError("its history holds NaN or infinity")
    at = looks[:, 0]
    if not np.isin(at, table[:, 0]).all() or (np.diff(at) <= 0).any():
        raise ValueError("looks expects steps of the run in their order")
    seen = {int(step): dict(zip(LOOKED, values, strict=True)) for step, *values in looks.tolist()}
    return [_row(values, seen.get(int(values[0]), {})) for values in table.tolist()]


def _row(values: list[float], looked: dict[str, Any]) -> TrainRow:
    fields: dict[str, Any] = dict(zip(COLUMNS, values, strict=True))
    fields.update(step=int(fields["step"]), collapsed=bool(fields["collapsed"]))
    return TrainRow(**fields, **looked)


def _names(meta: Mapping[str, Any], key: str) -> list[Any]:
    found = meta.get(key)
    return found if isinstance(found, list) else []


def _counts(meta: Mapping[str, Any], most: int) -> tuple[int, float]:
    """Steps and seconds that a file states."""
    steps, seconds = meta.get("steps"), meta.get("seconds")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= most:
        raise ValueError(f"expects 0 to {most} steps, got {steps!r:.40}")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ValueError(f"expects seconds of at least 0, got {seconds!r:.40}")
    return steps, float(seconds)


def _check_arrays(given: Mapping[str, Array], wanted: Mapping[str, Array], steps: int) -> None:
    """ValueError with the first array that is missing, unknown, of another shape or type, or not finite."""
    for name in [*wanted, *(n for n in given if n not in ("history", "looks"))]:
        own, found = wanted.get(name), given.get(name)
        if own is None:
            raise ValueError(f"{name} is no part of this run")
        if found is None:
            raise ValueError(f"{name} is missing")
        if (found.shape, found.dtype) != (own.shape, own.dtype):
            raise ValueError(f"{name} expects {own.dtype} {own.shape}, got {found.dtype} {found.shape}")
        if not np.isfinite(found).all():
            raise ValueError(f"{name} holds NaN or infinity")
        if name.startswith("optimizer.square.") and (found < 0).any():
            raise ValueError(f"{name} holds squares below 0")
    if int(given["optimizer.steps"]) != steps:
        raise ValueError(f"optimizer.steps expects {steps}, got {int(given['optimizer.steps'])}")


def _compare(path: str | Path, stored: Any, wanted: Mapping[str, Any]) -> None:
    """Refuse, with the first difference, a checkpoint of another run."""
    if not isinstance(stored, dict):
        raise WeightsError(f"[train] {path}: its facts do not describe a training run; {REMEDY}")
    theirs, ours = _flat(stored), _flat(wanted)
    for name in [*ours, *(n for n in theirs if n not in ours)]:
        if theirs.get(name) != ours.get(name) or (name in theirs) != (name in ours):
            before, now = (_short(side[name]) if name in side else "nothing" for side in (theirs, ours))
            told = f"was made with other {name}" if name in DIGESTS else f"was made with {name} {before}, got {now}"
            raise ArgumentError(f"[train] {path}: {told}; a run goes on with what it was started with")


DIGESTS = ("photographs", "starting weights")  # whose values mean nothing to a person


def _flat(facts: Mapping[str, Any], depth: int = 2) -> dict[str, Any]:
    """Tables inside of `facts` in one; a choice has the name that it has in the settings."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        found.update(_flat(value, depth - 1) if isinstance(value, dict) and depth else {name: value})
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
