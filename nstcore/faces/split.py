"""Who is trained on and who is kept apart, and how a file remembers whom it was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError
from nstcore.faces.photos import Photos
from nstcore.faces.train_settings import TrainSettings

Indices = NDArray[np.intp]
Known = frozenset[str] | None  # digests of photographs (`Photos.each_digest`); None where nobody has noted them

FEW_PEOPLE, FEW_PAIRS = 5, 20  # kept apart: with less, error rates jump by tenths, and weights are chosen by chance
MOST_NOTED = 50_000  # photographs whose digests go into a file, 19 bytes each
MOST_JUDGED = 1000  # photographs of people trained on that a threshold is taken from


def split_people(photos: Photos, settings: TrainSettings, known: Known = frozenset()) -> tuple[Indices, Indices]:
    """Indices of the photographs to train on, and of those of the people kept apart, drawn by the seed.

    Kept apart is the share `validation` of the people with two or more photographs, two at least, and two stay. known:
    what the network was trained on before; none of these people is kept apart.
    Raises `ArgumentError` where there are not enough people.
    """
    everybody = np.arange(len(photos.labels))
    if not settings.validation:
        return everybody, everybody[:0]
    several = np.flatnonzero(np.bincount(photos.labels, minlength=len(photos.names)) > 1)
    count = max(2, round(settings.validation * len(several)))
    if len(several) < count + 2:
        raise ArgumentError(
            f"[train] expects at least {count + 2} classes with two photographs, {count} of them to validate, got "
            f"{len(several)}; give more, or validation=0 (--validation 0){_left_out(photos)}"
        )
    new = several
    if known:
        used = photos.labels[[digest in known for digest in photos.each_digest()]]
        new = np.setdiff1d(several, used)
        if len(new) < 2:
            raise ArgumentError(
                "[train] expects at least two classes with two photographs that the start was not trained on, to "
                f"validate, got {len(new)} of {len(several)}; give others too, or validation=0 (--validation 0)"
            )
    chosen = np.random.default_rng((settings.seed, 3)).choice(new, min(count, len(new)), replace=False)
    held = np.isin(photos.labels, chosen)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _left_out(photos: Photos) -> str:
    """The first reasons why there are no more photographs."""
    more = f"; and {len(photos.left_out) - 3} more" if len(photos.left_out) > 3 else ""
    return f"; left out: {'; '.join(photos.left_out[:3])}{more}" if photos.left_out else ""


def some_people(labels: Indices, seed: int) -> Indices:
    """Indices of up to `MOST_JUDGED` photographs, all of a person beside each other, drawn by the seed.

    Always among them: somebody with two photographs, and somebody else.
    """
    people = np.random.default_rng((seed, 5)).permutation(np.unique(labels))
    counts = np.bincount(labels)
    people = people[np.argsort(counts[people] < 2, kind="stable")]  # people with a pair first
    chosen = people[: max(2, int(np.searchsorted(np.cumsum(counts[people]), MOST_JUDGED, side="right")))]
    order = np.argsort(labels, kind="stable")
    return order[np.isin(labels[order], chosen)]


def noted(known: Known, photos: Photos, train: Indices) -> tuple[str, ...] | None:
    """What a file says that it was trained on: digests, those of its start among them; None where that is not known."""
    if known is None:
        return None
    digests = photos.each_digest()
    found = known | {digests[i] for i in train}
    return tuple(sorted(found))


def known_to(meta: Mapping[str, Any]) -> Known:
    """What a file of `Trained.save` says that it was trained on; None where it says nothing."""
    training = meta.get("training")
    digests = training.get("photographs") if isinstance(training, Mapping) else None
    if not isinstance(digests, Iterable) or isinstance(digests, str) or not all(isinstance(d, str) for d in digests):
        return None
    return frozenset(digests)
