"""One-shot identification: people who were never trained on, one enrolled photograph each, and who is nearest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, ShapeError
from nstcore.faces.augment import real
from nstcore.ops._op import whole

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OneShot:
    """N-way one-shot accuracy, chance being 1 / N.

    low, high: interval for people like these, by a bootstrap over people. people: who have at least two photographs.
    queries: photographs that were identified, each with every choice of enrolled photographs.
    """

    ways: int
    accuracy: float
    low: float
    high: float
    confidence: float
    people: int
    queries: int

    def __str__(self) -> str:
        return (
            f"{self.ways}-way one-shot accuracy {100 * self.accuracy:.1f} % "
            f"({100 * self.confidence:g} % interval {100 * self.low:.1f} to {100 * self.high:.1f} %; chance "
            f"{100 / self.ways:.1f} %)"
        )

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return asdict(self)


def one_shot(
    encodings: Any, labels: Any, ways: int = 10, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> OneShot:
    """The expected accuracy of N-way one-shot identification, over all choices of people and photographs at once.

    encodings: (n, d) float; labels: (n,), whose each is. A query is a photograph; enrolled are another one of the same
    person and one each of ways − 1 others, all choices alike; it is right when its own person is nearer than all
    others (a tie is wrong). Nothing is drawn: with p_j the share of person j's photographs that are farther from the
    query than its own enrolled one, the choice of ways − 1 out of M others is right with probability
    e_{ways−1}(p_1, …, p_M) / C(M, ways − 1), e the elementary symmetric polynomial.

    The interval is the percentile bootstrap over the accuracies of people (`resamples`, `seed`), since photographs of
    one person are not independent.
    Raises `ShapeError`, `ArgumentError` for fewer people than `ways`, nobody with two photographs, encodings that are
    not finite, or labels that are missing.
    Source: Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning", Science 2015 (the task); Efron, 1979.

    >>> one_shot(np.array([[0.0], [0.1], [5.0], [5.2]]), [0, 0, 1, 1], ways=2).accuracy
    1.0
    """
    z, who = _checked(encodings, labels)
    if not 0 < real("one_shot", "confidence", confidence, "in (0, 1)") < 1:
        raise ArgumentError(f"[one_shot] expects confidence in (0, 1), got {confidence!r}")
    for name, value, least in (("resamples", resamples, 1), ("seed", seed, 0)):
        if whole("one_shot", name, value) < least:
            raise ArgumentError(f"[one_shot] expects {name} of at least {least}, got {value!r}")
    names, person = np.unique(who, return_inverse=True)
    count = np.bincount(person, minlength=len(names))
    n = whole("one_shot", "ways", ways)
    if not 2 <= n <= len(names):
        raise ArgumentError(f"[one_shot] expects ways from 2 to the number of people, {len(names)}, got {n}")
    if not (count > 1).any():
        raise ArgumentError("[one_shot] expects somebody with two photographs, one to enrol and one to identify")
    distances = to_host(ops.pairwise_sqdist(z.astype(np.float64), z.astype(np.float64)))
    right: list[list[float]] = [[] for _ in names]
    order = np.argsort(person, kind="stable")
    groups = np.split(order, np.cumsum(count)[:-1])
    for query in np.flatnonzero(count[person] > 1):
        right[person[query]].append(_expected(distances[query], groups, int(person[query]), int(query), n))
    each = np.array([np.mean(r) for r in right if r])
    weight = np.array([len(r) for r in right if r], np.float64)
    chosen = np.random.default_rng(whole("one_shot", "seed", seed)).integers(0, len(each), (resamples, len(each)))
    means = (each * weight)[chosen].sum(1) / weight[chosen].sum(1)
    low, high = np.quantile(means, ((1 - confidence) / 2, (1 + confidence) / 2))
    accuracy = float((each * weight).sum() / weight.sum())
    return OneShot(n, accuracy, float(low), float(high), confidence, len(each), int(weight.sum()))


def _checked(encodings: Any, labels: Any) -> tuple[Array, Array]:
    try:
        z, who = np.asarray(encodings), np.asarray(labels)
    except ValueError:  # NumPy's word for rows of several lengths
        raise ShapeError("[one_shot] expects encodings (n, d) and labels (n,), got rows of several lengths") from None
    if z.ndim != 2 or who.shape != z.shape[:1]:
        raise ShapeError(f"[one_shot] expects encodings (n, d) and labels (n,), got {z.shape} and {who.shape}")
    if z.dtype.kind not in "iuf" or not np.isfinite(z).all():
        got = "NaN or infinity" if z.dtype.kind == "f" else z.dtype
        raise ArgumentError(f"[one_shot] expects encodings that are finite numbers, got {got}")
    if who.dtype.kind not in "biufUS" or (who.dtype.kind == "f" and not np.isfinite(who).all()):
        raise ArgumentError("[one_shot] expects labels that are names or numbers, got one that is missing")
    return z, who


def _expected(row: Floats, groups: list[Array], own: int, query: int, ways: int) -> float:
    """The probability that a query is identified, over all that may be enrolled."""
    enrolled = groups[own][groups[own] != query]
    limits = row[enrolled][:, None]
    farther = np.stack([(row[g] > limits).mean(1) for j, g in enumerate(groups) if j != own], axis=1)
    return float(np.mean(_mean_of_products(farther, ways - 1)))


def _mean_of_products(p: Floats, size: int) -> Floats:
    """The mean, over all choices of `size` columns of p (e, m), of their product: in each step of the recursion the
    share of choices that contain the newest column is weighed in, so that no binomial overflows."""
    # mean[k] over the first m columns = (1 - k/m) mean'[k] + (k/m) mean'[k - 1] p_m
    mean = np.zeros((size + 1, len(p)))
    mean[0] = 1
    k = np.arange(1, size + 1)[:, None]
    for m in range(1, p.shape[1] + 1):
        share = np.minimum(k / m, 1)
        mean[1:] = (1 - share) * mean[1:] + share * mean[:-1] * p[:, m - 1]
    return np.asarray(mean[size])
