"""What a run will need, known before it starts; and how it fits into the memory that it may have.

The memory is counted, not measured: every array that is alive at the same time, in the order in which the network makes
and frees them, and on top of it what memory that is used again holds at most (docs/decisions/0005).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor
from nstcore.errors import ArgumentError
from nstcore.models.vgg import VGG
from nstcore.style.extra import Extra
from nstcore.style.objective import Objective, halvings, layer_size, white_noise
from nstcore.style.settings import Level, Settings
from nstcore.style.tiles import cut

Array = NDArray[Any]
Shape = tuple[int, ...]

MB = 1 << 20
TILES = (2048, 1536, 1152, 768, 576, 384, 192)  # pixels, tried from the largest down
SPARE = 9 / 8  # of the network's memory: how much of what is freed may be held
WORKING = 24 * MB  # of the kernels: transformed weights and tiles
FACE_ACTIVATIONS = 8 * MB  # of the face encoder and their gradients, for one chip in float32
LBFGS_HISTORY = 10
LBFGS_PROGRAM = 6 * MB  # SciPy's Fourier transforms
PROBE = 128  # pixels of the picture whose costs are timed
# A step's time a pixel at each size, compared with 128 pixels; measured, docs/decisions/0005.
SPEED = {128: 1.0, 256: 0.75, 512: 0.6, 1024: 0.57, 2048: 0.52}
SEARCHES = 1.08  # evaluations of a step of L-BFGS
CUTTING = 5 / 4  # of a tile's core on the largest layer: what cutting it out and putting its gradient back takes
CERTAIN = 1.03  # what a limit must exceed the plan by, so that it is kept: plans were up to 3 % too low


class Way(NamedTuple):
    """How the costs of a picture are computed: whole, the first layer twice (`low`), or in tiles."""

    low: bool = False
    tile: int | None = None
    keep_content: bool = True

    def __str__(self) -> str:
        if self.tile is None:
            return "first layer computed twice" if self.low else "whole"
        kept = "kept" if self.keep_content else "computed again in every step"
        return f"in tiles of {self.tile} px, content target {kept}"


@dataclass(frozen=True)
class Plan:
    """peak: bytes of the whole process at its largest; parts: what they are for; seconds: of the whole run."""

    levels: list[Level]
    way: Way
    peak: int
    parts: dict[str, int]
    seconds: float

    def lines(self) -> list[str]:
        """The plan for a person."""
        sizes = ", ".join(f"{level.steps} at {level.size} px" for level in self.levels)
        parts = ", ".join(f"{name} {round(size / MB)} MB" for name, size in self.parts.items())
        return [
            f"steps: {sizes}",
            f"the network sees the picture: {self.way}",
            f"peak memory: about {round(self.peak / MB)} MB ({parts})",
            f"time: about {self.seconds:.0f} s with the processor to itself",
        ]


def ways() -> Iterator[Way]:
    """All ways, from the fastest to the one that needs least memory."""
    yield Way()
    yield Way(low=True)
    for keep in (True, False):
        for tile in TILES:
            yield Way(tile=tile, keep_content=keep)


def choose(network: VGG, settings: Settings, shape: Shape, final: Shape, paintings: Sequence[Shape]) -> Way:
    """The fastest way within ``settings.memory`` bytes, for a picture of `shape` on the way to `final`.

    Raises `ArgumentError`, naming the least that would do, when there is none.
    """
    if not isinstance(settings.memory, int):
        return Way(low=settings.memory == "low")
    needs = {}
    for way in ways():
        needs[way] = sum(parts(network, settings, way, shape, final, paintings).values())
        if needs[way] * CERTAIN <= settings.memory:
            return way
    least = int(min(needs.values()) * CERTAIN)
    hint = "" if settings.optimizer != "lbfgs" else "; --optimizer adam needs less"
    raise ArgumentError(
        f"[style] {shape[1]}x{shape[0]} pixels need at least {-(-least // MB)}M of memory, "
        f"got {settings.memory // MB}M{hint}"
    )


def parts(
    network: VGG, settings: Settings, way: Way, shape: Shape, final: Shape, paintings: Sequence[Shape]
) -> dict[str, int]:
    """Bytes at the peak of a run at `shape`, by what they are for; `paintings` are the shapes at the final size."""
    item = network.dtype.itemsize
    seen = network_bytes(network, settings, way, shape) + WORKING
    if settings.keep_face:  # after the other network, in the same memory
        seen = max(seen, FACE_ACTIVATIONS * item // 4 + WORKING)
    pixels, channels = shape[0] * shape[1], 3
    pictures = 4 * channels * (final[0] * final[1] + sum(a[0] * a[1] for a in paintings))
    if tuple(shape[:2]) != tuple(final[:2]):
        scale = pixels / (final[0] * final[1])
        pictures += int(scale * pictures)
    state = 2 + {"adam": 4, "gd": 2, "lbfgs": 2 * LBFGS_HISTORY + 10}[settings.optimizer]
    state += (settings.average > 0) + 2 * (settings.tv_weight > 0)
    content = 0
    if settings.content_weight and way.keep_content:
        for name in settings.content_shares:
            content += item * _channels(network, name) * pixels // 4 ** halvings(name)
    return {
        "program": _resident() + LBFGS_PROGRAM * (settings.optimizer == "lbfgs"),
        "photograph and paintings": pictures,
        "picture and optimiser": item * channels * pixels * state,
        "content target": content,
        "network": seen,
    }


def network_bytes(network: VGG, settings: Settings, way: Way, shape: Shape) -> int:
    """The most that activations and their gradients take at once, while the costs of a picture are computed."""
    style = set(settings.style_shares) if settings.style_weight else set()
    wanted = style | (set(settings.content_shares) if settings.content_weight else set())
    tiled, cutting = way.tile is not None, 0
    if way.tile is not None:
        parts_seen = cut(network, [*wanted], shape, way.tile)[1]
        shape = max((part.seen for part in parts_seen), key=math.prod)
        core = max((part.core for part in parts_seen), key=math.prod)
        cutting = int(CUTTING * max(_bytes(network, name, core) for name in wanted))
    most, kept, bits, flow = 0, 0, 0, []
    below = _bytes(network, "conv1_1", shape) * 3 // _channels(network, "conv1_1")
    names = network.layers[: max(network.layers.index(name) for name in wanted) + 1]
    for i, name in enumerate(names):
        if name.startswith("pool") and network.pooling == "max" and names[i - 1] not in wanted:
            continue  # made by the convolution before it
        fused = name in network.convolutions and names[i + 1 : i + 2] == [f"pool{name[4]}"] and name not in wanted
        out = _bytes(network, names[i + 1] if fused and network.pooling == "max" else name, shape)
        if name in network.convolutions:
            bits += _bytes(network, name, shape) // (8 * network.dtype.itemsize)
        flow.append((name, below, out, kept, bits))
        most = max(most, kept + bits + below + out)
        if name in wanted and not (name == "conv1_1" and way.low and not tiled):
            kept += out
        below = out
    for name, below, out, before, bits in flow:  # the way back: what lies below is still there
        extra = out if tiled and name in wanted else 0
        if way.low and not tiled and name == "conv1_1":
            extra = out  # computed again
        most = max(most, before + bits + below + out + extra)
    # The layer that is computed again fits exactly where it was before: measured, nothing is held beside it.
    return most if way.low and not tiled else int(SPARE * most) + cutting


def predict(
    network: VGG,
    settings: Settings,
    shape: Shape,
    paintings: Sequence[Shape],
    levels: list[Level],
    extra: Extra | None = None,
) -> Plan:
    """What a run with these pictures will need; times a small picture, and one more cost, to know the processor."""
    way = choose(network, settings, shape, shape, paintings)
    counted = parts(network, settings, way, shape, shape, paintings)
    seconds = _seconds(network, settings, shape, levels, way)
    if extra is not None:
        evaluations = sum(level.steps for level in levels) * (SEARCHES if settings.optimizer == "lbfgs" else 1)
        seconds += evaluations * _seconds_of(extra, white_noise((1, *shape[:2], 3), 0).astype(network.dtype))
    return Plan(levels, way, sum(counted.values()), counted, seconds)


def _seconds(network: VGG, settings: Settings, shape: Shape, levels: list[Level], way: Way) -> float:
    scale = max(shape[:2])
    small = (max(32, round(PROBE * shape[0] / scale)), max(32, round(PROBE * shape[1] / scale)), 3)
    photo, times = white_noise(small, 0), []
    objective = Objective(network, photo, [photo], Settings())
    for _ in range(3):
        picture = Tensor(photo[None].astype(network.dtype), requires_grad=True)
        began = time.perf_counter()
        objective.evaluate(picture)
        times.append(time.perf_counter() - began)
    total = 0.0
    for level in levels:
        speed = float(np.interp(np.log2(level.size), np.log2(list(SPEED)), list(SPEED.values())))
        once = min(times) * speed * (level.size / PROBE) ** 2
        if way.tile is not None and level.size > way.tile:
            whole = (round(shape[0] * level.size / scale), round(shape[1] * level.size / scale))
            parts_seen = cut(network, [*settings.content_shares, *settings.style_shares], whole, way.tile)[1]
            seen = sum(math.prod(t.seen) for t in parts_seen) / (whole[0] * whole[1])
            once *= seen * (4 / 3 if way.keep_content else 5 / 3)  # forward passes besides the one with a way back
        total += once * level.steps * (SEARCHES if settings.optimizer == "lbfgs" else 1)
    return total


def _seconds_of(extra: Extra, pixels: Array) -> float:
    """Of one evaluation with its gradient, at the final size: at a smaller one fewer faces may count."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        extra.add(pixels, np.zeros_like(pixels))
        times.append(time.perf_counter() - began)
    return min(times)


def _channels(network: VGG, name: str) -> int:
    if name.startswith("pool"):
        name = max(n for n in network.convolutions if n.startswith(f"conv{name[4]}_"))
    return int(network.convolutions[name].weight.shape[0])


def _bytes(network: VGG, name: str, shape: Shape) -> int:
    height, width = layer_size(name, shape)
    return network.dtype.itemsize * _channels(network, name) * height * width


def _resident() -> int:
    """Bytes that the process has in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # not Linux: the interpreter, NumPy and the weights, about
        return 130 * MB
