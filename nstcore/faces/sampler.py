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
    """Batches of up to `people` × `photos` photographs: P people, K photographs of each.

    labels: (n,) whole numbers, whose a photograph is. seed: the same one gives the same batches.

    In an epoch every photograph of a person who has several is used once (a last one that would stand alone is left
    out). A person with fewer than K photographs gives those there are: none is used twice in a batch. People with a
    single photograph have no pair: they are negatives only, and take up to a quarter of a batch's people.
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
        """Batches in an epoch."""
        return -(-sum(self._parts(len(group)) for group in self._several) // self._paired)

    @property
    def _singles(self) -> int:
        """Places of people with one photograph in a batch: where there are few others, as many as are left."""
        return min(len(self._single), max(self.people // 4, self.people - len(self._several)))

    @property
    def _paired(self) -> int:
        """Places of the others."""
        return self.people - self._singles

    def _parts(self, count: int) -> int:
        """How many times a person with so many photographs stands in an epoch."""
        return max(1, count // self.photos + (count % self.photos > 1))

    def batch(self, step: int) -> Indices:
        """The photographs of one batch, as indices, those of a person beside each other; step: from 0."""
        epoch, position = divmod(whole("sampler", "a step", step), self.steps)
        visits = self._visits(epoch)
        chosen = visits[position * self._paired : (position + 1) * self._paired]
        chosen += visits[: min(self._paired, len(visits)) - len(chosen)]  # the last batch is as large as the others
        if self._singles:
            rng = np.random.default_rng((self.seed, 1, step))
            chosen += list(rng.choice(self._single, self._singles, replace=False)[:, None])
        return np.concatenate(chosen)

    def _visits(self, epoch: int) -> list[Indices]:
        """An epoch's groups of photographs of one person: first one group of everybody, then a second one ..."""
        rng = np.random.default_rng((self.seed, 0, epoch))
        rounds: list[list[Indices]] = []
        for group in self._several:
            mixed = rng.permutation(group)
            for i in range(self._parts(len(group))):
                if i == len(rounds):
                    rounds.append([])
                rounds[i].append(mixed[i * self.photos : (i + 1) * self.photos])
        visits: list[Indices] = []
        for one in rounds:
            visits += [one[i] for i in rng.permutation(len(one))]
        return visits

    def describe(self) -> dict[str, Any]:
        """What the batches are, in plain values."""
        return {"people": self.people, "photos": self.photos, "steps_per_epoch": self.steps, "seed": self.seed,
                "negatives_only": self.negatives_only}  # fmt: skip
