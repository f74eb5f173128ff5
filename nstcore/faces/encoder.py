"""The encoder as verification and galleries use it: the network, who it is, and what its distances mean."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nstcore import weights
from nstcore._chips import FACE
from nstcore.backend import current_backend
from nstcore.errors import ArgumentError, ShapeError, WeightsError
from nstcore.faces.align import jittered_chips
from nstcore.faces.calibration import Calibration
from nstcore.files import PathLike
from nstcore.ops._op import whole

if TYPE_CHECKING:
    from nstcore.models import EmbeddingNet, FaceEncoder
    from nstcore.weights import WeightsFile

Array = NDArray[Any]

ARCHITECTURE, TRAINED = "face_encoder", "embedding_net"
SHIPPED = Path(__file__).parent / "calibration.json"
REMEDY = "take another copy, or make it again with nst faces train or nst weights convert"
_MAX_JITTER = 1000


@dataclass(frozen=True, eq=False)
class Encoder:
    """A face encoder. Encodings of two encoders can be compared only where `digest` is the same.

    net: the network. id: its architecture. digest: SHA-256 over its weights, in hex.
    size: numbers in an encoding. chip: side of the faces that it takes, in pixels.
    norm: "none", or "l2" where every encoding has length 1.
    calibration: the default threshold and probability of its distances.
    chips: what it takes of a picture: "face", each face that is found, turned upright; or "square", the middle square
        of the picture, where nothing is looked for (``nst faces train --no-align``).
    """

    net: FaceEncoder | EmbeddingNet
    id: str
    digest: str
    size: int
    chip: int
    norm: str
    calibration: Calibration
    chips: str = FACE

    def encode(self, chips: Any, *, flip: bool = False, jitter: int = 0, seed: int = 0) -> Array:
        """The encodings (n, size) of n faces, float32.

        chips: what `align` gives, or squares, RGB, (chip, chip, 3) or (n, chip, chip, 3), float in [0, 1] or
            uint8; the encoder in the package takes 150 pixels.
        flip: take the mean over each chip and its mirror image.
        jitter: take the mean over so many slightly turned, scaled and moved copies instead, every second of them
            mirrored, which takes as many times longer; 0 takes the chip as it is.
        seed: of the copies.

        Raises `ShapeError`, `DTypeError`, `ImageError` for chips of another shape, type or range, `ArgumentError`.
        """
        array, copies = np.asarray(chips), check_jitter(jitter, flip)
        array = array[None] if array.ndim == 3 else array
        if array.ndim != 4 or array.shape[1:] != (self.chip, self.chip, 3):
            raise ShapeError(f"[encode] expects chips (n, {self.chip}, {self.chip}, 3), got {array.shape}")
        self.net.to(current_backend())  # once, not for every batch
        if flip:
            return self.mean(self.net.encode(array), self.net.encode(array[:, :, ::-1]))
        if not copies:
            return self.net.encode(array)
        found = np.empty((len(array), self.size), self.net.dtype)
        for index, chip in enumerate(array):
            found[index] = self.mean(*self.net.encode(jittered_chips(chip, copies, seed=seed)[0]))
        return found

    def mean(self, *encodings: Array) -> Array:
        """The mean of encodings of one face, brought back to length 1 where the encoder's have it."""
        found = np.mean(encodings, axis=0, dtype=np.float64)
        if self.norm == "l2":
            found /= np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), np.finfo(np.float64).tiny)
        return found.astype(encodings[0].dtype)


def load_encoder(path: PathLike | None = None) -> Encoder:
    """The encoder in the package, loaded once, or that of a file of ``nst weights convert`` or ``nst faces train``.

    A file of the same weights in float32 has the calibration of the package. Other weights have the threshold that
    their file states and, until `calibrate` gives them one, a probability of 0.5 at any distance.

    Raises `WeightsError` when the file is missing, damaged, of another architecture, or has NaN among its weights.

    >>> encoder = load_encoder()
    >>> encoder.id, encoder.size, encoder.chip, encoder.norm
    ('face_encoder', 128, 150, 'none')
    """
    if path is None:
        return _embedded()
    file = weights.load(Path(path), remedy=REMEDY)
    for name, array in file.arrays.items():
        if not np.isfinite(array).all():
            raise WeightsError(f"[encoder] {file.path}: expects finite weights, got NaN or infinity in {name}")
    return _build(file)


def encode(chips: Any, *, flip: bool = False, jitter: int = 0, seed: int = 0, encoder: Encoder | None = None) -> Array:
    """The encodings (n, 128) of aligned faces, float32, by the encoder in the package or another; see `Encoder.encode`.

    >>> encode(np.zeros((150, 150, 3), np.uint8)).shape
    (1, 128)
    """
    return (encoder or load_encoder()).encode(chips, flip=flip, jitter=jitter, seed=seed)


def check_jitter(jitter: Any, flip: bool) -> int:
    """`jitter` as a number; `ArgumentError` when it is none, or stands beside `flip`."""
    copies = whole("encode", "jitter", jitter)
    if not 0 <= copies <= _MAX_JITTER:
        raise ArgumentError(f"[encode] expects jitter from 0 to {_MAX_JITTER}, got {copies}")
    if copies and flip:
        raise ArgumentError("[encode] expects flip or jitter, got both; every second jittered copy is mirrored already")
    return copies


@functools.cache
def _embedded() -> Encoder:
    file = weights.load(weights.embedded(ARCHITECTURE))
    return _build(file, Calibration(**json.loads(SHIPPED.read_text(encoding="utf-8"))))


def _build(file: WeightsFile, calibration: Calibration | None = None) -> Encoder:
    from nstcore.models import face_encoder
    from nstcore.models.face_layout import CHIP as SIDE

    if file.architecture == TRAINED:
        return _trained(file)
    if file.architecture != ARCHITECTURE:
        raise WeightsError(
            f"[encoder] {file.path}: expects weights of {ARCHITECTURE} or {TRAINED}, got {file.architecture}"
        )
    facts = _facts(file)
    net = face_encoder(file.path)
    calibration = calibration or _calibration(file, facts["threshold"])
    return Encoder(
        net, file.architecture, file.arrays_digest, facts["size"], SIDE, facts["norm"], calibration, net.chips
    )


def _trained(file: WeightsFile) -> Encoder:
    """The small network that `train_encoder` trains from scratch, with the threshold that its file states."""
    from nstcore.models import embedding_net

    net = embedding_net(weights=file.path)
    if net.threshold is None:
        raise WeightsError(f"[encoder] {file.path}: states no threshold; train it with people to validate on")
    training = file.meta.get("training")
    whose = training.get("threshold_from") if isinstance(training, Mapping) else None
    people = whose if whose in ("people kept apart", "people trained on") else "people of the training"
    source = f"none: the threshold is that of the {people}; nst faces calibrate fits a probability"
    calibration = Calibration(net.threshold, 0.0, 0.0, False, 0, 0, source)
    return Encoder(net, TRAINED, file.arrays_digest, net.size, net.side, net.facts["norm"], calibration, net.chips)


def _facts(file: WeightsFile) -> Mapping[str, Any]:
    """What the file says about its encodings, checked."""
    from nstcore.models.face_encoder import FACTS

    stated = file.meta.get("encoding", {})
    if not isinstance(stated, Mapping):
        raise WeightsError(f"[encoder] {file.path}: expects facts about the encoding, got {type(stated).__name__}")
    facts = {**FACTS, **stated}
    threshold = facts["threshold"]
    sound = isinstance(threshold, (int, float)) and 0 < threshold < float("inf")
    if not sound or facts["norm"] not in ("none", "l2") or facts["distance"] != "euclidean":
        raise WeightsError(
            f"[encoder] {file.path}: its facts about the encoding mean nothing here: {dict(stated)!r:.200}"
        )
    if facts["size"] != FACTS["size"]:
        raise WeightsError(
            f"[encoder] {file.path}: expects encodings of {FACTS['size']}, its facts say {facts['size']!r}"
        )
    return MappingProxyType(facts)


def _calibration(file: WeightsFile, threshold: float) -> Calibration:
    """That of the package for the weights in the package, or those that they were rounded from."""
    shipped = weights.load(weights.embedded(ARCHITECTURE)).arrays
    with np.errstate(over="ignore"):
        same = [np.array_equal(file.arrays[key].astype(values.dtype), values) for key, values in shipped.items()]
    if all(same):
        return _embedded().calibration
    source = "none: these weights come without pairs; nst faces calibrate fits threshold and probability"
    return Calibration(float(threshold), 0.0, 0.0, False, 0, 0, source)
