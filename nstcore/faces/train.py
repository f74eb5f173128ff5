"""Training an encoder on a person's own photographs, from nothing or from the face encoder of the package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import weights
from nstcore.backend.memory import reuse
from nstcore.errors import ArgumentError, NonFiniteError, OutputError, WeightsError
from nstcore.faces.align import CHIP
from nstcore.faces.head import VerificationHead
from nstcore.faces.photos import Photos, from_arrays, read_folder
from nstcore.faces.sampler import Sampler
from nstcore.faces.scores import Scores, score
from nstcore.faces.split import MOST_NOTED, Known, known_to, noted, some_people, split_people
from nstcore.faces.squares import FACE, SQUARE
from nstcore.faces.train_settings import TrainSettings
from nstcore.faces.train_state import LOOKED, load_state, save_state
from nstcore.faces.trainer import Callback, Features, Pictures, Trainer, TrainRow
from nstcore.files import check_output

Array = NDArray[Any]
KEPT_APART, TRAINED_ON = "people kept apart", "people trained on"
ENDINGS: dict[type, str] = {NonFiniteError: "not finite", OutputError: "checkpoint"}


@dataclass(frozen=True, eq=False)
class Trained:
    """What training gave: the network of the best look, and how it came there.

    scores: of the people who were not trained on, at the best look (`best_step`); None where nobody was kept apart.
    before: theirs before the first step. stopped: why it ended: "steps", "patience", "interrupted", "not finite" or
    "checkpoint", which could not be written. validation: the names of the people kept apart. left_out: what could not
    be used, with the reason. negatives_only: people with one photograph. photographs: digests of all that the network
    was trained on, in this run and before; None where the file that it started from does not say. head: of the logistic
    loss.
    """

    net: Any
    settings: TrainSettings
    history: tuple[TrainRow, ...]
    before: Scores | None
    scores: Scores | None
    best_step: int
    stopped: str
    validation: tuple[str, ...]
    left_out: tuple[str, ...]
    negatives_only: int
    photographs: tuple[str, ...] | None = ()
    head: VerificationHead | None = None

    @property
    def threshold_from(self) -> str:
        """Whose pairs the threshold of the encoder is taken from."""
        return KEPT_APART if self.scores else TRAINED_ON

    def save(self, path: str | Path, head: str | Path | None = None) -> None:
        """Write the encoder: it states its norm, architecture, chips and their size, default threshold, and how and on
        which photographs it was trained, these as digests.

        head: where the head of the logistic loss is written, with the digest of this encoder, for `Gallery.set_head`.
        """
        for name, array in self.net.state_dict().items():
            if not np.isfinite(array).all():
                raise NonFiniteError(f"[train] expects finite weights to write, got NaN or infinity in {name}")
        if head is not None and self.head is None:
            raise ArgumentError(f"[train] the {self.settings.loss} loss trains no head that could be written")
        digests = self.photographs if self.photographs and len(self.photographs) <= MOST_NOTED else None
        facts = {"settings": self.settings.to_json(), "best_step": self.best_step, "stopped": self.stopped,
                 "threshold_from": self.threshold_from, "photographs": digests}  # fmt: skip
        if self.scores:
            facts["validation"] = self.scores.to_json()
        self.net.save(path, source="trained by nst faces train", training=facts)
        if head is not None and self.head is not None:
            self.head.encoder = weights.load(path).arrays_digest
            self.head.save(head, training=facts)


def train_encoder(
    data: str | Path | Any,
    labels: Sequence[Any] | Array | None = None,
    *,
    start: str | Path = "scratch",
    last: int = 2,
    align: bool | None = None,
    size: int = 128,
    side: int = 64,
    checkpoint: str | Path | None = None,
    resume: str | Path | None = None,
    callback: Callback | None = None,
    progress: Callable[[int, int], object] | None = None,
    **choices: Any,
) -> Trained:
    """Train an encoder with triplets or pairs, and keep the weights that were best for people not trained on.

    data: a folder with a folder of photographs for each class, or pictures (n, h, w) or (n, h, w, 3) with `labels`.
    start: "scratch" (`models.embedding_net` of `size` numbers and `side` pixels), "fine-tune" (the face encoder of the
    package, its `last` layers, see `FaceEncoder.unfreeze`), or the ``.npz`` of an earlier training to go on from; none
    of the people whom that one was trained on is kept apart.
    align: True finds the face in each photograph of a folder and turns it upright, False takes the middle square of
    each. Of arrays the middle square is taken in any case; True then says that they are faces that `align` has turned.
    None: what the file says that is gone on from, else True for a folder, False for arrays. The encoder states it
    (`Encoder.chips`), and treats pictures in the same way when it is used.
    checkpoint: where the state is written every `evaluate_every` steps and at the end. resume: such a file to continue,
    with the same photographs and choices. callback: gets the `TrainRow` of each step. progress: see `read_folder`.
    choices: the fields of `TrainSettings`, and those of its `Augmentation` (flip, shift, scale, light).

    Ctrl-C ends the run between two steps and keeps what was reached. A checkpoint that cannot be written ends it, too:
    ``result`` of the `OutputError` is what was reached. The default threshold of the encoder is that of the highest
    balanced accuracy on the people kept apart; with validation=0 on those trained on, whom nothing unseen has judged.
    Raises `ArgumentError`, `ShapeError`, `ImageError`, `WeightsError`, `OutputError`, and `NonFiniteError`, whose
    ``result`` is what was reached before.
    """
    settings = TrainSettings.of(choices)
    if checkpoint is not None:
        check_output(checkpoint)
    begin = _start(start, last, size, side, settings.seed)
    net = begin.net
    net.chips = _chips(align, begin, isinstance(data, (str, Path)))
    photos = _photos(data, labels, net.side if hasattr(net, "side") else CHIP, net.chips == FACE, progress)
    train, held = split_people(photos, settings, begin.known)
    sampler = Sampler(photos.labels[train], settings.people, settings.photos, settings.seed)
    run = _Run(begin, photos, train, held, sampler, settings, checkpoint, callback)
    with reuse():
        return run(resume)


class _Run:
    """One run: steps, looks at the people kept apart, the best weights, checkpoints."""

    def __init__(
        self, begin: _Start, photos: Photos, train: Array, held: Array, sampler: Sampler, settings: TrainSettings,
        checkpoint: str | Path | None, callback: Callback | None,
    ) -> None:  # fmt: skip
        self.begin, self.net, net, last = begin, begin.net, begin.net, begin.last
        self.photos, self.train, self.held, self.sampler, self.settings = photos, train, held, sampler, settings
        self.checkpoint, self.callback = checkpoint, callback
        self.inputs: Any
        if hasattr(net, "side"):  # the small network learns from pictures, the large one from frozen layers' features
            self.inputs = Pictures(net, photos.pictures)
        else:
            mirrored = photos.pictures[:, :, ::-1]
            self.inputs = Features(net, last, net.features(photos.pictures, last), net.features(mirrored, last))
        small = hasattr(net, "side")
        start = hashlib.sha256(b"".join(a.tobytes() for a in net.state_dict().values())).hexdigest()
        self.facts = {
            "settings": settings.to_json(), "network": "embedding_net" if small else "face_encoder",
            "size": net.facts["size"], "side": net.side if small else CHIP, "last": None if small else last,
            "starting weights": start, "photographs": photos.digest(),
        }  # fmt: skip
        inner = _Subset(self.inputs, train)
        self.trainer = Trainer(net, inner, photos.labels[train], sampler, settings)
        self.before = self._look()
        self.best = self._weights()
        self.scores, self.best_step, self.looks_since = self.before, 0, 0

    def __call__(self, resume: str | Path | None) -> Trained:
        if resume is not None:
            self._resume(resume)
        with self.trainer.signals:
            stopped, error = self._steps()
            try:
                with self.trainer.signals.hold():  # a second Ctrl-C does not lose what the first one left
                    if not isinstance(error, OutputError):
                        error = self._last_state(error)
                    result = self._result(stopped if error is None else ENDINGS[type(error)])
            except KeyboardInterrupt:
                pass
        if error is not None:
            error.result = result
            raise error
        return result

    def _steps(self) -> tuple[str, NonFiniteError | OutputError | None]:
        """All steps that are left, and why there are no more."""
        try:
            while self.trainer.steps < self.settings.steps:
                if self._worn_out():
                    return "patience", None
                self._step()
        except KeyboardInterrupt:
            return "interrupted", None
        except (NonFiniteError, OutputError) as error:
            return "", error
        return "steps", None

    def _step(self) -> None:
        """A step with all that belongs to it: a run that is interrupted and resumed has looked as often as another."""
        with self.trainer.signals.hold():
            row = self.trainer.step()
            last = row.step == self.settings.steps
            if row.step % self.settings.evaluate_every == 0 or last:
                found = self._look()
                if found:
                    row = replace(row, eer=found.eer, auc=found.auc, one_shot=found.one_shot, threshold=found.threshold)
                    self.trainer.rows[-1] = row
                    if self._judge(found, row.step):
                        self.best = self._weights()
                if self.checkpoint is not None:
                    self._save()
        if self.callback:
            self.callback(row)

    def _judge(self, found: Scores, step: int) -> bool:
        """Whether this look is the best: the fewest errors for the people kept apart, then the largest area.

        Weights that nothing has trained are no result: the first look takes their place whatever it sees.
        """
        nothing_yet = self.scores is None or (self.begin.untrained and not self.best_step)
        better = nothing_yet or (found.eer, -found.auc) < (self.scores.eer, -self.scores.auc)  # type: ignore[union-attr]
        if better:
            self.scores, self.best_step, self.looks_since = found, step, 0
        else:
            self.looks_since += 1
        return better

    def _worn_out(self) -> bool:
        return bool(len(self.held)) and 0 < self.settings.patience <= self.looks_since

    def _look(self) -> Scores | None:
        if not len(self.held):
            return None
        encodings = self.inputs.encode(self.held)
        if not np.isfinite(encodings).all():
            raise NonFiniteError(
                f"[train] step {self.trainer.steps}: the encodings of the people kept apart are not finite"
            )
        return score(encodings, self.photos.labels[self.held])

    def _weights(self) -> dict[str, Array]:
        found = {f"net.{name}": a.copy() for name, a in self.net.state_dict().items()}
        if self.trainer.head:
            found.update({f"head.{name}": a.copy() for name, a in self.trainer.head.state_dict().items()})
        return found

    def _save(self) -> None:
        save_state(str(self.checkpoint), self.trainer, self.best, self.facts)

    def _resume(self, path: str | Path) -> None:
        self.best = load_state(path, self.trainer, self.best, self.facts)
        for row in self.trainer.rows:  # the looks so far, judged again
            if self.before is not None and row.eer is not None:
                looked = {name: getattr(row, name) for name in LOOKED}
                self._judge(replace(self.before, **looked), row.step)

    def _last_state(self, error: NonFiniteError | None) -> NonFiniteError | OutputError | None:
        """Write the last checkpoint; gives the error that ends the run, that of the writing with it."""
        if self.checkpoint is None or not self.trainer.steps:
            return error
        try:
            self._save()
        except OutputError as failure:
            return failure if error is None else NonFiniteError(f"{error}; {failure}")
        return error

    def _result(self, stopped: str) -> Trained:
        """The run's result; the network has the weights of the best look from here on."""
        if not len(self.held):  # nobody to judge by: the last weights
            self.best, self.best_step = self._weights(), self.trainer.steps
        elif self.begin.untrained and self.trainer.steps and not self.best_step:  # ended before the first look
            self._take_last()
        self.net.load_state_dict({n[4:]: a for n, a in self.best.items() if n.startswith("net.")})
        head = self.trainer.head
        if head:
            head.load_state_dict({n[5:]: a for n, a in self.best.items() if n.startswith("head.")})
        judged = self.scores or self._own_scores()
        if judged is not None:
            self.net.threshold = judged.threshold
        return Trained(
            self.net, self.settings, tuple(self.trainer.rows), self.before, self.scores, self.best_step, stopped,
            tuple(self.photos.names[i] for i in np.unique(self.photos.labels[self.held])), self.photos.left_out,
            self.sampler.negatives_only, noted(self.begin.known, self.photos, self.train), head,
        )  # fmt: skip

    def _take_last(self) -> None:
        """The last weights are the best, unless what they give is not finite."""
        try:
            self.scores = self._look()
        except NonFiniteError:
            return
        self.best, self.best_step = self._weights(), self.trainer.steps

    def _own_scores(self) -> Scores | None:
        """Of people who were trained on, where there is nobody else; None for encodings that are not finite."""
        own = self.train[some_people(self.photos.labels[self.train], self.settings.seed)]
        encodings = self.inputs.encode(own)
        return score(encodings, self.photos.labels[own]) if np.isfinite(encodings).all() else None


@dataclass(frozen=True, eq=False)
class _Subset:
    """The inputs by the numbers of the photographs that are trained on."""

    inputs: Any
    index: Array

    def batch(self, index: Array, how: Any, rng: np.random.Generator) -> Any:
        return self.inputs.batch(self.index[index], how, rng)

    def encode(self, index: Array) -> Array:
        return np.asarray(self.inputs.encode(self.index[index]))


@dataclass(frozen=True, eq=False)
class _Start:
    """The network that a run begins with, how many of its layers are trained, and what it was trained on before."""

    net: Any
    last: int = 0
    untrained: bool = False
    known: Known = frozenset()
    from_file: bool = False


def _start(start: str | Path, last: int, size: int, side: int, seed: int) -> _Start:
    from nstcore import models
    from nstcore.faces.encoder import ARCHITECTURE, REMEDY, TRAINED

    if not isinstance(start, (str, Path)):
        raise ArgumentError(
            f"[train] expects start as scratch, fine-tune, or the file of an encoder, got {start!r:.80}"
        )
    if start == "scratch":
        return _Start(models.embedding_net(size, side, seed=seed), untrained=True)
    if start == "fine-tune":
        return _Start(models.face_encoder().unfreeze(last), last)
    if not Path(start).is_file():
        raise WeightsError(
            f"[train] {start}: there is no such file; the start is scratch, fine-tune, or the file of an encoder"
        )
    file = weights.load(start, remedy=REMEDY)
    if file.architecture not in (ARCHITECTURE, TRAINED):
        raise WeightsError(
            f"[train] {start}: expects an encoder, {TRAINED} or {ARCHITECTURE}, to go on from, got {file.architecture}"
        )
    known = known_to(file.meta)
    if file.architecture == ARCHITECTURE:
        return _Start(models.face_encoder(start).unfreeze(last), last, known=known, from_file=True)
    return _Start(models.embedding_net(weights=start), known=known, from_file=True)


def _chips(align: bool | None, begin: _Start, folder: bool) -> str:
    """What the encoder is trained on, from now on."""
    if align is None:
        return str(begin.net.chips) if begin.from_file else FACE if folder else SQUARE
    if not isinstance(align, (bool, np.bool_)):
        raise ArgumentError(f"[train] expects align as True, False or None, got {align!r}")
    return FACE if align else SQUARE


def _photos(data: Any, labels: Any, side: int, align: bool, progress: Any) -> Photos:
    if isinstance(data, (str, Path)):
        if labels is not None:
            raise ArgumentError("[train] expects labels beside pictures; a folder's classes are its folders")
        return read_folder(data, side, align, progress)
    if labels is None:
        raise ArgumentError("[train] expects labels beside pictures, got none")
    return from_arrays(data, labels, side)
