"""The loop of training: batches, steps, and a state that is saved and goes on bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nstcore import ops, optim, weights
from nstcore._signals import Signals
from nstcore.autograd import Tensor, no_grad
from nstcore.backend import current_backend
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, NonFiniteError, WeightsError
from nstcore.faces import mining
from nstcore.faces.augment import Augmentation, augment
from nstcore.faces.head import VerificationHead
from nstcore.faces.sampler import Sampler
from nstcore.faces.train_settings import TrainSettings
from nstcore.nn.module import Module

Array = NDArray[Any]
ARCHITECTURE = "training"
KEPT = "the state before it stays"


class Inputs(Protocol):
    """What a network is trained on: pictures, or what frozen layers have made of them."""

    def batch(self, index: Array, how: Augmentation, rng: np.random.Generator) -> Any:
        """The encodings of photographs, as a tensor with gradients."""

    def encode(self, index: Array) -> Array:
        """The encodings of photographs as they are."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures uint8 (n, side, side, 3), changed at random for every batch."""

    net: Any
    pictures: NDArray[np.uint8]

    def batch(self, index: Array, how: Augmentation, rng: np.random.Generator) -> Any:
        """Changed pictures through the whole network."""
        return self.net(Tensor(augment(self.pictures[index], how, rng)))

    def encode(self, index: Array) -> Array:
        """By the network as trained."""
        return np.asarray(self.net.encode(self.pictures[index]))


@dataclass(frozen=True, eq=False)
class Features:
    """What the frozen layers of the face encoder give, of pictures (n, h, w, c) and of their mirror images."""

    net: Any
    last: int
    plain: Array
    mirrored: Array

    def batch(self, index: Array, how: Augmentation, rng: np.random.Generator) -> Any:
        """Of each picture, or its mirror image by chance, through the last layers."""
        turned = rng.random(len(index)) < (0.5 if how.flip else 0.0)
        x = np.where(turned[:, None, None, None], self.mirrored[index], self.plain[index])
        return self.net.finish(Tensor(x), self.last)

    def encode(self, index: Array) -> Array:
        """Through the last layers."""
        with no_grad():
            found: Array = to_host(self.net.finish(self.plain[index], self.last).data)
            return found


@dataclass(frozen=True)
class TrainRow:
    """One step. The fields from `active` on are of this step's batch; those from `eer` on of the people who are not
    trained on, None between two looks at them.

    active: share of all triplets of the batch with a loss. positive, negative: mean squared distance of its pairs of
    one person and of two. norm: mean length of its encodings. gradient: length before it was clipped. collapsed: all
    encodings are one point, and the loss is stuck at the margin.
    """

    step: int
    seconds: float
    loss: float
    learning_rate: float
    active: float
    positive: float
    negative: float
    norm: float
    gradient: float
    collapsed: bool
    eer: float | None = None
    auc: float | None = None
    one_shot: float | None = None
    threshold: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return asdict(self)


class Trainer:
    """Takes steps. What a step does depends on the state, the settings and its number alone."""

    def __init__(self, net: Module, inputs: Inputs, labels: Array, sampler: Sampler, settings: TrainSettings) -> None:
        self.net, self.inputs, self.labels, self.sampler, self.settings = net, inputs, labels, sampler, settings
        self.head = VerificationHead(net.facts["size"]) if settings.loss == "logistic" else None  # type: ignore[attr-defined]
        _check_finite(net)
        for part in filter(None, (net, self.head)):
            part.to(current_backend())  # once, not in every step
        parameters = net.parameters() + (self.head.parameters() if self.head else [])
        self.optimizer = optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
        self.steps = 0
        self.seconds = 0.0
        self.rows: list[TrainRow] = []
        self.signals = Signals()

    def step(self) -> TrainRow:
        """Take one step; `NonFiniteError`, with everything as it was before it, when loss or gradient is not finite.

        Where the caller holds `signals` back, they come through while loss and gradient are computed, and a step that
        one of them ends has changed nothing either.
        """
        start, s = time.perf_counter(), self.settings
        self.optimizer.learning_rate = optim.cosine_schedule(s.learning_rate, self.steps, s.steps, s.warm_up, 0.01)
        before = {name: b.copy() for name, b in self.net.named_buffers()}
        seen: dict[str, Any] = {}
        rng, index = np.random.default_rng((s.seed, 2, self.steps)), self.sampler.batch(self.steps)
        labels = self.labels[index]
        self.net.train()

        def closure() -> float:
            with self.signals.through():
                z = self.inputs.batch(index, s.augmentation, rng)
                loss = self._loss(z, labels, rng)
            if not np.isfinite(loss.data):
                raise NonFiniteError(
                    f"[train] step {self.steps + 1}: the loss is {float(loss)}; the state before it stays"
                )
            if loss.requires_grad:
                with self.signals.through():
                    loss.backward()
            gradient = optim.clip_gradients(self.optimizer.parameters, s.clip) if s.clip else 0.0
            if not np.isfinite(gradient):
                raise NonFiniteError(
                    f"[train] step {self.steps + 1}: the gradient is not finite; the state before it stays"
                )
            seen.update(z=z.data, gradient=gradient)
            return float(loss)

        try:
            loss = self.optimizer.step(closure)
        except BaseException:
            for name, buffer in self.net.named_buffers():
                buffer[...] = before[name]
            raise
        finally:
            self.net.eval()
        self.steps += 1
        self.seconds += time.perf_counter() - start
        stats = ops.triplet_stats(seen["z"], labels, s.margin)
        row = TrainRow(
            self.steps, self.seconds, loss, self.optimizer.learning_rate, stats.active_fraction,
            stats.mean_positive_distance, stats.mean_negative_distance, stats.mean_norm, seen["gradient"],
            stats.collapsed,
        )  # fmt: skip
        self.rows.append(row)
        return row

    def _loss(self, z: Any, labels: Array, rng: np.random.Generator) -> Any:
        s = self.settings
        if s.loss == "triplet":
            reduction = "mean_active" if s.mining == "batch_all" else "mean"
            return mining.triplet_loss(z, labels, s.margin, s.mining, reduction, rng)
        first, second, same = mining.pairs_of(labels, rng)
        if self.head is None:
            return ops.contrastive_loss(z[first], z[second], same, s.margin)
        return ops.mul(ops.logistic_loss(self.head(z[first], z[second]), same), 1 / max(1, len(same)))

    def arrays(self) -> dict[str, Array]:
        """Copies of everything that changes in a step, by name."""
        found = {f"net.{name}": a.copy() for name, a in self.net.state_dict().items()}
        if self.head:
            found.update({f"head.{name}": a.copy() for name, a in self.head.state_dict().items()})
        for name, value in self.optimizer.state_dict().items():
            found[f"optimizer.{name}"] = to_host(value)
        return found

    def load(self, arrays: dict[str, Array], source: str) -> None:
        """Take over what `arrays` gave; `WeightsError` when it does not fit."""
        parts: dict[str, dict[str, Array]] = {"net": {}, "head": {}, "optimizer": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = array
        self.net.load_state_dict(parts["net"], source)
        if self.head:
            self.head.load_state_dict(parts["head"], source)
        try:
            self.optimizer.load_state_dict(parts["optimizer"])
        except ArgumentError as error:
            raise WeightsError(f"[train] {source}: {error}") from None


def save_state(path: str | Path, trainer: Trainer, best: dict[str, Array], facts: dict[str, Any]) -> None:
    """Write a checkpoint: the state, the best weights so far, and `facts`, which `load_state` compares."""
    arrays = {**trainer.arrays(), **{f"best.{name}": a for name, a in best.items()}}
    meta = {
        "architecture": ARCHITECTURE,
        "steps": trainer.steps,
        "seconds": trainer.seconds,
        "rows": [[_plain(v) for v in asdict(row).values()] for row in trainer.rows],
        "facts": facts,
    }
    weights.save(path, arrays, meta)


def load_state(path: str | Path, trainer: Trainer, facts: dict[str, Any]) -> dict[str, Array]:
    """Take over a checkpoint and give its best weights.

    Raises `WeightsError` for a file that is none, `ArgumentError` when it is of other photographs or settings.
    """
    file = weights.load(path)
    if file.architecture != ARCHITECTURE:
        raise WeightsError(f"[train] {path}: expects a checkpoint of a training run, got {file.architecture}")
    stored = file.meta.get("facts")
    if not isinstance(stored, dict) or not isinstance(file.meta.get("rows"), list):
        raise WeightsError(f"[train] {path}: its facts do not describe a training run")
    wanted = json.loads(json.dumps(facts))
    for name in sorted({*stored, *wanted}):
        if stored.get(name) != wanted.get(name):
            raise ArgumentError(
                f"[train] {path}: expects the {name} of the run that it continues, "
                f"{_short(stored.get(name))}, got {_short(wanted.get(name))}"
            )
    current = {n: a for n, a in file.arrays.items() if not n.startswith("best.")}
    trainer.load(current, str(path))
    try:
        trainer.rows = [TrainRow(*_row_values(row)) for row in file.meta["rows"]]
        trainer.steps, trainer.seconds = int(file.meta["steps"]), float(file.meta["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"[train] {path}: its rows are no rows of a training run ({error})") from None
    return {n.removeprefix("best."): np.array(a) for n, a in file.arrays.items() if n.startswith("best.")}


def _check_finite(net: Module) -> None:
    for name, array in net.state_dict().items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WeightsError(f"[train] expects finite weights, got NaN or infinity in {name}")


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: NaN (the mean over nothing) as text."""
    return "nan" if isinstance(value, float) and value != value else value


def _row_values(row: list[Any]) -> list[Any]:
    if len(row) != len(fields(TrainRow)):
        raise ValueError(f"{len(row)} values in a row")
    return [float("nan") if value == "nan" else value for value in row]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


Callback = Callable[[TrainRow], object]
