"""Verification as a binary classification: a logistic regression on how two encodings differ, number by number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import ops, optim, weights
from nstcore.autograd import Tensor
from nstcore.backend.arrays import to_host
from nstcore.errors import ArgumentError, NonFiniteError, ShapeError, WeightsError
from nstcore.faces.augment import real
from nstcore.nn.module import Module
from nstcore.ops._op import whole

Array = NDArray[Any]

FORMS = ("absolute", "chi2")
ARCHITECTURE = "verification_head"
EPS = 1e-8  # beside which a chi-squared denominator is none
DECAY = 1e-3  # of the weight that all numbers share: what separates pairs fully would grow without end
_STILL = 1e-9  # of the loss: a step that changes less is the last one
_MOST_NAME = 200  # characters of a digest


@dataclass(frozen=True)
class Fit:
    """How a fit went: logistic losses a pair before and after, steps, and the pairs of each kind."""

    start: float
    end: float
    steps: int
    same: int
    different: int


class VerificationHead(Module):
    """ŷ = σ(Σ_k w_k φ_k + b): the probability that two encodings are one person's.

    size: numbers in an encoding. form: φ_k = |f(a)_k − f(b)_k| ("absolute"), or (f(a)_k − f(b)_k)² / (|f(a)_k| +
    |f(b)_k|) ("chi2"; encodings here may be negative, so the sizes stand below). At first w = −1 and b lies between
    what random encodings of length 1 and equal ones give. `fit` trains it on encodings that stay; as a layer behind a
    network, ``head(za, zb)`` gives logits through which gradients flow into both branches.
    encoder: the digest of the encoder whose encodings it takes (`Encoder.digest`); None where nobody has said. It goes
    into the file, and a gallery takes no head of another encoder.
    Source: Taigman, Yang, Ranzato, Wolf, "DeepFace", CVPR 2014, section 4.1; the course's "face verification and binary
    classification".
    """

    def __init__(self, size: int, form: str = "absolute", *, encoder: str | None = None) -> None:
        if form not in FORMS:
            raise ArgumentError(f"[head] expects form to be one of {', '.join(FORMS)}, got {form!r}")
        self.size, self.form, self.encoder = whole("head", "a size", size), form, encoder
        if self.size < 1:
            raise ArgumentError(f"[head] expects a size of at least 1, got {size}")
        self.weight = Tensor(np.full((self.size, 1), -1.0, np.float32), requires_grad=True)
        # Two random directions differ by 2 sqrt(d / pi) in all.
        self.bias = Tensor(np.full(1, 1.4 * math.sqrt(self.size / math.pi), np.float32), requires_grad=True)

    def forward(self, a: Any, b: Any) -> Any:
        """The logits (n,) of the pairs (a_i, b_i); a, b: (n, size)."""
        difference = ops.sub(a, b)
        if self.form == "absolute":
            phi = ops.absolute(difference)
        else:
            phi = ops.div(ops.mul(difference, difference), ops.add(ops.add(ops.absolute(a), ops.absolute(b)), EPS))
        return ops.reshape(ops.sum(ops.mul(phi, ops.reshape(self.weight, (self.size,))), axis=1), (-1,)) + self.bias

    def probability(self, a: Any, b: Any) -> Array:
        """The probabilities (n,), float64, that encodings a_i and b_i are one person's; a, b: (n, d) or (d,)."""
        first, second = (np.atleast_2d(np.asarray(x, np.float64)) for x in (a, b))
        for x in (first, second):
            if x.ndim != 2 or x.shape[1] != self.size:
                raise ShapeError(f"[head] expects encodings (n, {self.size}), got {x.shape}")
        if len(first) != len(second) and 1 not in (len(first), len(second)):
            raise ShapeError(f"[head] expects as many encodings a as b, got {len(first)} and {len(second)}")
        return np.asarray(1 / (1 + np.exp(-np.clip(self.logits(first, second), -700, 700))))

    def logits(self, a: Array, b: Array) -> Array:
        """As `forward`, in float64 and without a tape: of float encodings (n, size) each."""
        weight, bias = to_host(self.weight.data)[:, 0].astype(np.float64), float(self.bias.data[0])
        first, second = (to_host(x).astype(np.float64) for x in (a, b))
        return np.asarray(self._phi(first, second) @ weight + bias)

    def check_encoder(self, digest: str, size: int) -> None:
        """Raise `ArgumentError` unless this head is for the encodings of that encoder."""
        if self.encoder is None:
            raise ArgumentError(
                "[head] does not say which encoder's encodings it takes; set its `encoder` to the digest of that one"
            )
        if (self.encoder, self.size) != (digest, size):
            raise ArgumentError(
                f"[head] expects encodings of the encoder {self.encoder[:12]} ({self.size} numbers), got {digest[:12]} "
                f"({size} numbers); encodings of different encoders cannot be compared"
            )

    def fit(self, encodings: Any, pairs: tuple[Any, Any], same: Any, *, decay: float = 1e-3, steps: int = 200) -> Fit:
        """Fit on pairs of encodings, which are computed once and stay as they are.

        encodings: (n, size) float. pairs: two arrays of indices into them. same: whether a pair is of one person.
        The mean logistic loss is minimised with pairs of one person weighing as much as those of two, plus
        decay / 2 · Σ (δ_k s_k)² + 0.0005 · (c s)², where w_k = c + δ_k, s_k is the spread of φ_k and s that of Σ φ_k.
        So weights shrink towards one that all numbers share, not towards nothing: with a large decay what is left is a
        threshold on the plain distance Σ φ_k. L-BFGS from w = 0; the same pairs give the same head.

        Raises `ShapeError`, `ArgumentError` for pairs of one kind alone, indices of no encoding, or a decay below 0,
        `NonFiniteError` for encodings with NaN.
        """
        if not 0 <= real("head", "decay", decay, "of at least 0") < math.inf:
            raise ArgumentError(f"[head] expects decay of at least 0, got {decay!r}")
        z = np.asarray(encodings, np.float64)
        first, second = (np.asarray(i) for i in pairs)
        y = np.asarray(same, bool)
        if z.ndim != 2 or z.shape[1] != self.size or not first.shape == second.shape == y.shape or y.ndim != 1:
            raise ShapeError(
                f"[head] expects encodings (n, {self.size}) and pairs and same (m,), "
                f"got {z.shape}, {first.shape}, {second.shape} and {y.shape}"
            )
        _check_indices(first, second, len(z))
        ones = int(y.sum())
        if not 0 < ones < len(y):
            raise ArgumentError(f"[head] expects pairs of one person and of two, got {ones} of one among {len(y)}")
        if not np.isfinite(z).all():
            raise NonFiniteError("[head] expects finite encodings, got NaN or infinity")
        phi = self._phi(z[first], z[second])
        phi = np.concatenate([phi, phi.sum(1, keepdims=True)], axis=1)
        centre, spread = phi.mean(0), np.maximum(phi.std(0), 1e-12)
        spread[:-1] *= math.sqrt(max(1.0, decay))  # what is held tightly moves less: all directions are alike steep
        x = Tensor((phi - centre) / spread)
        share = np.where(y, 0.5 / ones, 0.5 / (len(y) - ones))
        pull = 0.5 * np.append(np.full(self.size, min(decay, 1.0)), DECAY)[:, None]
        w, b = Tensor(np.zeros((self.size + 1, 1)), True), Tensor(np.zeros(1), True)
        optimizer = optim.LBFGS([w, b])

        def closure() -> float:
            logits = ops.reshape(ops.matmul(x, w), (-1,)) + b
            losses = ops.softplus(ops.mul(logits, np.where(y, -1.0, 1.0)))
            total = ops.sum(ops.mul(losses, share)) + ops.sum(ops.mul(ops.mul(w, w), pull))
            total.backward()
            return float(total)

        values: list[float] = []
        while len(values) < max(1, steps):
            values.append(optimizer.step(closure))
            if len(values) > 1 and abs(values[-2] - values[-1]) <= _STILL * abs(values[-1]):
                break
        scaled = w.data[:, 0] / spread
        self.weight.data = (scaled[:-1] + scaled[-1])[:, None].astype(self.weight.dtype)
        self.bias.data = (b.data - centre @ scaled).astype(self.bias.dtype)
        return Fit(values[0], values[-1], len(values), ones, len(y) - ones)

    def _phi(self, a: Array, b: Array) -> Array:
        off = np.abs(a - b)
        return np.asarray(off if self.form == "absolute" else off * off / (np.abs(a) + np.abs(b) + EPS))

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write the head with its digests and what it is for; `meta` is stored beside it."""
        facts = {"architecture": ARCHITECTURE, "form": self.form, "size": self.size, "encoder": self.encoder}
        super().save(path, **{**facts, **meta})


def _check_indices(first: Array, second: Array, count: int) -> None:
    for rows in (first, second):
        if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= count):
            got = rows.dtype if rows.dtype.kind not in "iu" else f"{rows.min()} to {rows.max()}"
            raise ArgumentError(f"[head] expects pairs as indices of {count} encodings, from 0, got {got}")


def load_head(path: str | Path) -> VerificationHead:
    """A head that `VerificationHead.save` wrote; `WeightsError` when the file is damaged or something else."""
    file = weights.load(path, remedy="take another copy, or train it again with nst faces train --head")
    if file.architecture != ARCHITECTURE:
        raise WeightsError(f"[head] {file.path}: expects weights of {ARCHITECTURE}, got {file.architecture}")
    encoder: Any = file.meta.get("encoder")
    if not (encoder is None or (isinstance(encoder, str) and 0 < len(encoder) <= _MOST_NAME)):
        raise WeightsError(f"[head] {file.path}: expects the digest of an encoder, got {encoder!r:.80}")
    try:
        head = VerificationHead(file.meta["size"], file.meta["form"], encoder=encoder)
    except (KeyError, ArgumentError) as error:
        raise WeightsError(f"[head] {file.path}: its facts do not describe a head ({error})") from None
    head.load_state_dict(file.arrays, str(file.path))
    if not all(np.isfinite(array).all() for array in head.state_dict().values()):
        raise WeightsError(f"[head] {file.path}: expects finite weights, got NaN or infinity")
    return head
