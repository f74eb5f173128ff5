"""The loop of training: batches, steps, and a state that is saved and goes on bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nstcore import ops, optim
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
        """Take one step; `NonFiniteError`, with everything as it was before it, when what it gives is not finite.

        Where the caller holds `signals` back, they come through while loss and gradient are computed, and a step that
        one of them ends has changed nothing either.
        """
        start, s = time.perf_counter(), self.settings
        self.optimizer.learning_rate = optim.cosine_schedule(s.learning_rate, self.steps, s.steps, s.warm_up, 0.01)
        rng, index = np.random.default_rng((s.seed, 2, self.steps)), self.sampler.batch(self.steps)
        labels, before = self.labels[index], self._copies()
        seen: dict[str, Any] = {}
        self.net.train()
        try:
            loss = self.optimizer.step(lambda: self._forward_and_back(index, rng, seen))
            self._check_state()
        except BaseException:
            self._restore(before)
            raise
        finally:
            self.net.eval()
        self.steps += 1
        self.seconds += time.perf_counter() - start
        # Of pairs the margin is a distance, here it is a squared one.
        stats = ops.triplet_stats(seen["z"], labels, s.margin**2 if s.loss == "contrastive" else s.margin)
        row = TrainRow(
            self.steps, self.seconds, loss, self.optimizer.learning_rate, stats.active_fraction,
            stats.mean_positive_distance, stats.mean_negative_distance, stats.mean_norm, seen["gradient"],
            stats.collapsed,
        )  # fmt: skip
        self.rows.append(row)
        return row

    def _forward_and_back(self, index: Array, rng: np.random.Generator, seen: dict[str, Any]) -> float:
        """The loss of a batch, and the gradients of all parameters; encodings and their length go to `seen`."""
        clip = self.settings.clip
        with self.signals.through():
            z = self.inputs.batch(index, self.settings.augmentation, rng)
            loss = self._loss(z, self.labels[index], rng)
        if not (np.isfinite(loss.data) and np.isfinite(z.data).all()):
            raise self._not_finite(f"the loss is {float(loss)}")
        if loss.requires_grad:
            with self.signals.through():
                loss.backward()
        gradient = optim.clip_gradients(self.optimizer.parameters, clip or np.finfo(np.float64).max)
        if not np.isfinite(gradient):
            raise self._not_finite("the gradient is not finite")
        seen.update(z=z.data, gradient=gradient)
        return float(loss)

    def _not_finite(self, what: str) -> NonFiniteError:
        return NonFiniteError(f"[train] step {self.steps + 1}: {what}; {KEPT}")

    def _check_state(self) -> None:
        """Raise unless parameters, running statistics and the optimiser's moments are finite."""
        parts = {"": self.net, "head.": self.head} if self.head else {"": self.net}
        names = {id(p): prefix + name for prefix, part in parts.items() for name, p in part.named_parameters()}
        for p in self.optimizer.parameters:
            if not np.isfinite(p.data).all():
                raise self._not_finite(f"{names[id(p)]} is not finite after it")
        for name, buffer in self.net.named_buffers():
            if not np.isfinite(buffer).all():
                raise self._not_finite(f"{name} is not finite after it")
        for name, value in self.optimizer.state_dict().items():
            if not np.isfinite(value).all():
                raise self._not_finite(f"the optimiser's {name} is not finite after it")

    def _copies(self) -> tuple[list[Array], list[Array], dict[str, Any]]:
        """All that a step changes, as it is now: trained parameters, buffers, the optimiser's state."""
        parameters = [p.data.copy() for p in self.optimizer.parameters]
        return parameters, [b.copy() for _, b in self.net.named_buffers()], self.optimizer.state_dict()

    def _restore(self, copies: tuple[list[Array], list[Array], dict[str, Any]]) -> None:
        parameters, buffers, state = copies
        for p, kept in zip(self.optimizer.parameters, parameters, strict=True):
            p.data[...] = kept
        for (_, buffer), kept in zip(self.net.named_buffers(), buffers, strict=True):
            buffer[...] = kept
        self.optimizer.load_state_dict(state)

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


def _check_finite(net: Module) -> None:
    for name, array in net.state_dict().items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WeightsError(f"[train] expects finite weights, got NaN or infinity in {name}")


Callback = Callable[[TrainRow], object]
