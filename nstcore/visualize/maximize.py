"""Pictures that a unit likes best: gradient ascent on the pixels, kept smooth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.autograd import Tensor
from nstcore.autograd.engine import nodes_below
from nstcore.errors import ArgumentError
from nstcore.images import as_images, resize_to
from nstcore.nn.module import Module
from nstcore.ops._op import whole
from nstcore.ops.elementwise import relu_backward
from nstcore.visualize.deconv import frozen
from nstcore.visualize.network import activations, check_layers, check_network, check_unit, dtype_of, units_of
from nstcore.visualize.receptive_field import receptive_field

Array = NDArray[Any]
GREY = 0.5
_LEAST_SIDE = 32  # of the smallest octave
_START_NOISE = 0.1  # standard deviation of the first picture around grey
_LAST_BLUR = 0.5  # of the first blur, at the last step


@dataclass(frozen=True)
class DreamStep:
    """One step: its number from 1, the unit's mean activation before it, and the picture (h, w, 3) after it."""

    step: int
    activation: float
    image: Array


@dataclass(frozen=True)
class Dream:
    """The picture (h, w, 3) in [0, 1] that was reached, and the unit's activation before each step."""

    image: Array
    activations: tuple[float, ...]
    stopped: str | None = None


def maximize(
    net: Any,
    layer: str,
    unit: int,
    *,
    size: int | tuple[int, int] = 224,
    steps: int = 200,
    learning_rate: float = 0.03,
    jitter: int = 8,
    blur: float = 0.7,
    tv_weight: float = 0.1,
    decay: float = 0.05,
    octaves: int = 3,
    seed: int = 0,
    init: Array | None = None,
    callback: Callable[[DreamStep], object] | None = None,
) -> Dream:
    """Activation maximisation: arg max over x in [0, 1] of the mean of z_k(x) − λ_tv TV(x) − ½ λ ‖x − ½‖².

    z_k are the unit's values before the layer's own ReLU, where there is one: unlike a_k = max(z_k, 0) they say how to
    wake a unit that is silent.

    From noise around grey (or `init`, a picture), each step moves the pixels by learning_rate · g / rms(g), where g is
    the gradient of the mean of z_k, the picture rolled by up to `jitter` pixels; then it is moved towards less
    total variation and towards grey, blurred, and clipped. Both pulls and the ascent have the same unit: a share of the
    pixel range a step.

    net, layer, unit: as in `deconv`. size: height and width. steps: in all. jitter: pixels, either way.
    blur: standard deviation in pixels of a Gaussian, every fourth step, falling to half of it. tv_weight, decay: λ_tv,
    λ. octaves: the picture is first made at a half, a quarter … of `size`, so that large shapes come before small ones;
    not smaller than half of the unit's receptive field.
    callback: gets a `DreamStep`; a KeyboardInterrupt ends the ascent and keeps what was reached (`Dream.stopped`).
    Same arguments, same machine type: the same picture. Raises `ArgumentError`, `ShapeError`, `ImageError`.
    Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", ICLR 2014 workshop, equation 1; Yosinski
    et al., "Understanding Neural Networks Through Deep Visualization", 2015, section 3 (blur, decay); Mahendran,
    Vedaldi, "Visualizing Deep CNNs Using Natural Pre-images", IJCV 2016, sections 3.2, 3.3 (total variation, jitter).

    >>> from nstcore import models
    >>> maximize(models.vgg16(), "conv1_2", 3, size=16, steps=2, octaves=1).image.shape
    (16, 16, 3)
    """
    shape = (size, size) if isinstance(size, (int, np.integer)) else size
    start = None if init is None else as_images(init)[0].astype(dtype_of(check_network(net)))
    height, width = shape if start is None else start.shape[:2]
    _check_numbers(height=height, width=width, steps=steps, octaves=octaves, least=1)
    _check_numbers(jitter=jitter, seed=seed, least=0)
    for name, number in (("learning_rate", learning_rate), ("blur", blur), ("tv_weight", tv_weight), ("decay", decay)):
        if not 0 <= number < np.inf:
            raise ArgumentError(f"[maximize] expects {name} >= 0, got {number!r}")
    check_layers(check_network(net), [layer])
    unit = check_unit(layer, unit, units_of(net, [layer])[layer])
    side = max(receptive_field(net, layer).size)
    octaves = 1 + sum(min(height, width) >> octave >= max(_LEAST_SIDE, side // 2) for octave in range(1, octaves))
    rng = np.random.default_rng(seed)
    if start is None:  # noise of the smallest octave: shrunk to it, finer noise would cancel
        smallest = max(1, height >> (octaves - 1)), max(1, width >> (octaves - 1))
        start = resize_to(np.clip(GREY + _START_NOISE * rng.standard_normal((*smallest, 3)), 0, 1), height, width)
    ascent = _Ascent(net, layer, unit, learning_rate, jitter, blur, tv_weight, decay, rng)
    return _run(ascent, np.clip(start, 0, 1).astype(dtype_of(net)), steps, octaves, callback)


def _check_numbers(least: int, **numbers: Any) -> None:
    for name, number in numbers.items():
        if whole("maximize", name, number) < least:
            raise ArgumentError(f"[maximize] expects {name} of at least {least}, got {number!r}")


def _run(
    ascent: _Ascent, picture: Array, steps: int, octaves: int, callback: Callable[[DreamStep], object] | None
) -> Dream:
    """The steps, shared out evenly among the octaves, from the smallest one up."""
    from nstcore.backend.memory import reuse

    height, width = picture.shape[:2]
    reached: list[float] = []
    stopped = None
    try:
        with reuse():
            for octave in reversed(range(octaves)):
                sides = max(1, height >> octave), max(1, width >> octave)
                if sides != picture.shape[:2]:
                    picture = resize_to(picture, *sides).astype(picture.dtype)
                last = steps * (octaves - octave) // octaves
                while len(reached) < last:
                    share = len(reached) / steps
                    activation, picture = ascent.step(picture, len(reached), share)
                    reached.append(activation)
                    if callback is not None:
                        callback(DreamStep(len(reached), activation, picture))
    except KeyboardInterrupt:
        stopped = "interrupted"
    if picture.shape[:2] != (height, width):
        picture = resize_to(picture, height, width)
    return Dream(picture.astype(np.float32), tuple(reached), stopped)


@dataclass(frozen=True)
class _Ascent:
    """Everything that stays the same from step to step."""

    net: Module
    layer: str
    unit: int
    learning_rate: float
    jitter: int
    blur: float
    tv_weight: float
    decay: float
    rng: np.random.Generator

    def step(self, picture: Array, number: int, share: float) -> tuple[float, Array]:
        """The unit's activation, and the picture after a step; `share`: of all steps, how many were made."""
        from scipy.ndimage import gaussian_filter

        down, across = (int(n) for n in self.rng.integers(-self.jitter, self.jitter + 1, 2))
        activation, gradient = self._gradient(np.roll(picture, (down, across), (0, 1)))
        gradient = np.roll(gradient, (-down, -across), (0, 1))
        rate = self.learning_rate * (1 - 0.5 * share)
        picture = picture + rate * (_unit_rms(gradient) - self.tv_weight * _unit_rms(_variation_gradient(picture)))
        picture -= self.decay * rate * (picture - GREY) / GREY
        if self.blur and number % 4 == 3:
            sigma = self.blur * (1 - _LAST_BLUR * share)
            picture = gaussian_filter(picture, (sigma, sigma, 0), mode="nearest")
        return activation, np.clip(picture, 0, 1).astype(gradient.dtype)

    def _gradient(self, picture: Array) -> tuple[float, Array]:
        """The unit's mean activation over all places, and its gradient with respect to the pixels."""
        x = Tensor(np.ascontiguousarray(picture[None]), requires_grad=True)
        with frozen(self.net), relu_backward("straight"):
            y = activations(self.net, x, self.layer)[..., self.unit]
            _derive_all_but_last(y)
            objective = ops.mean(y)
            objective.backward()
        assert x.grad is not None
        return float(objective.item()), x.grad[0]


def _derive_all_but_last(y: Tensor) -> None:
    """Of the ReLUs that `y` was computed by, let only the last one pass its gradient straight on.

    So the gradient is that of the layer's values before its own ReLU: a silent unit has one too.
    """
    assert y._node is not None
    tape = nodes_below(y._node)
    last = tape[-2].number if len(tape) > 1 else -1  # before the choice of the unit
    for node in tape:
        if "rule" in node.params and node.number != last:
            node.params["rule"] = "gradient"


def _unit_rms(gradient: Array) -> Array:
    """The gradient scaled to a root mean square of 1; a zero one stays."""
    size = float(np.sqrt(np.mean(np.square(gradient, dtype=np.float64))))
    return gradient / size if size > 0 else gradient


def _variation_gradient(picture: Array) -> Array:
    """Gradient of the total variation, the sum of squared differences of neighbours."""
    x = Tensor(picture[None], requires_grad=True)
    ops.total_variation(x).backward()
    assert x.grad is not None
    gradient: Array = x.grad[0]
    return gradient
