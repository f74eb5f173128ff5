"""What a style transfer can be told, with the defaults and the reasons to refuse a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from nstcore.errors import ArgumentError
from nstcore.optim.optimizer import REAL

Init = Literal["content", "noise", "style"]
OptimizerName = Literal["lbfgs", "adam", "gd"]
Pooling = Literal["max", "avg"]
Memory = Literal["normal", "low"]
Colors = Literal["style", "luminance", "match"]
LayerWeights = Mapping[str, float] | Sequence[str]

SMALLEST, LARGEST = 16, 16384  # pixels of the longer side; conv5_1 needs 16 in each
LARGEST_WEIGHT = 1e12  # beyond it costs leave the range of float32
FEWER = 0.65  # steps of a size, as a part of those of the size below: a step costs twice as much
GROWTH = math.sqrt(2.0)  # of the picture's side from one size to the next
FRAME_STEPS, STILL_WEIGHT = 30, 3e8  # of the frames of a clip, see `nstcore.style.clip`
VIDEOS = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi"}
LBFGS_HISTORY = 10  # past steps that the optimiser holds, each with two arrays like the picture
UNTIL_STEPS = 10  # over which `until` looks at the loss


class Level(NamedTuple):
    """One size of a run: longer side in pixels, and steps of the optimiser."""

    size: int
    steps: int


@dataclass(frozen=True)
class Settings:
    """The options of `nstcore.style.transfer`.

    size: longer side of the result in pixels. steps: of the optimiser at the smallest size; see `levels`.
    start_size: longer side of the first, smallest picture; `size` or more paints at one size only.
    until: a size is done when ten steps lower the loss by less than this part of it; None takes all steps.
    content_weight (α), style_weight (β), tv_weight: at least 0. Content and style costs are divided by their sizes
    first (see docs/decisions/0003), so that one α : β serves pictures of every size.
    content_layers, style_layers: names, weighed equally, or name -> weight; the weights are scaled to sum to 1.
    style_scale: longer side of the paintings, as a multiple of the picture's: larger gives larger strokes.
    blend: one weight a style, scaled to sum to 1; None for equal parts. With regions, how strong the style of each is.
    colors: "style" takes the painting's; "luminance" paints brightness alone and keeps the photograph's colours;
    "match" first gives the paintings the photograph's mean and covariance of colours.
    init: what the run starts from. optimizer: "lbfgs", "adam" or "gd" (gradient descent with momentum).
    learning_rate: step size of "adam" and "gd" in units of the pixel range; None for the optimiser's own default.
    average: of "adam" and "gd": the result is the average of the pictures on the way, each step's weight being this
    much of the next one's; 0 takes the last picture.
    pooling: of the network, "max" or "avg" (a network that is passed has its own). seed: of the white noise.
    keep_face: also keep the faces of the photograph: face_weight times the squared distance between the encodings of
    each face in the picture and in the photograph is added; see `nstcore.style.faces_term`.
    memory: "low" computes the first layer, the largest, once more when its gradient is due instead of keeping it: the
    same picture, bit for bit, in less memory, a little later. A number of bytes makes the run fit into them, by that
    or by tiles (see `nstcore.style.tiles`), and refuses what cannot.
    """

    size: int = 512
    steps: int = 100
    start_size: int = 256
    until: float | None = None
    content_weight: float = 1.0
    style_weight: float = 2e-3
    tv_weight: float = 0.0
    content_layers: LayerWeights = ("conv4_2",)
    style_layers: LayerWeights = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
    style_scale: float = 1.0
    blend: Sequence[float] | None = None
    colors: Colors = "style"
    init: Init = "content"
    optimizer: OptimizerName = "lbfgs"
    learning_rate: float | None = None
    average: float = 0.0
    pooling: Pooling = "max"
    seed: int = 0
    keep_face: bool = False
    face_weight: float = 5e4
    memory: Memory | int = "normal"

    def __post_init__(self) -> None:
        _whole("size", self.size, SMALLEST, LARGEST)
        _whole("steps", self.steps, 1, 1_000_000)
        _whole("start_size", self.start_size, SMALLEST, LARGEST)
        _whole("seed", self.seed, 0, 2**63 - 1)
        for name in ("content_weight", "style_weight", "tv_weight", "face_weight"):
            check_weight(name, getattr(self, name))
        if not isinstance(self.keep_face, (bool, np.bool_)):
            raise ArgumentError(f"[style] expects keep_face as True or False, got {self.keep_face!r}")
        if self.content_weight == self.style_weight == 0:
            raise ArgumentError("[style] expects content_weight or style_weight above 0, got 0 for both")
        if self.learning_rate is not None:
            check_weight("learning_rate", self.learning_rate)
            if self.learning_rate == 0:
                raise ArgumentError("[style] expects learning_rate above 0, got 0")
            if self.optimizer == "lbfgs":
                raise ArgumentError("[style] learning_rate is for optimizer adam or gd; lbfgs searches along each step")
        _between("style_scale", self.style_scale, 1 / 16, 16)
        _between("average", self.average, 0, 0.9999)
        if self.until is not None:
            _between("until", self.until, 0, 1)
        if self.average and self.optimizer == "lbfgs":
            raise ArgumentError("[style] average is for optimizer adam or gd; lbfgs keeps its best picture")
        for name, allowed in CHOICES.items():
            if name == "memory" and isinstance(self.memory, int) and not isinstance(self.memory, bool):
                _whole("memory", self.memory, 1, 2**50)
            elif getattr(self, name) not in get_args(allowed):
                more = ", or a number of bytes" if name == "memory" else ""
                raise ArgumentError(
                    f"[style] expects {name} to be one of {', '.join(get_args(allowed))}{more}, "
                    f"got {getattr(self, name)!r}"
                )
        self.content_shares, self.style_shares  # noqa: B018 - checked here, used later

    def levels(self, shape: tuple[int, ...] = (1, 1), least: int = 1) -> list[Level]:
        """The sizes that a run passes through, from the smallest up, and the steps of each.

        The sizes are `start_size` times powers of √2, whatever the last one is: a preview at 256 px is a stage of the
        picture at 1024 px. One closer than a fifth to `size` is left out, and so is one whose shorter side, for a
        picture of `shape`, would have fewer than `least` pixels. Each size has 0.65 times the steps of the one before.

        >>> [(level.size, level.steps) for level in Settings(size=1024, steps=100).levels()]
        [(256, 100), (362, 65), (512, 43), (724, 28), (1024, 18)]
        """
        sizes, proportion = [], min(shape[:2]) / max(shape[:2])
        for i in range(2 * int(math.log2(LARGEST))):
            size = round(self.start_size * GROWTH**i)
            if size * 1.2 > self.size:
                break
            if size * proportion >= least:
                sizes.append(size)
        return [Level(size, math.ceil(self.steps * FEWER**i)) for i, size in enumerate([*sizes, self.size])]

    @property
    def content_shares(self) -> dict[str, float]:
        """Content layers with weights that sum to 1."""
        return _shares("content_layers", self.content_layers)

    @property
    def style_shares(self) -> dict[str, float]:
        """Style layers with weights that sum to 1."""
        return _shares("style_layers", self.style_layers)

    def blend_shares(self, styles: int) -> list[float]:
        """One weight a style, summing to 1."""
        parts = [1.0] * styles if self.blend is None else _listed("blend", self.blend)
        if len(parts) != styles:
            raise ArgumentError(f"[style] expects one blend weight a style, got {len(parts)} for {styles} styles")
        return list(_normalised("blend", dict(enumerate(parts))).values())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all options."""
        return tuple(f.name for f in fields(cls))


CHOICES: dict[str, Any] = {
    "init": Init, "optimizer": OptimizerName, "pooling": Pooling, "memory": Memory, "colors": Colors,
}  # fmt: skip


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise ArgumentError(f"[style] expects {name} as a whole number from {least} to {most}, got {value!r}")


def check_weight(name: str, value: Any) -> None:
    if isinstance(value, bool) or not (isinstance(value, REAL) and 0 <= value <= LARGEST_WEIGHT):
        raise ArgumentError(f"[style] expects {name} as a number from 0 to {LARGEST_WEIGHT:g}, got {value!r}")


def _between(name: str, value: Any, least: float, most: float) -> None:
    if isinstance(value, bool) or not (isinstance(value, REAL) and least <= value <= most):
        raise ArgumentError(f"[style] expects {name} as a number from {least:g} to {most:g}, got {value!r}")


def _listed(name: str, value: Any) -> list[Any]:
    """`value` as a list; `ArgumentError` for one name or number instead of several."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ArgumentError(f"[style] expects {name} as a sequence, got {value!r}")
    return list(value)


def _shares(name: str, layers: LayerWeights) -> dict[str, float]:
    names = _listed(name, layers)
    if not names or not all(isinstance(layer, str) for layer in names) or len(set(names)) != len(names):
        raise ArgumentError(f"[style] expects {name} as one or more different layer names, got {layers!r}")
    return _normalised(name, dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(names, 1.0))


def _normalised(name: str, weights: dict[Any, float]) -> dict[Any, float]:
    for key, value in weights.items():
        check_weight(f"the weight of {key} in {name}" if isinstance(key, str) else f"each weight in {name}", value)
    total = sum(weights.values())
    if total == 0:
        raise ArgumentError(f"[style] expects a weight above 0 in {name}, got only zeros")
    return {key: value / total for key, value in weights.items()}
