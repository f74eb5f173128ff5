"""Rates with what they are worth, and the logistic curve: what calibration and evaluation share."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A measured rate and its two-sided Clopper-Pearson interval, as if the trials were independent."""

    events: int
    trials: int
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, events: int, trials: int, confidence: float) -> Rate:
        """The rate of `events` in `trials`, at least one."""
        return cls(events, trials, events / trials, *clopper_pearson(events, trials, confidence))

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return asdict(self)


def clopper_pearson(events: int, trials: int, confidence: float) -> tuple[float, float]:
    """The exact two-sided interval of a binomial probability, from the quantiles of Beta distributions.

    low = B(α/2; k, n − k + 1) and high = B(1 − α/2; k + 1, n − k), with α = 1 − confidence, k events in n trials; low
    is 0 for k = 0 and high is 1 for k = n.
    Source: Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", 1934.

    >>> [round(limit, 4) for limit in clopper_pearson(0, 10, 0.95)]
    [0.0, 0.3085]
    """
    from scipy.special import betaincinv

    half = (1 - confidence) / 2
    low = 0.0 if events == 0 else float(betaincinv(events, trials - events + 1, half))
    high = 1.0 if events == trials else float(betaincinv(events + 1, trials - events, 1 - half))
    return low, high


def needed_trials(rate: float, confidence: float) -> int:
    """How many trials without a single event show, at this confidence, that the true rate is at most `rate`.

    The smallest n with (1 − rate)ⁿ ≤ 1 − confidence; the "rule of three" says 3 / rate at 95 %.
    Source: Hanley, Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 1983.

    >>> needed_trials(0.001, 0.95), needed_trials(0.1, 0.95)
    (2995, 29)
    """
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate) - 1e-9)


def allowed_events(rate: float, trials: int, confidence: float) -> int:
    """The most events in `trials` whose one-sided upper limit is still at most `rate`; -1 where even 0 is too many.

    The upper limit of k events is B(confidence; k + 1, n − k), B the quantile of the Beta distribution.

    >>> allowed_events(0.001, 2994, 0.95), allowed_events(0.001, 2995, 0.95), allowed_events(0.01, 1000, 0.95)
    (-1, 0, 4)
    """
    from scipy.special import betainc

    low, high = -1, trials
    while high - low > 1:  # the limit grows with the events
        middle = (low + high) // 2
        if betainc(middle + 1, trials - middle, rate) >= confidence:
            low = middle
        else:
            high = middle
    return low


def check_rate(task: str, name: str, value: Any) -> float:
    """A number between 0 and 1, both excluded."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 < value < 1:
        raise ArgumentError(f"[{task}] expects {name} between 0 and 1, got {value!r}")
    return float(value)


@dataclass(frozen=True, eq=False)
class Sample:
    """Distances of pairs, and which of the pairs are of one person, for `fit_logistic`."""

    distances: Floats
    same: NDArray[np.bool_]


def fit_logistic(*samples: Sample) -> tuple[float, float]:
    """Slope and offset of P(same) = 1 / (1 + exp(slope · distance + offset)), by weighted maximum likelihood.

    In each sample the pairs of one person and those of two weigh the same in all, and every sample as much as another.
    The targets are Platt's, (n₊ + 1) / (n₊ + 2) for the n₊ pairs of one person and 1 / (n₋ + 2) for the others, so
    that the curve keeps a slope which the number of pairs supports even where they separate perfectly.
    Source: Platt, "Probabilistic outputs for support vector machines", 1999; Lin, Lin, Weng, "A note on Platt's
    probabilistic outputs", 2007.

    Raises `ArgumentError` where the pairs of one person are not closer: the curve would run the wrong way.

    >>> distances = np.array([0.3, 0.4, 0.8, 0.9])
    >>> slope, offset = fit_logistic(Sample(distances, distances < 0.6))
    >>> round(-offset / slope, 6)
    0.6
    """
    from scipy.optimize import minimize

    distances = np.concatenate([s.distances for s in samples]).astype(np.float64)
    target, weight = map(np.concatenate, zip(*(_targets(s.same) for s in samples), strict=True))
    centre, scale = distances.mean(), distances.std() or 1.0
    x = (distances - centre) / scale

    def loss(p: Floats) -> tuple[float, Floats]:
        z = p[0] * x + p[1]
        excess = weight * (target - 1 / (1 + np.exp(np.clip(z, -700, 700))))
        value = np.sum(weight * (np.logaddexp(0, z) - (1 - target) * z))
        return float(value), np.array([excess @ x, excess.sum()])

    found = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-10}).x
    slope = float(found[0] / scale)
    if not slope > 0:
        raise ArgumentError("[calibrate] expects pairs of one person to be closer than pairs of two, got the opposite")
    return slope, float(found[1] - slope * centre)


def _targets(same: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Platt's targets and weights that add up to 1, half of it for either kind."""
    ones, twos = int(same.sum()), int((~same).sum())
    target = np.where(same, (ones + 1) / (ones + 2), 1 / (twos + 2))
    return target, np.where(same, 0.5 / ones, 0.5 / twos)
