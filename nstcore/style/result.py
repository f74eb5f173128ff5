"""What a run gives: the costs of each step, the picture, and why it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.backend.arrays import to_host
from nstcore.style.settings import Settings

Array = NDArray[Any]


@dataclass(frozen=True)
class HistoryRow:
    """The costs of the picture that a step started from. `content`, `style` and `tv` are raw, before any weight.

    size: longer side of that picture, in pixels; costs of different sizes do not compare.
    extra: further raw costs by name: ``faces`` (squared distances of encodings), ``still`` (changes of still parts).
    """

    step: int
    seconds: float
    total: float
    content: float
    style: dict[str, float]
    tv: float
    size: int = 0
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """What a callback gets after each step: its costs, and the picture that it led to, (h, w, 3) in [0, 1]."""

    row: HistoryRow
    steps: int
    _shown: Callable[[], Array]

    @property
    def image(self) -> Array:
        """A copy of the picture, float32 (h, w, 3), clipped to [0, 1]; smaller than the result before the last size."""
        return self._shown()


@dataclass
class Result:
    """The picture, float32 (h, w, 3) in [0, 1], and how the costs went.

    stopped: why the run ended before its last step, or None: "interrupted", "settled" (`until`), "converged",
    "diverged", "stopped by an error".
    faces: with `keep_face`, how far the encoding of each face, the largest first, is from the photograph's.
    """

    image: Array
    history: list[HistoryRow] = field(default_factory=list)
    settings: Settings = field(default_factory=Settings)
    stopped: str | None = None
    faces: list[float] = field(default_factory=list)


def visible(pixels: Array) -> Array:
    """Pixels (1, h, w, 3) as a picture: float32 (h, w, 3), clipped to [0, 1], a copy."""
    shown: Array = np.clip(to_host(pixels)[0], 0.0, 1.0).astype(np.float32, copy=False)
    return shown
