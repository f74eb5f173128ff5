"""J = α J_content + β J_style + γ TV as a function of the picture's pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.autograd import Tensor
from nstcore.backend import current_backend, moved
from nstcore.models.vgg import VGG
from nstcore.style.losses import content_loss, style_loss, total_variation
from nstcore.style.settings import Settings

Array = NDArray[Any]

FIRST = "conv1_1"


@dataclass(frozen=True)
class Terms:
    """One evaluation: the weighted total, and the course's raw costs that went into it."""

    total: float
    content: float  # Σ over content layers of share · ½ Σ (a − target)²
    style: dict[str, float]  # by layer, 1 / (2 h w c)² Σ (G − target)²
    variation: float  # Σ of squared differences of neighbours
    extra: dict[str, float] = field(default_factory=dict)  # by name, see `nstcore.style.extra`


@dataclass(frozen=True)
class Texture:
    """The style of one region: target Gram matrices by layer, and the region's mask on each of them.

    Without a mask, it is the style of the whole picture.
    """

    grams: dict[str, Array]  # (1, c, c)
    masks: dict[str, Array] | None = None  # (1, h, w, 1) in [0, 1]
    strengths: dict[str, float] | None = None  # what J_style under the mask is multiplied by

    @classmethod
    def under(cls, grams: dict[str, Array], masks: dict[str, Array], weight: float) -> Texture:
        """One under masks of the host, as strong for each masked pixel as without: the cost falls with Σ mask²."""
        strengths = {name: weight * mask.size / squares(mask) for name, mask in masks.items()}
        return cls(grams, {name: moved(mask, current_backend()) for name, mask in masks.items()}, strengths)

    def cost(self, name: str, a: Tensor) -> Tensor:
        """J_style of a layer: with a mask, of the masked activations, and as strong for each pixel as without."""
        if self.masks is None:
            whole: Tensor = style_loss(a, self.grams[name])
            return whole
        part: Tensor = style_loss(ops.mul(a, self.masks[name]), self.grams[name]) * self.strength(name)
        return part

    def strength(self, name: str) -> float:
        """What J_style under the mask, which falls with the square of the masked part of the area, is multiplied by."""
        return 1.0 if self.strengths is None else self.strengths[name]


def squares(mask: Array) -> float:
    """Σ mask², the pixels that count."""
    return float(np.sum(np.square(mask, dtype=np.float64)))


class Objective:
    """The costs of a picture against one content image and one or several styles.

    A content layer's cost is divided by its h·w·c, and a style's Gram matrix is scaled by the ratio of the two
    pictures' areas on that layer: both weights then mean the same at every size. Several styles are one target, the
    blend of their Gram matrices: Σ λ_b (G − G_b)² differs from (G − Σ λ_b G_b)² by a constant only.

    regions: masks (h, w), one a style: each style where its mask is bright, by guided Gram matrices, Σ m² a aᵀ over
    Σ m². sources: masks of the styles themselves, or None for all of one.
    Source of regions: Gatys et al., "Controlling Perceptual Factors in Neural Style Transfer", CVPR 2017, equation 4.
    """

    def __init__(
        self,
        net: VGG,
        content: Array,
        styles: Sequence[Array],
        settings: Settings,
        regions: Sequence[Array] = (),
        sources: Sequence[Array | None] = (),
    ) -> None:
        self.net, self.settings = net, settings
        self._content = settings.content_shares if settings.content_weight else {}
        self._style = settings.style_shares if settings.style_weight else {}
        self._activations = self._content_targets(content)
        each = list(zip(styles, sources or [None] * len(styles), strict=True))
        if regions:
            self.textures = self._by_region(regions, each)
        else:
            self.textures = [Texture(self._blended_grams(content.shape, each))]

    def _content_targets(self, content: Array) -> Any:
        """The content layers of the photograph."""
        return self.net.features(content[None], list(self._content))

    def _blended_grams(self, shape: tuple[int, ...], styles: Sequence[tuple[Array, Array | None]]) -> dict[str, Array]:
        """Target Gram matrix of each style layer, for a picture of this shape."""
        blended: dict[str, Array] = {}
        for share, style in zip(self.settings.blend_shares(len(styles)), styles, strict=True):
            for name, mean in self._mean_grams(*style):
                height, width = layer_size(name, shape)
                scaled = mean * (share * height * width)
                blended[name] = blended[name] + scaled if name in blended else scaled
        return {name: gram.astype(self.net.dtype, copy=False) for name, gram in blended.items()}

    def _by_region(self, regions: Sequence[Array], styles: Sequence[tuple[Array, Array | None]]) -> list[Texture]:
        """One texture a region; `blend` says how strong each is."""
        found = []
        for share, region, style in zip(self.settings.blend_shares(len(styles)), regions, styles, strict=True):
            masks = {name: layer_mask(region, name).astype(self.net.dtype) for name in self._style}
            grams = {
                name: (mean * squares(masks[name])).astype(self.net.dtype) for name, mean in self._mean_grams(*style)
            }
            found.append(Texture.under(grams, masks, share * len(styles)))
        return found

    def _mean_grams(self, style: Array, source: Array | None) -> Iterator[tuple[str, Array]]:
        """Gram matrix a pixel, of each style layer of a painting."""
        for name, features in self.net.walk(style[None], list(self._style)):
            a = features.data
            area = float(a.shape[1] * a.shape[2])
            if source is not None:
                mask = layer_mask(source, name).astype(a.dtype)
                a, area = ops.mul(a, mask), squares(mask)
            mean = ops.gram(a) * (1.0 / area)
            del features, a  # or the layer would live through the next ones
            yield name, mean

    def evaluate(self, picture: Tensor) -> Terms:
        """Costs of `picture` (1, h, w, 3), with the gradient of the total added to ``picture.grad``."""
        total, content, style, variation = self._costs(picture)
        if total.requires_grad:
            total.backward()
        # A device has been given all of its work before it is waited for.
        summed = {name: sum(map(float, costs)) for name, costs in style.items()}
        return Terms(total.item(), sum(share * float(cost) for share, cost in content), summed, float(variation))

    def _costs(self, picture: Tensor) -> tuple[Tensor, list[tuple[float, Array]], dict[str, list[Array]], Array]:
        """The total, and the raw costs as arrays without axes: of the content by share, of the style by layer, TV."""
        total: Any = 0.0
        content: list[tuple[float, Array]] = []
        style: dict[str, list[Array]] = {name: [] for name in self._style}
        for name, a in self.net.walk(picture, [*{**self._content, **self._style}]):
            if name in self._content:
                cost, share = content_loss(a, self._activations[name]), self._content[name]
                content.append((share, cost.data))
                total = total + cost * (self.settings.content_weight * share / a.size)
            for texture in self.textures if name in self._style else ():
                cost = texture.cost(name, a)
                if name == FIRST and self.settings.memory == "low" and texture.masks is None:
                    self._recompute_first(cost, picture)
                style[name].append(cost.data)
                total = total + cost * (self.settings.style_weight * self._style[name])
            del a  # or the layer would live through the next ones
        roughness = total_variation(picture if self.settings.tv_weight else picture.detach())
        if self.settings.tv_weight:
            total = total + roughness * (self.settings.tv_weight / picture.size)
        return total, content, style, roughness.data

    def _recompute_first(self, cost: Tensor, picture: Tensor) -> None:
        """Let the first layer, the largest and cheapest of all, go until its gradient is due."""

        def first() -> tuple[Array]:
            ((_, a),) = self.net.walk(picture.detach(), [FIRST])
            return (a.data,)

        if cost._node is not None and cost._node.context is not None:
            cost._node.context.recompute(first)


def halvings(name: str) -> int:
    """How often pools halve the picture before VGG layer `name` (``conv3_1``, ``pool3``)."""
    block = int(name.removeprefix("conv").removeprefix("pool")[0])
    return block if name.startswith("pool") else block - 1


def layer_size(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of VGG layer `name` for a picture of this shape."""
    return shape[0] >> halvings(name), shape[1] >> halvings(name)


def layer_mask(mask: Array, name: str) -> Array:
    """A mask (h, w) on VGG layer `name`, (1, h', w', 1): the mean of the pixels that each place stands for.

    A mask that vanishes there, being brighter than 0 only at the border that pools leave out, becomes evenly faint.
    """
    height, width = layer_size(name, mask.shape)
    edge = 1 << halvings(name)
    blocks = mask[: height * edge, : width * edge].reshape(height, edge, width, edge)
    small: Array = blocks.mean((1, 3), dtype=np.float64)[None, :, :, None]
    return small if small.any() else np.full_like(small, 1e-3)


def white_noise(shape: tuple[int, ...], seed: int) -> Array:
    """Independent pixels, uniform in 0.5 ± 0.1, float32.

    Noise over the whole range leaves grains that no optimiser gets rid of: it is far from every picture.
    """
    noise: Array = 0.4 + 0.2 * np.random.default_rng(seed).random(shape, dtype=np.float32)
    return noise
