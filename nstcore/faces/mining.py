"""Which triplets of a batch are trained on, by chance; the minings by distance alone are `ops.batch_triplet_loss`'s."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.autograd import Tensor
from nstcore.backend.arrays import to_host
from nstcore.ops.triplet import MININGS as BY_DISTANCE

Array = NDArray[Any]
Indices = NDArray[np.intp]

BY_CHANCE = ("distance_weighted", "random")
MININGS = (*BY_DISTANCE, *BY_CHANCE)
CLOSEST, CUT = 0.5, 1.4  # distances below the first count as it; from the second on nothing is drawn


def random_triplets(labels: Array, rng: np.random.Generator) -> tuple[Indices, Indices, Indices]:
    """For every ordered pair (a, p) of one class a negative n by chance, all with the same probability.

    labels: (b,). Gives three arrays of indices; empty ones when there is no triplet. This is the course's way.
    """
    return _drawn(None, labels, rng)


def distance_weighted_triplets(z: Array, labels: Array, rng: np.random.Generator) -> tuple[Indices, Indices, Indices]:
    """For every ordered pair (a, p) of one class a negative n, drawn so that near and far ones are met as often.

    z: (b, d), rows of length 1; labels: (b,). On the unit sphere in d dimensions distances D are distributed as
    q(D) ∝ D^(d − 2) (1 − D² / 4)^((d − 3) / 2), nearly all of them close to √2; n is drawn with probability
    ∝ 1 / q(D_an). D counts as at least 0.5, and negatives beyond 1.4, whose loss is 0, are taken only by an anchor that
    has no others. Gives three arrays of indices.
    Source: Wu, Manmatha, Smola, Krähenbühl, "Sampling Matters in Deep Embedding Learning", ICCV 2017, section 4.
    """
    squares = np.clip(to_host(ops.pairwise_sqdist(z, z)).astype(np.float64), CLOSEST**2, 4 - 1e-6)
    dimensions = z.shape[1]
    log_density = 0.5 * (dimensions - 2) * np.log(squares) + 0.5 * (dimensions - 3) * np.log1p(-0.25 * squares)
    different = labels[:, None] != labels[None]
    wanted = different & (squares < CUT**2)
    wanted |= different & ~wanted.any(1, keepdims=True)
    logits = np.where(wanted, -log_density, -np.inf)
    top = logits.max(1, keepdims=True, initial=-np.inf)
    return _drawn(np.exp(logits - np.where(np.isfinite(top), top, 0)), labels, rng)


def _drawn(weights: Array | None, labels: Array, rng: np.random.Generator) -> tuple[Indices, Indices, Indices]:
    """A negative for each pair of one class, drawn from the row of the anchor by the inverse of its distribution.

    weights: (b, b), 0 for one class; None: the same for all negatives. Nothing larger than (b, b) is made: the pairs of
    an anchor look up their negatives in its row of sums.
    """
    same = labels[:, None] == labels[None]
    several = ~same.all(1, keepdims=True)  # a batch of one class has no negatives
    a, p = np.nonzero(same & several & ~np.eye(len(labels), dtype=bool))
    at, n = rng.random(len(a)), np.empty(len(a), np.intp)
    starts = np.searchsorted(a, np.arange(len(labels) + 1))
    for anchor, (start, end) in enumerate(itertools.pairwise(starts)):
        if start < end:
            sums = np.cumsum(~same[anchor] if weights is None else weights[anchor], dtype=np.float64)
            if not 0 < sums[-1] < np.inf:  # encodings that are not finite: the loss will say so
                sums = np.cumsum(~same[anchor], dtype=np.float64)
            found = np.searchsorted(sums, at[start:end] * sums[-1], side="right")
            n[start:end] = np.minimum(found, np.searchsorted(sums, sums[-1]))  # never behind the last negative
    return a, p, n


def triplet_loss(z: Tensor, labels: Array, margin: float, mining: str, reduction: str, rng: np.random.Generator) -> Any:
    """The triplet loss of a batch by any of `MININGS`; a scalar.

    reduction: "mean_active" or "mean", as `ops.batch_triplet_loss`. rng: for the minings by chance, whose losses are
    computed from the (b, b) distances: encodings gathered for each triplet would take b · b · d numbers.
    """
    if mining in BY_DISTANCE:
        return ops.batch_triplet_loss(z, labels, margin, mining, reduction)
    draw = distance_weighted_triplets(z.data, labels, rng) if mining == BY_CHANCE[0] else random_triplets(labels, rng)
    a, p, n = draw
    distances = ops.pairwise_sqdist(z, z)
    losses = ops.relu(ops.add(ops.sub(distances[a, p], distances[a, n]), margin))
    counted = len(a) if reduction == "mean" else int(np.count_nonzero(to_host(losses.data)))
    return ops.mul(ops.sum(losses), 1 / max(1, counted))


def pairs_of(labels: Array, rng: np.random.Generator) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """All pairs of one class in a batch, as many of two classes by chance: two arrays of indices, and which is which.

    labels: (b,). Each pair is given once.
    """
    first, second = np.triu_indices(len(labels), 1)
    same = labels[first] == labels[second]
    ones, twos = np.flatnonzero(same), np.flatnonzero(~same)
    chosen = np.concatenate([ones, rng.choice(twos, min(len(ones), len(twos)), replace=False)])
    return first[chosen], second[chosen], same[chosen]
