"""How well distances tell pairs of one class from pairs of two: what training looks at between its steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops
from nstcore.backend.arrays import to_host
from nstcore.faces.evaluate import roc
from nstcore.faces.oneshot import one_shot

Array = NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """Of people who were not trained on.

    eer: the rate where as many pairs of one person are refused as pairs of two accepted, see `Roc.eer`. threshold: the
    distance of the highest balanced accuracy. auc: the probability that a pair of one person is closer than one of two.
    one_shot: accuracy of one-shot identification with `ways` people. same, different: numbers of pairs.
    """

    eer: float
    threshold: float
    auc: float
    one_shot: float
    ways: int
    same: int
    different: int

    def to_json(self) -> dict[str, Any]:
        """Give all fields as plain values."""
        return asdict(self)


def score(encodings: Array, labels: Array, ways: int = 10) -> Scores:
    """All pairs of these photographs, and one-shot identification among up to `ways` of their people."""
    z = np.asarray(encodings, np.float64)
    first, second = np.triu_indices(len(z), 1)
    distances = np.sqrt(to_host(ops.pairwise_sqdist(z, z))[first, second])
    same = labels[first] == labels[second]
    curve = roc(distances, same)
    ways = min(ways, len(np.unique(labels)))
    found = one_shot(z, labels, ways, resamples=1)
    return Scores(
        curve.eer,
        max(1e-6, curve.best_threshold()),
        curve.auc,
        found.accuracy,
        ways,
        int(same.sum()),
        int((~same).sum()),
    )
