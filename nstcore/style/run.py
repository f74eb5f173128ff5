"""The run: from the smallest size to the final one, a new optimiser at each, the last good picture kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import optim
from nstcore._signals import Signals
from nstcore.autograd import Tensor
from nstcore.backend import current_backend, moved
from nstcore.backend.arrays import beside
from nstcore.backend.memory import give_back
from nstcore.errors import ArgumentError, CheckpointError, NonFiniteError
from nstcore.images import resize_to
from nstcore.models.vgg import VGG
from nstcore.style import checkpoint
from nstcore.style.descent import optimizer_for
from nstcore.style.extra import Combined, ExtraAt
from nstcore.style.objective import Objective, Terms, white_noise
from nstcore.style.plan import Held, Way, choose, resident
from nstcore.style.result import HistoryRow, Progress, Result, visible
from nstcore.style.scene import Scene
from nstcore.style.settings import UNTIL_STEPS, Level, Settings
from nstcore.style.tiles import TiledObjective

Array = NDArray[Any]


@dataclass(frozen=True)
class Saving:
    """Where and how often a run is saved, and what it is made with (`checkpoint.identity`)."""

    path: Path
    every: int
    made_with: Mapping[str, Any]


@dataclass
class State:
    """Where a run is: the size, the steps done at it, and what the optimiser changes."""

    level: int
    pixels: Tensor  # (1, h, w, 3)
    optimizer: optim.Optimizer
    done: int = 0
    average: Array | None = None  # Σ (1 − d) d^(n − i) picture_i, which does not sum to 1 yet


class Run:
    """One style transfer on its way; `go` takes the steps that are left."""

    def __init__(
        self,
        network: VGG,
        scene: Scene,
        settings: Settings,
        levels: list[Level],
        callback: Callable[[Progress], None] | None = None,
        finish: Callable[[Array], Array] = lambda image: image,
        saving: Saving | None = None,
        extras: Sequence[ExtraAt] = (),
    ) -> None:
        self.network, self.scene, self.settings, self.levels = network, scene, settings, levels
        self.callback, self.finish, self.saving, self.extras = callback, finish, saving, extras
        self.rows: list[HistoryRow] = []
        self._terms: dict[float, Terms] = {}  # by total, since a line search tries pictures that it does not keep
        self._signals = Signals()
        self._before = 0.0  # seconds of the run that this one continues
        program = max(0, resident() - scene.nbytes)
        self.ways = [self._way(level, program) for level in reversed(levels)][
            ::-1
        ]  # the largest first: it is refused if any is
        small = scene.at(levels[0].size, settings.style_scale)
        self.state = self._fresh(0, _start(small, settings))
        self._kept: Array = self.state.pixels.data.copy()  # the last picture whose loss is known to be finite

    def go(self) -> Result:
        """Take all steps that are left; `NonFiniteError` when the loss stops being a number."""
        self._began = time.perf_counter()
        stopped = None
        objectives = [self._objective()]  # Ctrl-C this early is not ours: there is nothing to keep
        try:
            with self._signals:
                self._all_levels(objectives)
            stopped = self._why_over()
        except KeyboardInterrupt:
            stopped = "interrupted"
        if self.saving and (self.rows or not self.saving.path.exists()):
            self._save_last()
        return self.result(stopped)

    def result(self, stopped: str | None) -> Result:
        """What is reached, and why there is no more."""
        return Result(self.shown(), self.rows, self.settings, stopped)

    def restore(self, snapshot: checkpoint.Snapshot) -> None:
        """Continue where `snapshot` was taken; `CheckpointError` when it does not fit this run."""
        if snapshot.level >= len(self.levels) or snapshot.done > self.levels[snapshot.level].steps:
            raise CheckpointError(f"[resume] the checkpoint is at step {snapshot.done} of size {snapshot.level + 1}")
        size = self.levels[snapshot.level].size
        photo = self.scene.at(size, self.settings.style_scale).photo
        if snapshot.pixels.shape != (1, *photo.shape) or snapshot.pixels.dtype != self.network.dtype:
            raise CheckpointError(
                f"[resume] the checkpoint has a picture {snapshot.pixels.dtype} {snapshot.pixels.shape}, "
                f"expected {self.network.dtype} {(1, *photo.shape)}"
            )
        state = self._fresh(snapshot.level, snapshot.pixels[0])
        reason = self._unfit(snapshot, state)
        try:
            if snapshot.optimizer and reason is None:
                state.optimizer.load_state_dict(snapshot.optimizer)
        except (ArgumentError, KeyError, TypeError, ValueError) as error:
            reason = str(error)
        if reason is not None:
            raise CheckpointError(f"[resume] the checkpoint is damaged: {reason}")
        state.done = snapshot.done
        state.average = None if snapshot.average is None else beside(snapshot.average.copy(), state.pixels.data)
        self.state, self._kept, self._before = state, state.pixels.data.copy(), snapshot.seconds
        self.rows = list(snapshot.history)

    def _unfit(self, snapshot: checkpoint.Snapshot, state: State) -> str | None:
        """What of a checkpoint of this run contradicts itself, or None."""
        if not np.isfinite(snapshot.pixels).all():
            return "its picture is not finite"
        if (snapshot.average is None) != (state.average is None) or (
            snapshot.average is not None and snapshot.average.shape != snapshot.pixels.shape
        ):
            return "its average picture is missing, or of another shape"
        if bool(snapshot.optimizer) != (snapshot.done > 0):
            return f"{'no' if snapshot.done else 'a'} state of the optimiser at step {snapshot.done} of the size"
        if len(snapshot.history) < snapshot.done:
            return f"{len(snapshot.history)} rows of history after {snapshot.done} steps"
        return None

    def _all_levels(self, objectives: list[Combined]) -> None:
        while True:
            objective = objectives.pop() if objectives else self._objective()
            optimizer = self.state.optimizer
            if self.state.done and isinstance(optimizer, optim.LBFGS):  # it knows the loss, from wherever it was saved
                terms = objective.evaluate(Tensor(self.state.pixels.data))
                self._terms = {terms.total if optimizer.loss is None else optimizer.loss: terms}
            while not self._level_is_over():
                self._step(objective)
                self._after_step()
            if self.state.level + 1 == len(self.levels):
                return
            del objective  # or it would live beside the next one
            give_back()  # another size, and perhaps tiles, need blocks of other sizes
            following = self.state.level + 1
            photo = self.scene.at(self.levels[following].size, self.settings.style_scale).photo
            self.state = self._fresh(following, resize_to(self._picture(), photo.shape[0], photo.shape[1]))

    def _objective(self) -> Combined:
        scene = self.scene.at(self.levels[self.state.level].size, self.settings.style_scale)
        way = self.ways[self.state.level]
        given = self.network, scene.photo, scene.paintings
        masks = scene.regions, scene.sources
        if way.tile is not None:
            objective: Objective = TiledObjective(*given, self.settings, *masks, way.tile, way.keep_content)
        else:
            objective = Objective(*given, replace(self.settings, memory="low" if way.low else "normal"), *masks)
        return Combined(objective, [at(scene.photo) for at in self.extras])

    def _way(self, level: Level, program: int) -> Way:
        """How the costs of a size are computed within the memory that there is."""
        final = self.scene.photo.shape
        scale = level.size / max(final[:2])
        shape = tuple(max(1, round(length * scale)) for length in final[:2])
        return choose(self.network, self.settings, shape, Held.by(self.scene), program)

    def _fresh(self, level: int, picture: Array) -> State:
        start = moved(picture[None].astype(self.network.dtype), current_backend())
        pixels = Tensor(start, requires_grad=True)
        average = np.zeros_like(pixels.data) if self.settings.average else None
        return State(level, pixels, optimizer_for(pixels, self.settings, self.scene.everywhere), average=average)

    def _why_over(self) -> str | None:
        """Why the current size is done before its last step, or None when it took them all or is not done."""
        if getattr(self.state.optimizer, "converged", False):
            return "converged"
        if self.settings.until is not None and self.state.done > UNTIL_STEPS:
            before, now = self.rows[-1 - UNTIL_STEPS].total, self.rows[-1].total
            if before - now < self.settings.until * before:
                return "settled"
        return None

    def _level_is_over(self) -> bool:
        return self.state.done >= self.levels[self.state.level].steps or self._why_over() is not None

    def _step(self, objective: Combined) -> None:
        """One step of the optimiser, after which everything is consistent, or, if it is interrupted, as before it."""
        pixels, optimizer = self.state.pixels, self.state.optimizer
        searching = isinstance(optimizer, optim.LBFGS)  # it moves the pixels before it knows the loss
        tried: dict[float, Terms] = {}

        def closure() -> float:
            with self._signals.through():
                terms = objective.evaluate(pixels)
            tried[terms.total] = terms
            if not searching and np.isfinite(terms.total):
                self._kept = pixels.data.copy()
            return terms.total

        with self._signals.hold():
            if searching:
                self._kept = pixels.data.copy()
            try:
                with np.errstate(all="ignore"):  # what overflows is found below
                    loss = optimizer.step(closure)
            except KeyboardInterrupt:
                if searching:
                    pixels.data[...] = self._kept
                raise
            if not (np.isfinite(loss) and bool(np.isfinite(pixels.data).all())):
                raise self._non_finite()
            terms = tried.get(loss) or self._terms[loss]
            self._terms = tried
            self.rows.append(self._row(terms))
            self.state.done += 1
            if self.state.average is not None:
                self.state.average *= self.settings.average
                self.state.average += (1 - self.settings.average) * pixels.data

    def _row(self, terms: Terms) -> HistoryRow:
        size = self.levels[self.state.level].size
        step, costs = len(self.rows) + 1, (terms.total, terms.content, terms.style, terms.variation)
        return HistoryRow(step, self._seconds(), *costs, size, terms.extra)

    def _seconds(self) -> float:
        return self._before + time.perf_counter() - self._began

    def _after_step(self) -> None:
        if self.saving and len(self.rows) % self.saving.every == 0:
            self._save()
        if self.callback:
            self.callback(Progress(self.rows[-1], sum(level.steps for level in self.levels), self.shown))

    def _picture(self) -> Array:
        """The current picture, or the average of those at this size: float32 (h, w, 3) in [0, 1], a copy."""
        if self.state.average is None or self.state.done == 0:
            return visible(self.state.pixels.data)
        return visible(self.state.average / (1 - self.settings.average**self.state.done))

    def shown(self) -> Array:
        """The current picture in the colours of the result."""
        return self.finish(self._picture())

    def _save_last(self) -> None:
        """Save where the run ends; a second Ctrl-C waits, and then has nothing left to stop."""
        with contextlib.suppress(KeyboardInterrupt), self._signals, self._signals.hold():
            self._save()

    def _save(self) -> None:
        assert self.saving is not None
        state = self.state
        give_back()  # what the costs worked in, which is more than the copies of the state that are made here
        snapshot = checkpoint.Snapshot(
            state.level, state.done, state.pixels.data, state.average,
            state.optimizer.state_dict() if state.done else {}, self.rows, self._seconds(),
            state.level + 1 == len(self.levels) and self._level_is_over(),
        )  # fmt: skip
        checkpoint.save(self.saving.path, self.saving.made_with, snapshot)

    def _non_finite(self) -> NonFiniteError:
        error = NonFiniteError(
            f"[style] the loss is not finite at step {len(self.rows) + 1}; "
            "a smaller learning rate, or smaller weights, keep it finite"
        )
        error.result = Result(self.finish(visible(self._kept)), self.rows, self.settings, "diverged")
        return error


def _start(scene: Scene, settings: Settings) -> Array:
    """The first picture, of the photograph's shape."""
    if scene.start is not None:
        return scene.start
    if settings.init == "noise":
        return white_noise(scene.photo.shape, settings.seed)
    if settings.init == "style":
        return resize_to(scene.paintings[0], scene.photo.shape[0], scene.photo.shape[1])
    return scene.photo
