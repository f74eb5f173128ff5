"""A verification head from people's photographs, chosen and calibrated on people that it was not fitted to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError
from nstcore.faces._statistics import Sample, fit_logistic
from nstcore.faces.encoder import Encoder
from nstcore.faces.evaluate import people_folds, roc
from nstcore.faces.head import FORMS, VerificationHead
from nstcore.faces.pairs import as_encodings, between, in_order, pair_rows

Array = NDArray[Any]
Step = Callable[[int, int], object]

DECAYS = (1e-2, 1e-1, 1.0, 100.0)  # with the last one nothing but the plain distance is left
FOLDS = 4
MOST = 4000  # pairs of one person, and of two, that it is fitted to
_STEPS = 40  # of L-BFGS
_LEAST = 1e-12  # a probability beside which a logarithm is cut off


@dataclass(frozen=True)
class Separation:
    """How well something tells pairs of one person from pairs of two.

    eer, auc: see `Roc`. loss: mean of −ln(the probability given to what is true), pairs of either kind weighing one
    half; ln 2 = 0.693 for somebody who knows nothing.
    """

    eer: float
    auc: float
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class HeadReport:
    """A head, and what it is worth for people that it was not fitted to.

    decay: of `VerificationHead.fit`. people, same, different: that it was fitted to, and pairs of them.
    by_head, by_distance: of pairs of people in the folds that the heads were not fitted to; both with a logistic curve
    that was fitted to these pairs. Form and decay were chosen by them, too: by_head is a little too good.
    by_present: of a head that there was before, with its own probabilities, on the same pairs; None without one. Where
    it was fitted to these people, what it says of them is too good.
    """

    head: VerificationHead
    decay: float
    people: int
    same: int
    different: int
    by_head: Separation
    by_distance: Separation
    by_present: Separation | None = None

    @property
    def kept(self) -> str:
        """What has the best probabilities: "present", the head that there was before, "fitted", or "distance"."""
        if self.by_present is not None and self.by_present.loss <= min(self.by_head.loss, self.by_distance.loss):
            return "present"
        return "fitted" if self.helps else "distance"

    @property
    def helps(self) -> bool:
        """Whether its probabilities were better than those of the plain distance."""
        return self.by_head.loss < self.by_distance.loss

    def to_json(self) -> dict[str, Any]:
        """Give everything but the weights as plain values."""
        facts = {name: getattr(self, name) for name in ("decay", "people", "same", "different")}
        scores = {name: getattr(self, name).to_json() for name in ("by_head", "by_distance")}
        present = None if self.by_present is None else self.by_present.to_json()
        said = {"by_present": present, "helps": self.helps, "kept": self.kept}
        return {"form": self.head.form, "encoder": self.head.encoder, **facts, **scores, **said}


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs (m,) as rows of the encodings, their distances, whether they are of one person, and their folds."""

    points: Array
    left: Array
    right: Array
    same: Array
    distances: Array
    people: int
    folds: list[tuple[Array, Array]]

    def head(self, form: str, decay: float, chosen: Array, encoder: str) -> VerificationHead:
        """A head fitted to the chosen pairs."""
        head = VerificationHead(self.points.shape[1], form, encoder=encoder)
        rows = self.left[chosen], self.right[chosen]
        head.fit(self.points, rows, self.same[chosen], decay=decay, steps=_STEPS)
        return head

    def logits(self, head: VerificationHead, chosen: Array) -> Array:
        return head.logits(self.points[self.left[chosen]], self.points[self.right[chosen]])


def fit_head(
    encodings: Array,
    labels: Any,
    encoder: Encoder | str,
    *,
    present: VerificationHead | None = None,
    progress: Step | None = None,
) -> HeadReport:
    """Fit a verification head to encodings whose people are known.

    Form and decay are those whose heads, each fitted without a fold of the people, give the pairs in that fold the best
    probabilities. Their logits there also give a slope and an offset (Platt 1999) that the final head, fitted to all
    people, is scaled by: what a head says about its own people is too sure of itself.

    encodings: float (n, d). labels: n names or numbers of people. encoder: what the encodings are of, or its digest.
    present: a head of this encoder to compare with, such as one that was trained along with it.
    progress: called with the number of fits done, and of all.
    The same encodings give the same head, whatever people are called and in whichever order they come.
    Raises `ArgumentError` for fewer than four people, or two with two photographs; others as `all_pairs`.
    """
    pairs = _pairs(encodings, labels)
    digest = encoder if isinstance(encoder, str) else encoder.digest
    if present is not None:
        present.check_encoder(digest, pairs.points.shape[1])
    tried = [(form, decay) for form in FORMS for decay in DECAYS]
    total, done = len(tried) * len(pairs.folds) + 1, 0
    test = np.concatenate([np.flatnonzero(inside) for _, inside in pairs.folds])
    same = pairs.same[test]
    best: tuple[float, str, float, float, float, Separation] | None = None
    for form, decay in tried:
        parts = []
        for outside, inside in pairs.folds:
            parts.append(pairs.logits(pairs.head(form, decay, np.flatnonzero(outside), digest), np.flatnonzero(inside)))
            done += 1
            if progress is not None:
                progress(done, total)
        found = _calibrated(-np.concatenate(parts), same)
        if found is not None and (best is None or found[2].loss < best[0]):
            best = (found[2].loss, form, decay, *found)
    by_distance = _calibrated(pairs.distances[test], same)
    if best is None or by_distance is None:
        raise ArgumentError("[head] expects pairs of one person to be closer than pairs of two, got the opposite")
    _, form, decay, slope, offset, by_head = best
    head = pairs.head(form, decay, np.arange(len(pairs.same)), digest)
    head.weight.data *= slope
    head.bias.data[...] = slope * head.bias.data - offset
    if progress is not None:
        progress(total, total)
    ones = int(pairs.same.sum())
    by_present = None if present is None else _as_it_is(pairs.logits(present, test), same)
    return HeadReport(head, decay, pairs.people, ones, len(pairs.same) - ones, by_head, by_distance[2], by_present)


def separation(values: Array, probabilities: Array, same: Array) -> Separation:
    """How well `values` (m,), small for one person, tell pairs apart, and how good the probabilities (m,) are."""
    curve = roc(values, same)
    given = np.clip(np.where(same, probabilities, 1 - probabilities), _LEAST, 1)
    loss = 0.5 * (np.log(given[same]).mean() + np.log(given[~same]).mean())
    return Separation(curve.eer, curve.auc, -float(loss))


def judge(head: VerificationHead, encodings: Array, labels: Any) -> Separation:
    """A head on all pairs of photographs (of many, as many as `all_pairs` draws) of people it was not fitted to.

    Arguments and errors as `all_pairs`.
    """
    points = as_encodings(encodings)
    order, person = in_order(points, labels)
    left, right = pair_rows(order, np.bincount(person), 1_000_000)
    block = 65_536
    parts = [
        head.probability(points[left[i : i + block]], points[right[i : i + block]]) for i in range(0, len(left), block)
    ]
    probability = np.concatenate([np.empty(0), *parts])
    return separation(1 - probability, probability, person[left] == person[right])


def _as_it_is(logits: Array, same: Array) -> Separation:
    probability = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return separation(-logits, probability, same)


def _calibrated(values: Array, same: Array) -> tuple[float, float, Separation] | None:
    """Slope and offset of the curve through values that are small for one person; None where they are not."""
    try:
        slope, offset = fit_logistic(Sample(values, same))
    except ArgumentError:
        return None
    probabilities = 1 / (1 + np.exp(np.clip(slope * values + offset, -700, 700)))
    return slope, offset, separation(values, probabilities, same)


def _pairs(encodings: Array, labels: Any) -> _Pairs:
    points = as_encodings(encodings)
    order, person = in_order(points, labels)
    left, right = pair_rows(order, np.bincount(person), MOST)
    found = between(points, person, left, right)
    folds = [f for f in people_folds(found, person, FOLDS) if all(0 < found.same[m].sum() < m.sum() for m in f)]
    if not folds:
        several = int((np.bincount(person) > 1).sum())
        raise ArgumentError(
            f"[head] expects at least four people, two of them with two photographs, got {found.people} and {several}"
        )
    return _Pairs(points, left, right, found.same, found.distances, found.people, folds)
