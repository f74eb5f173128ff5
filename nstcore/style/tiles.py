"""The same costs and the same gradient in less memory: the network sees one tile of the picture at a time.

A style's Gram matrix belongs to the whole picture, so there are two passes: the first adds up the Gram matrices over
all tiles; with them, the gradient of each layer's place depends on that place alone, and the second pass adds up the
gradients of the pixels. Each place of a layer belongs to the core of exactly one tile, and a tile is seen with a halo
as wide as the layers' receptive fields: what is computed for the places of its core is what the whole picture gives.

Rounding matters too: of two nearly equal values under a max pool, a difference in the last bit chooses another one, and
sends the gradient elsewhere. So tiles begin where the windows of pools and the tiles of Winograd convolutions begin in
the whole picture, and the convolutions use the algorithms that they would use there.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.autograd import Tensor
from nstcore.errors import ArgumentError
from nstcore.models.vgg import VGG
from nstcore.nn.layers import Conv2d
from nstcore.ops.conv import Algorithm, _winograd_edge
from nstcore.style.losses import content_loss, total_variation
from nstcore.style.objective import Objective, Terms, Texture, halvings, layer_mask, layer_size, squares
from nstcore.style.settings import Settings

Array = NDArray[Any]

GRID = 64  # pixels; what tiles and halos are multiples of


@dataclass(frozen=True)
class Span:
    """One tile along one axis: its core, and the core with its halo, in pixels."""

    core: tuple[int, int]
    seen: tuple[int, int]

    @property
    def length(self) -> int:
        """Pixels that are seen."""
        return self.seen[1] - self.seen[0]

    def places(self, name: str) -> tuple[slice, slice]:
        """The core's places on layer `name`: within the layer of what is seen, and of the whole picture."""
        shift = halvings(name)
        first, last = self.core[0] >> shift, self.core[1] >> shift
        offset = self.seen[0] >> shift
        return slice(first - offset, last - offset), slice(first, last)


@dataclass(frozen=True)
class Tile:
    """A part of the picture that the network sees at once."""

    rows: Span
    columns: Span

    def cut(self, picture: Array) -> Array:
        """What is seen of a picture (1, h, w, 3), a copy."""
        rows, columns = self.window
        part: Array = picture[:, rows, columns].copy()
        return part

    @property
    def core(self) -> tuple[int, int]:
        """Height and width of the core in pixels."""
        return self.rows.core[1] - self.rows.core[0], self.columns.core[1] - self.columns.core[0]

    @property
    def seen(self) -> tuple[int, int]:
        """Height and width of what is seen, in pixels."""
        return self.rows.length, self.columns.length

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns that are seen."""
        return slice(*self.rows.seen), slice(*self.columns.seen)

    def inside(self, name: str) -> tuple[slice, slice, slice]:
        """The core in a layer (1, h', w', c) of what is seen."""
        return slice(None), self.rows.places(name)[0], self.columns.places(name)[0]

    def outside(self, name: str) -> tuple[slice, slice, slice]:
        """The core in a layer (1, h', w', c) of the whole picture."""
        return slice(None), self.rows.places(name)[1], self.columns.places(name)[1]

    def is_empty(self, name: str) -> bool:
        """Whether no place of the layer belongs to the core: a layer may be shorter than the picture's last tile."""
        _, rows, columns = self.outside(name)
        return bool(rows.start >= rows.stop or columns.start >= columns.stop)


class _Fixed(Conv2d):
    """A convolution with the weights of another one, by a given algorithm."""

    def __init__(self, layer: Conv2d, algorithm: Algorithm) -> None:
        self.__dict__.update(layer.__dict__)
        self.algorithm = algorithm

    def forward(self, x: Any, pool: bool = False) -> Any:
        """As `Conv2d.forward`."""
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.activation, self.algorithm, pool)


def _edges(net: VGG, layers: Sequence[str], shape: tuple[int, ...]) -> dict[str, int]:
    """Side of the Winograd tiles of each convolution up to `layers`, for a whole picture; 0 for the direct sum."""
    top = max((net.layers.index(name) for name in layers), default=-1)
    edges = {}
    for name in net.layers[: top + 1]:
        if name in net.convolutions:
            filters, r, s, channels = net.convolutions[name].weight.shape
            height, width = layer_size(name, shape)
            sizes = {"n": 1, "h": height, "w": width, "c": channels, "k": filters, "r": r, "s": s}
            edges[name] = _winograd_edge("auto", sizes, (1, 1), (1, 1), (1, 1))
    return edges


def as_whole(net: VGG, edges: Mapping[str, int]) -> VGG:
    """The network with the algorithms that it would use for the whole picture, whatever it is shown."""
    algorithms: dict[int, Algorithm] = {0: "direct", 4: "winograd4", 6: "winograd6"}
    fixed = copy.copy(net)
    fixed.convolutions = {
        name: _Fixed(layer, algorithms[edges[name]]) if name in edges else layer
        for name, layer in net.convolutions.items()
    }
    return fixed


def grid(edges: Mapping[str, int]) -> int:
    """Pixels of which tiles begin at a multiple, so that all windows and Winograd tiles begin where they would."""
    return math.lcm(GRID, *(max(edge, 1) << halvings(name) for name, edge in edges.items()))


def halo(net: VGG, layers: Sequence[str]) -> int:
    """Pixels that the places of `layers` look at beyond their own, up to the next multiple of 64.

    >>> from nstcore.models import vgg16
    >>> halo(vgg16(), ["conv1_1"]), halo(vgg16(), ["conv5_1"])
    (64, 64)
    """
    most = 0
    for top in layers:
        reach = 0
        for name in reversed(net.layers[: net.layers.index(top) + 1]):
            reach = 2 * reach if name.startswith("pool") else reach + 1
        most = max(most, reach)
    return -(-most // GRID) * GRID


def tiles(shape: tuple[int, ...], side: int, margin: int, step: int = GRID) -> list[Tile]:
    """Cores of about `side` pixels or less each way that cover a picture of this shape, and what is seen of it.

    Cores and what is seen begin at multiples of `step` pixels; what is seen reaches `margin` pixels further at least.
    """
    if side < 1:
        raise ArgumentError(f"[style] expects tiles of at least 1 pixel, got {side}")
    spans = []
    for length in shape[:2]:
        count = -(-length // max(side, step))
        cuts = sorted({0, length, *(round(i * length / count / step) * step for i in range(1, count))})
        cuts = [cut for cut in cuts if cut <= length]
        spans.append(
            [
                Span((a, b), (max(0, a - margin) // step * step, min(length, b + margin)))
                for a, b in itertools.pairwise(cuts)
            ]
        )
    return [Tile(rows, columns) for rows in spans[0] for columns in spans[1]]


def cut(net: VGG, layers: Sequence[str], shape: tuple[int, ...], side: int) -> tuple[VGG, list[Tile]]:
    """The tiles of a picture of this shape, and the network that computes `layers` on them as on the whole."""
    edges = _edges(net, layers, shape)
    return as_whole(net, edges), tiles(shape, side, halo(net, layers), grid(edges))


class TiledObjective(Objective):
    """`Objective`, tile by tile.

    tile: about the side of the cores in pixels. keep_content: hold the content layers of the photograph (32
    bytes a pixel for conv4_2), else compute each tile's again in every evaluation, from the photograph.
    """

    def __init__(
        self,
        net: VGG,
        content: Array,
        styles: Sequence[Array],
        settings: Settings,
        regions: Sequence[Array] = (),
        sources: Sequence[Array | None] = (),
        tile: int = 512,
        keep_content: bool = True,
    ) -> None:
        self._tile, self._photo, self._shape = tile, content[None], content.shape
        self._keep_content = keep_content
        self._wanted = [*settings.content_shares, *settings.style_shares]
        net, self._tiles = cut(net, self._wanted, content.shape, tile)
        super().__init__(net, content, styles, settings, regions, sources)

    def _content_targets(self, content: Array) -> Any:
        """The content layers of each tile's core, or nothing, to be computed when they are needed."""
        return [self._targets_of(tile) for tile in self._tiles] if self._keep_content else None

    def _targets_of(self, tile: Tile) -> dict[str, Array]:
        found = self.net.walk(tile.cut(self._photo), list(self._content))
        return {name: a.data[tile.inside(name)].copy() for name, a in found}

    def _mean_grams(self, style: Array, source: Array | None) -> Iterator[tuple[str, Array]]:
        """As the whole painting gives them, which is larger than a tile too."""
        masks = None if source is None else {name: layer_mask(source, name) for name in self._style}
        net, parts = cut(self.net, self._wanted, style.shape, self._tile)
        (sums,) = self._gram_sums(style[None], net, parts, [Texture({}, masks)])
        for name in self._style:
            height, width = style.shape[0] >> halvings(name), style.shape[1] >> halvings(name)
            area = float(height * width)
            if masks is not None:
                area = squares(masks[name])
            yield name, sums[name] / area

    def _gram_sums(
        self, picture: Array, net: VGG, parts: Sequence[Tile], textures: Sequence[Texture]
    ) -> list[dict[str, Array]]:
        """The Gram matrices of the whole picture under each texture's masks, float64."""
        sums: list[dict[str, Array]] = [{} for _ in textures]
        for tile in parts:
            for name, a in net.walk(Tensor(tile.cut(picture).astype(net.dtype, copy=False)), list(self._style)):
                if tile.is_empty(name):
                    continue
                core = a.data[tile.inside(name)]
                core = core if core.shape == a.shape else core.copy()
                del a  # or the layer would live through the next ones
                for found, texture in zip(sums, textures, strict=True):
                    masks = texture.masks
                    seen = core if masks is None else ops.mul(core, masks[name][tile.outside(name)].astype(core.dtype))
                    part = ops.gram(seen).astype(np.float64)
                    found[name] = found[name] + part if name in found else part
                    del seen
                del core
        return sums

    def evaluate(self, picture: Tensor) -> Terms:
        """Costs of `picture` (1, h, w, 3), with the gradient of the total added to ``picture.grad``."""
        style, slopes = self._style_costs(picture.data)
        grad = np.zeros_like(picture.data)
        content = 0.0
        for i, tile in enumerate(self._tiles):
            content += self._tile_back(tile, i, picture.data, slopes, grad)
        total = sum(cost * self.settings.style_weight * self._style[name] for name, cost in style.items())
        total += self._weighted_content
        variation = self._variation(picture, grad)
        total += variation * self.settings.tv_weight / picture.size
        if picture.requires_grad:
            picture.grad = grad if picture.grad is None else picture.grad + grad
        return Terms(float(np.asarray(total).astype(self.net.dtype)), content, style, variation)

    def _style_costs(self, picture: Array) -> tuple[dict[str, float], list[dict[str, Array]]]:
        """First pass: each layer's cost, and the slope of J along each texture's Gram matrices."""
        costs, slopes = dict.fromkeys(self._style, 0.0), []
        sums = self._gram_sums(picture, self.net, self._tiles, self.textures)
        for texture, found in zip(self.textures, sums, strict=True):
            slope = {}
            for name, gram in found.items():
                places = (self._shape[0] >> halvings(name)) * (self._shape[1] >> halvings(name))
                scale, strength = 1 / (2.0 * places * gram.shape[-1]), texture.strength(name)
                difference = (gram - texture.grams[name]) * scale
                costs[name] += strength * float(np.sum(difference * difference))
                weight = strength * self.settings.style_weight * self._style[name]
                slope[name] = (2 * scale * weight * difference).astype(self.net.dtype)
            slopes.append(slope)
        return costs, slopes

    def _tile_back(self, tile: Tile, index: int, picture: Array, slopes: list[dict[str, Array]], grad: Array) -> float:
        """Second pass: add one tile's part of the gradient to `grad`; gives its part of the content cost."""
        targets: dict[str, Array] = {}
        if self._content:
            targets = self._activations[index] if self._keep_content else self._targets_of(tile)
        if index == 0:
            self._weighted_content = 0.0
        x = Tensor(tile.cut(picture), requires_grad=True)
        total: Any = 0.0
        content = 0.0
        for name, a in self.net.walk(x, [*{**self._content, **self._style}]):
            if tile.is_empty(name):
                continue
            core = a[tile.inside(name)]
            if name in self._content:
                cost, share = content_loss(core, targets[name]), self._content[name]
                places = (self._shape[0] >> halvings(name)) * (self._shape[1] >> halvings(name))
                weight = self.settings.content_weight * share / (places * a.shape[3])
                content += share * cost.item()
                self._weighted_content += weight * cost.item()
                total = total + cost * weight
            for texture, slope in zip(self.textures if name in self._style else (), slopes, strict=False):
                seen = core
                if texture.masks is not None:
                    seen = ops.mul(core, texture.masks[name][tile.outside(name)])
                total = total + (ops.gram(seen) * slope[name]).sum()
            del a, core
        if isinstance(total, Tensor):
            total.backward()
            rows, columns = tile.window
            grad[:, rows, columns] += x.grad
        return content

    def _variation(self, picture: Tensor, grad: Array) -> float:
        """Total variation, of the whole picture at once: it needs no network."""
        if not self.settings.tv_weight:
            return float(total_variation(picture.detach()).item())
        x = Tensor(picture.data, requires_grad=True)
        cost = total_variation(x)
        (cost * (self.settings.tv_weight / picture.size)).backward()
        grad += x.grad
        return float(cost.item())
