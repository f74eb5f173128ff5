"""What a run will need, known before it starts; and how it fits into the memory that it may have.

The memory is counted, not measured: every array that is alive at the same time, in the order in which the network makes
and frees them, and on top of it what memory that is used again holds at most (docs/decisions/0005).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import Tensor
from nstcore.backend.memory import give_back
from nstcore.errors import ArgumentError
from nstcore.models.vgg import VGG
from nstcore.style.extra import Extra
from nstcore.style.objective import Objective, halvings, layer_size, white_noise
from nstcore.style.scene import Scene
from nstcore.style.settings import LBFGS_HISTORY, Level, Settings
from nstcore.style.tiles import cut

Array = NDArray[Any]
Shape = tuple[int, ...]

MB = 1 << 20
TILES = (2048, 1536, 1152, 768, 576, 384, 192)  # pixels, tried from the largest down
SPARE = 9 / 8  # of the network's memory: how much of what is freed may be held
WORKING = 24 * MB  # of the kernels: transformed weights and tiles
FACE_ACTIVATIONS = 8 * MB  # of the face encoder and their gradients, for one chip in float32
LBFGS_PROGRAM = 6 * MB  # SciPy's Fourier transforms
PROBE = 128  # pixels of the picture whose costs are timed
# A step's time a pixel at each size, compared with 128 pixels; measured, docs/decisions/0005.
SPEED = {128: 1.0, 256: 0.75, 512: 0.6, 1024: 0.57, 2048: 0.52}
SEARCHES = 1.08  # evaluations of a step of L-BFGS
CUTTING = 5 / 4  # of a tile's core on the largest layer: what cutting it out and putting its gradient back takes
MASKS = 3  # of the bytes of all masks: as they are, at a size, and on the layers
DECODING = 12  # bytes a pixel, while a picture is decoded and shrunk
DRIFT = 6 * MB  # of the program from one start to the next: the least that is named does on all of them
CERTAIN = 1.03  # what a limit must exceed the plan by, so that it is kept: plans were up to 3 % too low


class Held(NamedTuple):
    """What a run has in memory besides one size of the picture.

    photo, paintings: shapes at the final size. regions: how many masks choose a style. masks: bytes of all masks.
    decoded: pixels of the largest picture that is read.
    """

    photo: Shape
    paintings: tuple[Shape, ...]
    regions: int = 0
    masks: int = 0
    decoded: int = 0

    @classmethod
    def by(cls, scene: Scene) -> Held:
        """What a run of this scene has."""
        masks = sum(mask.nbytes for mask in (*scene.regions, *scene.sources) if mask is not None)
        shapes = tuple(painting.shape for painting in scene.paintings)
        return cls(scene.photo.shape, shapes, len(scene.regions), masks, scene.decoded)

    def at(self, shape: Shape) -> Iterator[Shape]:
        """The shapes of the paintings beside a picture of this shape."""
        scale = max(shape[:2]) / max(self.photo[:2])
        for height, width, *_ in self.paintings:
            yield max(1, round(height * scale)), max(1, round(width * scale)), 3


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


def choose(network: VGG, settings: Settings, shape: Shape, held: Held, program: int) -> Way:
    """The fastest way within ``settings.memory`` bytes, for a picture of `shape` on the way to the final one.

    program: bytes that the process has without the pictures, see `resident`.

    Raises `ArgumentError`, naming the least that would do, when there is none.
    """
    if isinstance(settings.memory, str):
        return Way(low=settings.memory == "low" and not held.regions)
    needs = {}
    for way in ways():
        if way.low and held.regions:  # their masked copies are kept instead
            continue
        needs[way] = sum(parts(network, settings, way, shape, held, program).values())
        if needs[way] * CERTAIN <= settings.memory:
            return way
    least = int(min(needs.values()) * CERTAIN) + DRIFT
    hint = "" if settings.optimizer != "lbfgs" else "; --optimizer adam needs less"
    raise ArgumentError(
        f"[style] {shape[1]}x{shape[0]} pixels need at least {-(-least // MB)}M of memory, "
        f"got {settings.memory // MB}M{hint}"
    )


def parts(network: VGG, settings: Settings, way: Way, shape: Shape, held: Held, program: int) -> dict[str, int]:
    """Bytes at the peak of a run at `shape`, by what they are for."""
    item, final = network.dtype.itemsize, held.photo
    seen = network_bytes(network, settings, way, shape, held) + WORKING
    if settings.keep_face:  # after the other network, in the same memory
        seen = max(seen, FACE_ACTIVATIONS * item // 4 + WORKING)
    pixels, channels = shape[0] * shape[1], 3
    pictures = 4 * channels * (final[0] * final[1] + sum(a[0] * a[1] for a in held.paintings))
    if tuple(shape[:2]) != tuple(final[:2]):
        scale = pixels / (final[0] * final[1])
        pictures += int(scale * pictures)
    pictures += MASKS * held.masks
    state = 2 + {"adam": 4, "gd": 2, "lbfgs": 2 * LBFGS_HISTORY + 10}[settings.optimizer]
    state += (settings.average > 0) + 2 * (settings.tv_weight > 0)
    content = 0
    if settings.content_weight and way.keep_content:
        for name in settings.content_shares:
            content += item * _channels(network, name) * pixels // 4 ** halvings(name)
    counted = {
        "program": program + LBFGS_PROGRAM * (settings.optimizer == "lbfgs"),
        "photograph and paintings": pictures,
        "picture and optimiser": item * channels * pixels * state,
        "content target": content,
        "network": seen,
    }
    # What comes before the first step has neither the optimiser's state nor the costs of the picture beside it.
    reading = counted["program"] + DECODING * held.decoded
    painting = _painting_bytes(network, settings, way, shape, held)
    styles = sum(counted.values()) - counted["network"] - counted["picture and optimiser"] + painting + WORKING
    before = {"more while the largest picture is read": reading, "more while the paintings are looked at": styles}
    name = max(before, key=lambda key: before[key])
    more = before[name] - sum(counted.values())
    return {**counted, name: more} if more > 0 else counted


def network_bytes(network: VGG, settings: Settings, way: Way, shape: Shape, held: Held) -> int:
    """The most that activations and their gradients take at once, while the costs of a picture are computed."""
    style, wanted = _wanted(settings)
    tiled, cutting = way.tile is not None, 0
    if way.tile is not None:
        parts_seen = cut(network, [*wanted], shape, way.tile)[1]
        shape = max((part.seen for part in parts_seen), key=math.prod)
        core = max((part.core for part in parts_seen), key=math.prod)
        cutting = int(CUTTING * max(_bytes(network, name, core) for name in wanted))
    most, kept, bits, flow = 0, 0, 0, []
    for name, below, out in _layers(network, wanted, shape):
        if name in network.convolutions:
            bits += _bytes(network, name, shape) // (8 * network.dtype.itemsize)
        flow.append((name, below, out, kept, bits))
        most = max(most, kept + bits + below + out)
        if name in style and held.regions:
            kept += out * held.regions
        elif name in wanted and not (name == "conv1_1" and way.low and not tiled):
            kept += out
    for name, below, out, before, bits in flow:  # the way back: what lies below is still there
        extra = out if (tiled or held.regions) and name in wanted else 0
        if way.low and not tiled and name == "conv1_1":
            extra = out  # computed again
        most = max(most, before + bits + below + out + extra)
    # The layer that is computed again fits exactly where it was before: measured, nothing is held beside it. And what
    # average pooling frees is as large as what it takes.
    exact = (way.low and not tiled) or network.pooling == "avg"
    return int(most if exact else SPARE * most) + cutting


def _painting_bytes(network: VGG, settings: Settings, way: Way, shape: Shape, held: Held) -> int:
    """The most that the forward pass over a painting takes: a layer and the one below."""
    most, style = 0, _wanted(settings)[0]
    for painting in held.at(shape) if style else ():
        seen = painting
        if way.tile is not None:
            seen = max((part.seen for part in cut(network, [*style], painting, way.tile)[1]), key=math.prod)
        for name, below, out in _layers(network, style, seen):
            cut_out = out if way.tile is not None and name in style else 0
            most = max(most, below + out, out + cut_out)
    return most


def _wanted(settings: Settings) -> tuple[set[str], set[str]]:
    """The layers of the style, and all that are looked at."""
    style = set(settings.style_shares) if settings.style_weight else set()
    return style, style | (set(settings.content_shares) if settings.content_weight else set())


def _layers(network: VGG, wanted: set[str], shape: Shape) -> Iterator[tuple[str, int, int]]:
    """Each layer that is written on the way up to the highest of `wanted`, with the bytes below it and its own."""
    below = _bytes(network, "conv1_1", shape) * 3 // _channels(network, "conv1_1")
    names = network.layers[: max(network.layers.index(name) for name in wanted) + 1]
    for i, name in enumerate(names):
        if name.startswith("pool") and network.pooling == "max" and names[i - 1] not in wanted:
            continue  # made by the convolution before it
        fused = name in network.convolutions and names[i + 1 : i + 2] == [f"pool{name[4]}"] and name not in wanted
        out = _bytes(network, names[i + 1] if fused and network.pooling == "max" else name, shape)
        yield name, below, out
        below = out


def predict(
    network: VGG,
    settings: Settings,
    held: Held,
    levels: list[Level],
    extra: Extra | None = None,
) -> Plan:
    """What a run with these pictures will need; times a small picture, and one more cost, to know the processor."""
    shape, program = held.photo, resident()
    way = choose(network, settings, shape, held, program)
    counted = parts(network, settings, way, shape, held, program)
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


def resident() -> int:
    """Bytes that the process has in memory now, without those that a run uses again."""
    give_back()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # not Linux: the interpreter, NumPy and the weights, about
        return 130 * MB
