"""The run: start somewhere, let an optimiser change the pixels, keep the last good picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import optim
from nstcore.autograd import Tensor
from nstcore.backend import current_backend, moved
from nstcore.backend.arrays import to_host
from nstcore.backend.memory import reuse
from nstcore.errors import ArgumentError, ImageError, NonFiniteError
from nstcore.images import load, resize_to
from nstcore.models.vgg import VGG, vgg16
from nstcore.style.objective import Objective, Terms, white_noise
from nstcore.style.settings import SMALLEST, Settings

Array = NDArray[Any]

ADAM_RATE, DESCENT_RATE = 0.02, 0.02  # pixels, of a range of 1, that the first step moves at most


@dataclass(frozen=True)
class HistoryRow:
    """The costs of the picture that a step started from. `content`, `style` and `tv` are raw, before any weight."""

    step: int
    seconds: float
    total: float
    content: float
    style: dict[str, float]
    tv: float


@dataclass(frozen=True)
class Progress:
    """What a callback gets after each step: its costs, and the picture that it led to, (h, w, 3) in [0, 1]."""

    row: HistoryRow
    steps: int
    _pixels: Tensor

    @property
    def image(self) -> Array:
        """A copy of the picture, float32 (h, w, 3), clipped to [0, 1]."""
        return _visible(self._pixels)


@dataclass
class Result:
    """The picture, float32 (h, w, 3) in [0, 1], and how the costs went.

    stopped: why the run ended before its last step ("interrupted", "converged", "diverged"), or None.
    """

    image: Array
    history: list[HistoryRow] = field(default_factory=list)
    settings: Settings = field(default_factory=Settings)
    stopped: str | None = None


def transfer(
    content: Any,
    styles: Any,
    *,
    net: VGG | None = None,
    callback: Callable[[Progress], None] | None = None,
    max_pixels: int = 100_000_000,
    **options: Any,
) -> Result:
    """Paint `content` in the style of `styles` by minimising J = α J_content + β J_style + γ TV over the pixels.

    content: path, Pillow image, or array (h, w, 3) in [0, 1] or uint8. styles: one such picture or several.
    options: the fields of `Settings` (size, steps, content_weight, …). net: a VGG; by default VGG-16 with the embedded
    weights. callback: called with a `Progress` after each step; Ctrl-C ends the run and keeps what is done.
    max_pixels: largest picture that is read.

    Gives a `Result`; the same seed gives the same picture whatever the number of threads.
    Raises `ImageError`, `ArgumentError`, and `NonFiniteError` (whose ``result`` holds the last good picture) when the
    loss stops being a number.
    Source: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016.
    """
    settings = _settings(options)
    several = isinstance(styles, (list, tuple)) or (isinstance(styles, Iterator) and not hasattr(styles, "read"))
    many = [*styles] if several else [styles]
    if not many:
        raise ArgumentError("[style] expects at least one style picture, got none")
    settings.blend_shares(len(many))
    network = net or vgg16(pooling=settings.pooling)
    network.to(current_backend())  # once, not in every step
    network.check_layers([*settings.content_shares, *settings.style_shares])
    photo, *paintings = (_read(x, settings.size, max_pixels) for x in [content, *many])
    _check_sides(network, settings, photo, paintings)
    with reuse():
        objective = Objective(network, photo, paintings, settings)
        start = _start(photo, paintings, settings)[None].astype(network.dtype)
        pixels = Tensor(moved(start, current_backend()), requires_grad=True)
        return _run(objective, pixels, settings, callback)


def _settings(options: dict[str, Any]) -> Settings:
    unknown = sorted(set(options) - set(Settings.names()))
    if unknown:
        raise ArgumentError(f"[style] has no option {unknown[0]!r}; it has {', '.join(Settings.names())}")
    return Settings(**options)


def _read(source: Any, size: int, max_pixels: int) -> Array:
    return load(source, size=size, max_pixels=max_pixels, min_side=SMALLEST)


def _check_sides(network: VGG, settings: Settings, photo: Array, paintings: Sequence[Array]) -> None:
    """A long and thin picture may have too few pixels across, once its longer side is `size`."""
    least = network.least_side([*settings.content_shares, *settings.style_shares])
    for name, picture in (("photograph", photo), *(("painting", painting) for painting in paintings)):
        height, width, _ = picture.shape
        if min(height, width) < least:
            raise ImageError(
                f"[style] the {name} has {width}x{height} pixels at size {settings.size}; "
                f"the layers need {least}x{least}: choose a larger size"
            )


def _start(photo: Array, paintings: Sequence[Array], settings: Settings) -> Array:
    """The first picture, of the photograph's shape."""
    if settings.init == "noise":
        return white_noise(photo.shape, settings.seed)
    if settings.init == "style":
        return resize_to(paintings[0], photo.shape[0], photo.shape[1])
    return photo


def _visible(pixels: Tensor) -> Array:
    visible: Array = to_host(np.clip(pixels.data[0], 0.0, 1.0).astype(np.float32))
    return visible


def _run(
    objective: Objective, pixels: Tensor, settings: Settings, callback: Callable[[Progress], None] | None
) -> Result:
    optimizer = _optimizer(pixels, settings)
    result = Result(_visible(pixels), settings=settings)
    good = result.image  # the last picture whose loss is known to be finite
    evaluated: dict[float, Terms] = {}  # by total, since a line search tries pictures that it does not keep

    def closure() -> float:
        terms = objective.evaluate(pixels)
        evaluated[terms.total] = terms
        return terms.total

    start = time.perf_counter()
    try:
        for step in range(1, settings.steps + 1):
            with np.errstate(all="ignore"):  # what overflows is found below
                loss = optimizer.step(closure)
            if not np.isfinite(loss):
                result.image = good
                raise _non_finite(step, result)
            good = result.image
            if not bool(np.isfinite(pixels.data).all()):
                raise _non_finite(step, result)
            terms = evaluated[loss]
            seconds = time.perf_counter() - start
            row = HistoryRow(step, seconds, terms.total, terms.content, terms.style, terms.variation)
            result.history.append(row)
            result.image = _visible(pixels)
            if callback:
                callback(Progress(row, settings.steps, pixels))
            if getattr(optimizer, "converged", False):
                result.stopped = "converged"
                break
    except KeyboardInterrupt:
        result.stopped = "interrupted"
    return result


def _non_finite(step: int, result: Result) -> NonFiniteError:
    error = NonFiniteError(
        f"[style] the loss is not finite at step {step}; a smaller learning rate, or smaller weights, keep it finite"
    )
    result.stopped = "diverged"
    error.result = result
    return error


def _optimizer(pixels: Tensor, settings: Settings) -> optim.Optimizer:
    if settings.optimizer == "lbfgs":
        return optim.LBFGS([pixels])
    if settings.optimizer == "adam":
        return optim.Adam([pixels], settings.learning_rate or ADAM_RATE)
    return Descent([pixels], settings.learning_rate or DESCENT_RATE)


class Descent(optim.SGD):
    """Gradient descent with momentum whose step size follows the loss.

    The gradient of J shrinks by orders of magnitude on the way, so no fixed step size serves a whole run: it grows a
    little while the loss falls; when the loss rises it is halved and the momentum forgotten.
    first_move: largest change of a pixel in the first step.
    Source: Vogl et al., "Accelerating the convergence of the back-propagation method", 1988 (the "bold driver").
    """

    GROW, SHRINK = 1.05, 0.5

    def __init__(self, parameters: list[Tensor], first_move: float) -> None:
        super().__init__(parameters, learning_rate=1.0, momentum=0.9)
        self.first_move = first_move
        self._last = np.inf

    def step(self, closure: Callable[[], float]) -> float:
        """Take one step; returns the loss before it."""

        def adapted() -> float:
            loss = closure()
            if np.isinf(self._last):
                largest = max(float(np.max(np.abs(p.grad))) for p in self.parameters if p.grad is not None)
                self.learning_rate = self.first_move / max(largest, 1e-30)
            elif loss < self._last:
                self.learning_rate *= self.GROW
            else:
                self.learning_rate *= self.SHRINK
                for v in self._velocity:
                    v[...] = 0
            self._last = loss
            return loss

        return super().step(adapted)

    def state_dict(self) -> dict[str, Any]:
        """The velocities, the step size and the last loss."""
        return {**super().state_dict(), "learning_rate": self.learning_rate, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        rate, last = float(self._entry(state, "learning_rate")), float(self._entry(state, "last"))
        super().load_state_dict(state)
        self.learning_rate, self._last = rate, last
