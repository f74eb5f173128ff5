"""Which photographs stand in a training batch: some of each of several people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError
from nstcore.ops._op import whole

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Sampler:
    """Batches of `people` × `photos` photographs: P people, K photographs of each.

    labels: (n,) whole numbers, whose a photograph is. seed: the same one gives the same batches.

    A batch has P different people, or everybody with several photographs where they are fewer. Each of them gives K
    photographs, or all where there are fewer: none is used twice in a batch. People with a single photograph have no
    pair: they are negatives only, and take P // 4 of the P places, or as many as there are (with one other person at
    least one place: that is where the negatives are). An epoch has everybody with several photographs at least once;
    in ⌈n / K⌉ epochs a person's n photographs are all used.
    `batch(step)` depends on labels, seed and step alone: a run that stops goes on with the step that it had reached.

    Raises `ArgumentError` when there are not two people, or nobody has two photographs.
    """

    labels: Indices
    people: int = 16
    photos: int = 4
    seed: int = 0
    _several: list[Indices] = field(init=False, repr=False)
    _single: Indices = field(init=False, repr=False)

    def __post_init__(self) -> None:
        people, photos = whole("sampler", "people", self.people), whole("sampler", "photos", self.photos)
        if people < 2 or photos < 2:
            raise ArgumentError(
                f"[sampler] expects at least 2 people and 2 photographs of each in a batch, got {people} and {photos}"
            )
        order = np.argsort(self.labels, kind="stable")
        _, starts = np.unique(self.labels[order], return_index=True)
        groups = np.split(order, starts[1:]) if len(order) else []
        object.__setattr__(self, "_several", [g for g in groups if len(g) > 1])
        object.__setattr__(self, "_single", np.array([g[0] for g in groups if len(g) == 1], np.intp))
        if len(groups) < 2 or not self._several:
            raise ArgumentError(
                f"[sampler] expects at least two classes, one of them with two photographs, got {len(groups)} "
                f"class(es), {len(self._several)} with two or more"
            )

    @property
    def negatives_only(self) -> int:
        """How many people have a single photograph, and so are negatives only."""
        return len(self._single)

    @property
    def steps(self) -> int:
        """Batches in an epoch, in which everybody with several photographs is used."""
        return -(-len(self._several) // self._paired)

    @property
    def _singles(self) -> int:
        """Places of people with one photograph in a batch."""
        return min(len(self._single), max(self.people // 4, int(len(self._several) == 1)))

    @property
    def _paired(self) -> int:
        """Places of the others."""
        return min(len(self._several), self.people - self._singles)

    def batch(self, step: int) -> Indices:
        """The photographs of one batch, as indices, those of a person beside each other; step: from 0."""
        epoch, position = divmod(whole("sampler", "a step", step), self.steps)
        order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self._several))
        turn = order[position * self._paired : (position + 1) * self._paired]
        chosen = [self._turn(who, epoch) for who in turn]
        rng = np.random.default_rng((self.seed, 1, step))
        if len(turn) < self._paired:  # the last batch is as large as the others: people who had their turn
            again = order[rng.permutation(position * self._paired)[: self._paired - len(turn)]]
            chosen += [rng.permutation(self._several[who])[: self.photos] for who in again]
        if self._singles:
            chosen += list(rng.choice(self._single, self._singles, replace=False)[:, None])
        return np.concatenate(chosen)

    def _turn(self, who: int, epoch: int) -> Indices:
        """The photographs of a person in an epoch: the next K in an order that changes when all were used.

        The last ones of an order are taken with some before them, so that there are K.
        """
        group = self._several[who]
        deck, part = divmod(epoch, -(-len(group) // self.photos))
        mixed = np.random.default_rng((self.seed, 4, who, deck)).permutation(group)
        end = min((part + 1) * self.photos, len(group))
        return mixed[max(0, end - self.photos) : end]

    def describe(self) -> dict[str, Any]:
        """What the batches are, in plain values."""
        return {"people": self.people, "photos": self.photos, "steps_per_epoch": self.steps, "seed": self.seed,
                "negatives_only": self.negatives_only}  # fmt: skip
