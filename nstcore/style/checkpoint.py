"""A run on disk: everything that its next step depends on, so that it continues bit for bit.

The file is an ordinary .npz without pickles: the picture, the optimiser's state and the history as arrays, and in
``meta`` (JSON as uint8) what the run was made with: version, settings, and digests of the network and the pictures.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nstcore
from nstcore.backend import current_backend
from nstcore.backend.arrays import to_host
from nstcore.backend.cpu import get_isa
from nstcore.errors import CheckpointError
from nstcore.files import PathLike, atomic_write
from nstcore.models.vgg import VGG
from nstcore.style.result import HistoryRow
from nstcore.style.scene import Scene, digest
from nstcore.style.settings import LBFGS_HISTORY, Settings
from nstcore.weights import archive, npy

Array = NDArray[Any]

FORMAT, FORMAT_VERSION = "nstcore-style-run", 1
COLUMNS = ("step", "seconds", "total", "content", "tv", "size")
LARGEST_STATE = archive.MAX_FILE_BYTES - (1 << 20)
ANY_MEMORY = "memory"  # the one option that a run may continue with another value of


@dataclass(frozen=True)
class Snapshot:
    """Where a run is. optimizer: the optimiser's ``state_dict``, empty before the first step of a size.

    finished: whether no step is left.
    """

    level: int
    done: int
    pixels: Array
    average: Array | None
    optimizer: Mapping[str, Any]
    history: list[HistoryRow]
    seconds: float
    finished: bool = False


def identity(network: VGG, scene: Scene, settings: Settings) -> dict[str, Any]:
    """What a run is made with, in plain values: a checkpoint of anything else is refused."""
    options: dict[str, Any] = {name: getattr(settings, name) for name in Settings.names() if name != ANY_MEMORY}
    options["content_layers"], options["style_layers"] = settings.content_shares, settings.style_shares
    options["blend"] = settings.blend_shares(len(scene.paintings))
    parameters = {name: digest(to_host(p.data)) for name, p in network.named_parameters()}
    return {
        "version": nstcore.__version__,
        "settings": {name: _plain(value) for name, value in options.items()},
        "network": {"architecture": network.architecture, "pooling": network.pooling, "parameters": parameters},
        "pictures": scene.digests(),
    }


def _plain(value: Any) -> Any:
    """The value as JSON has it: numbers of NumPy as those of Python, also within lists and dicts."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def save(path: PathLike, made_with: Mapping[str, Any], state: Snapshot) -> None:
    """Write a checkpoint whole or not at all; `OutputError` when the place refuses, `CheckpointError` over 2 GB."""
    layers = list(state.history[0].style) if state.history else []
    more = list(state.history[0].extra) if state.history else []
    columns = [*COLUMNS, *(f"style {name}" for name in layers), *(f"extra {name}" for name in more)]
    rows = [
        [*(getattr(row, name) for name in COLUMNS), *row.style.values(), *row.extra.values()] for row in state.history
    ]
    arrays: dict[str, Array] = {
        "pixels": to_host(state.pixels),
        "history": np.asarray(rows, np.float64).reshape(len(rows), len(columns)),
        **({} if state.average is None else {"average": to_host(state.average)}),
        **{f"optimizer.{key}": to_host(value) for key, value in state.optimizer.items()},
    }
    facts = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "made_with": made_with, "columns": columns,
        "computed_on": computed_on(), "level": state.level, "done": state.done, "seconds": state.seconds,
        "finished": state.finished,
    }  # fmt: skip
    arrays["meta"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    if sum(a.nbytes for a in arrays.values()) > LARGEST_STATE:
        raise CheckpointError("[checkpoint] the state of lbfgs is over 2 GB at this size; --optimizer adam has a tenth")
    members = []
    for key, a in arrays.items():
        flat = np.ascontiguousarray(a).reshape(a.shape)
        flat = flat.astype(flat.dtype.newbyteorder("<"), copy=False)
        members.append((key, npy.header(flat), flat.reshape(-1).view(np.uint8).data))
    atomic_write(path, lambda stream: archive.write_members(stream, members))


def computed_on() -> str:
    """The backend and, of the processor, the instruction set: what decides how sums are rounded."""
    name = current_backend()
    return f"{name}, {get_isa()}" if name == "cpu" else name


def check_fits(shape: tuple[int, ...], itemsize: int, settings: Settings) -> None:
    """Refuse a run that could not be saved later: L-BFGS has gradient, picture and 20 more like it."""
    pictures, hint = (2 * LBFGS_HISTORY + 2, "; adam has a fifth of it") if settings.optimizer == "lbfgs" else (4, "")
    if pictures * 3 * shape[0] * shape[1] * itemsize > LARGEST_STATE:
        raise CheckpointError(
            f"[checkpoint] {shape[1]}x{shape[0]} pixels: the state of {settings.optimizer} would be over 2 GB{hint}"
        )


def check_free(path: PathLike) -> None:
    """Refuse to begin a run that would be saved over something else than a finished run."""
    if not os.path.lexists(path):
        return
    facts, _ = _read(path, "checkpoint", only=("meta",))
    if facts.get("finished") is not True:
        raise CheckpointError(
            f"[checkpoint] {path} holds a run that is not finished: go on with --resume {path} (in Python: resume=), "
            "or remove the file"
        )


def load(path: PathLike, made_with: Mapping[str, Any]) -> Snapshot:
    """Read a checkpoint of the run that `made_with` describes.

    Raises `CheckpointError` with the reason: missing, damaged, or of another version, network, picture or setting.
    """
    facts, arrays = _read(path, "resume")
    _check(path, facts, made_with)
    if facts.get("computed_on") != computed_on():
        warnings.warn(
            f"[resume] {path} was made on {facts.get('computed_on')} and goes on on {computed_on()}, whose arithmetic "
            "rounds otherwise: the picture will not be the same bit for bit",
            stacklevel=2,
        )
    try:
        return _snapshot(facts, arrays)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"[resume] {path} is damaged: {error}") from error


def _read(path: PathLike, step: str, only: Container[str] | None = None) -> tuple[dict[str, Any], dict[str, Array]]:
    """What the file says of itself, and its arrays; `CheckpointError`, which begins with `step`, if it is none."""
    try:
        with open(path, "rb") as file:
            arrays = {key: npy.parse(block) for key, block in archive.read_members(file, only).items()}
        facts = json.loads(bytes(arrays["meta"]))
        if facts["format"] != FORMAT:
            raise ValueError("is not one")
    except FileNotFoundError:
        raise CheckpointError(f"[{step}] {path}: there is no such file") from None
    except OSError as error:
        raise CheckpointError(f"[{step}] {path} cannot be read: {error.strerror or error}") from error
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(part) for part in error.args)
        raise CheckpointError(f"[{step}] {path} is no checkpoint of a style transfer, or damaged: {reason}") from error
    return facts, arrays


def _snapshot(facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> Snapshot:
    columns, table = [str(name) for name in facts["columns"]], arrays["history"]
    if table.ndim != 2 or table.shape[1] != len(columns) or tuple(columns[: len(COLUMNS)]) != COLUMNS:
        raise ValueError(f"a history of shape {table.shape}")
    kinds = [name.split(" ", 1) for name in columns[len(COLUMNS) :]]
    history = []
    for values in table.tolist():
        step, seconds, total, content, tv, size = values[: len(COLUMNS)]
        costs: dict[str, dict[str, float]] = {"style": {}, "extra": {}}
        for (kind, name), value in zip(kinds, values[len(COLUMNS) :], strict=True):
            costs[kind][name] = value
        history.append(HistoryRow(int(step), seconds, total, content, costs["style"], tv, int(size), costs["extra"]))
    level, done, seconds = int(facts["level"]), int(facts["done"]), float(facts["seconds"])
    if level < 0 or done < 0 or not math.isfinite(seconds):
        raise ValueError(f"level {level}, step {done}, {seconds} seconds")
    optimizer = {
        key.removeprefix("optimizer."): a.item() if a.ndim == 0 else a
        for key, a in arrays.items()
        if key.startswith("optimizer.")
    }
    return Snapshot(level, done, arrays["pixels"], arrays.get("average"), optimizer, history, seconds)


def _check(path: PathLike, facts: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
    """Refuse, with the first difference found, a checkpoint of another run."""
    theirs = facts.get("made_with")
    if facts.get("format_version") != FORMAT_VERSION or not isinstance(theirs, dict):
        raise _other(path, "format", facts.get("format_version"), FORMAT_VERSION)
    ours: Mapping[str, Any] = json.loads(json.dumps(made_with))
    if theirs.get("version") != ours["version"]:
        raise _other(path, "nstcore", theirs.get("version"), ours["version"])
    if theirs.get("network") != ours["network"]:
        raise CheckpointError(f"[resume] {path} was made with another network (weights or pooling)")
    options = theirs.get("settings")
    for name, value in ours["settings"].items():
        found = options.get(name) if isinstance(options, dict) else None
        if found != value:
            raise _other(path, name, found, value)
    pictures = theirs.get("pictures")
    for name in sorted({*ours["pictures"], *(pictures if isinstance(pictures, dict) else ())}):
        if not isinstance(pictures, dict) or pictures.get(name) != ours["pictures"].get(name):
            raise CheckpointError(f"[resume] {path} was made with another {name}")


def _other(path: PathLike, name: str, theirs: Any, ours: Any) -> CheckpointError:
    return CheckpointError(f"[resume] {Path(path)} was made with {name} {theirs!s}, got {ours!s}")
