"""What a style is: the Gram matrix of a layer as correlations between its channels, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError
from nstcore.visualize.deconv import prepare
from nstcore.visualize.network import check_network
from nstcore.visualize.receptive_field import ReceptiveField

Array = NDArray[Any]
# Channels with less than this share of the mean energy are too silent for their correlations to mean anything.
LEAST_ENERGY = 0.02


@dataclass(frozen=True)
class Correlations:
    """A layer's Gram matrix in one picture.

    activations: (h', w', c). gram: (c, c), G_kk' = Σ_ij a_ijk a_ijk' / (h' w'), so that pictures of any size compare.
    correlations: (c, c), G_kk' / √(G_kk G_k'k'), from −1 to 1 (from 0 after a ReLU); 0 for a channel that never fires.
    order: the channels, those that fire together beside each other. field: a unit's receptive field in this picture.
    """

    layer: str
    activations: Array
    gram: Array
    correlations: Array
    order: Array
    field: ReceptiveField

    def pairs(self, count: int = 10) -> list[ChannelPair]:
        """The `count` pairs of channels that are most correlated; those that hardly fire are left out.

        Of two channels with the same partner the pair with the higher correlation comes first; a channel is in at most
        two pairs, so that one that always fires does not fill the list.
        """
        energy = np.diagonal(self.gram)
        loud = np.nonzero(energy > LEAST_ENERGY * energy.mean())[0]
        first, second = np.triu_indices(len(loud), 1)
        first, second = loud[first], loud[second]
        return self._taken(first, second, self.correlations[first, second], count)

    def _taken(self, first: Array, second: Array, scores: Array, count: int) -> list[ChannelPair]:
        uses: dict[int, int] = {}
        found: list[ChannelPair] = []
        for at in np.argsort(-scores, kind="stable"):
            pair = int(first[at]), int(second[at])
            if len(found) == count or not scores[at] > 0:
                break
            if max(uses.get(k, 0) for k in pair) < 2:
                uses.update({k: uses.get(k, 0) + 1 for k in pair})
                found.append(ChannelPair(*pair, float(self.correlations[pair]), float(scores[at])))
        return found

    def together(self, first: int, second: int) -> Array:
        """Where two channels fire together: a_k a_k' at each place (h', w'); its mean is the entry of `gram`."""
        product: Array = self.activations[:, :, first] * self.activations[:, :, second]
        return product


@dataclass(frozen=True)
class ChannelPair:
    """Two channels, how correlated they are, and what they were chosen by: the same, or their share of a difference.

    Where the energies of one channel differ, first and second are the same one, and the correlation is 1.
    """

    first: int
    second: int
    correlation: float
    score: float


def correlations(net: Any, layer: str, image: Array) -> Correlations:
    """The Gram matrix of a layer, G_kk' = Σ_ij a_ijk a_ijk' / (h' w'), and C_kk' = G_kk' / √(G_kk G_k'k').

    net: a network of `nst.models` or any `nn.Module`. image: (h, w, 3), float in [0, 1] or uint8.
    Raises `ArgumentError` for an unknown layer, `ShapeError`, `DTypeError`, `ImageError`.
    Source: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, equation 3.

    >>> from nstcore import models
    >>> found = correlations(models.vgg16(), "conv1_1", np.eye(16, dtype=np.float32)[:, :, None].repeat(3, 2))
    >>> found.gram.shape, bool(found.correlations.max() <= 1)
    ((64, 64), True)
    """
    _, field, values = prepare(check_network(net), layer, image)
    gram = to_host(ops.gram(values[None])[0]).astype(np.float64) / (values.shape[0] * values.shape[1])
    length = np.sqrt(np.diagonal(gram))
    scaled = gram / np.maximum(np.outer(length, length), np.finfo(np.float64).tiny)
    scaled = np.where(np.outer(length, length) > 0, np.clip(scaled, -1, 1), 0.0)
    return Correlations(layer, values, gram, scaled, _order(scaled), field)


def style_difference(one: Correlations, other: Correlations, count: int = 10) -> list[ChannelPair]:
    """The pairs of channels that make two pictures' styles differ most, with the share of the difference each has.

    Of J_style ∝ Σ_kk' (G_kk' − G'_kk')², with G per place, the two equal entries of a pair k ≠ k' have the share
    2 (G_kk' − G'_kk')² / Σ, and a channel's energy, k = k', has (G_kk − G'_kk)² / Σ. A channel is in at most two pairs.
    `correlation` is that of the first picture.
    Raises `ArgumentError` when the two are not of one layer.
    Source: Gatys, Ecker, Bethge, CVPR 2016, equation 4.

    >>> from nstcore import models
    >>> net, stripes = models.vgg16(), np.eye(16, dtype=np.float32)[:, :, None].repeat(3, 2)
    >>> same = correlations(net, "conv1_1", stripes)
    >>> style_difference(same, same)
    []
    """
    if one.layer != other.layer or one.gram.shape != other.gram.shape:
        raise ArgumentError(f"[gram] expects two pictures' correlations of one layer, got {one.layer}, {other.layer}")
    squares = (one.gram - other.gram) ** 2
    total = float(squares.sum())
    if total == 0:
        return []
    first, second = np.triu_indices(len(squares))
    times = np.where(first == second, 1, 2)
    return one._taken(first, second, times * squares[first, second] / total, count)


def _order(correlation: Array) -> Array:
    """Channels that fire together beside each other: the leaves of a tree by average linkage of 1 − correlation."""
    if len(correlation) < 3:
        return np.arange(len(correlation))
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering

    first, second = np.triu_indices(len(correlation), 1)
    distance = 1 - correlation[first, second]
    tree = linkage(distance, "average")
    if len(correlation) <= 256:  # cubic in the channels
        tree = optimal_leaf_ordering(tree, distance)
    return np.asarray(leaves_list(tree))
