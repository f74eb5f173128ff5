"""J = α J_content + β J_style + γ TV as a function of the picture's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.autograd import Tensor
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


class Objective:
    """The costs of a picture against one content image and one or several styles.

    A content layer's cost is divided by its h·w·c, and a style's Gram matrix is scaled by the ratio of the two
    pictures' areas on that layer: both weights then mean the same at every size. Several styles are one target, the
    blend of their Gram matrices: Σ λ_b (G − G_b)² differs from (G − Σ λ_b G_b)² by a constant only.
    """

    def __init__(self, net: VGG, content: Array, styles: Sequence[Array], settings: Settings) -> None:
        self.net, self.settings = net, settings
        self._content = settings.content_shares if settings.content_weight else {}
        self._style = settings.style_shares if settings.style_weight else {}
        self._activations = net.features(content[None], list(self._content))
        self._grams = self._blended_grams(content.shape, styles)

    def _blended_grams(self, shape: tuple[int, ...], styles: Sequence[Array]) -> dict[str, Array]:
        """Target Gram matrix of each style layer, for a picture of this shape."""
        blended: dict[str, Array] = {}
        for share, style in zip(self.settings.blend_shares(len(styles)), styles, strict=True):
            for name, features in self.net.walk(style[None], list(self._style)):
                a = features.data
                height, width = layer_size(name, shape)
                scaled = ops.gram(a) * (share * height * width / (a.shape[1] * a.shape[2]))
                blended[name] = blended[name] + scaled if name in blended else scaled
        return {name: gram.astype(self.net.dtype, copy=False) for name, gram in blended.items()}

    def evaluate(self, picture: Tensor) -> Terms:
        """Costs of `picture` (1, h, w, 3), with the gradient of the total added to ``picture.grad``."""
        total, content, style, variation = self._costs(picture)
        if total.requires_grad:
            total.backward()
        return Terms(total.item(), content, style, variation)

    def _costs(self, picture: Tensor) -> tuple[Tensor, float, dict[str, float], float]:
        total: Any = 0.0
        content, style = 0.0, dict.fromkeys(self._style, 0.0)
        for name, a in self.net.walk(picture, [*{**self._content, **self._style}]):
            if name in self._content:
                cost, share = content_loss(a, self._activations[name]), self._content[name]
                content += share * cost.item()
                total = total + cost * (self.settings.content_weight * share / a.size)
            if name in self._style:
                cost = style_loss(a, self._grams[name])
                if name == FIRST and self.settings.memory == "low":
                    self._recompute_first(cost, picture)
                style[name] = cost.item()
                total = total + cost * (self.settings.style_weight * self._style[name])
            del a  # or the layer would live through the next ones
        roughness = total_variation(picture if self.settings.tv_weight else picture.detach())
        if self.settings.tv_weight:
            total = total + roughness * (self.settings.tv_weight / picture.size)
        return total, content, style, float(roughness.item())

    def _recompute_first(self, cost: Tensor, picture: Tensor) -> None:
        """Let the first layer, the largest and cheapest of all, go until its gradient is due."""

        def first() -> tuple[Array]:
            ((_, a),) = self.net.walk(picture.detach(), [FIRST])
            return (a.data,)

        if cost._node is not None and cost._node.context is not None:
            cost._node.context.recompute(first)


def layer_size(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of VGG layer `name` (``conv3_1``, ``pool3``) for a picture of this shape."""
    block = int(name.removeprefix("conv").removeprefix("pool")[0])
    halvings = block if name.startswith("pool") else block - 1
    return shape[0] >> halvings, shape[1] >> halvings


def white_noise(shape: tuple[int, ...], seed: int) -> Array:
    """Independent pixels, uniform in 0.5 ± 0.1, float32.

    Noise over the whole range leaves grains that no optimiser gets rid of: it is far from every picture.
    """
    noise: Array = 0.4 + 0.2 * np.random.default_rng(seed).random(shape, dtype=np.float32)
    return noise
