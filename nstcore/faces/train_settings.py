"""What can be chosen about a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from nstcore.errors import ArgumentError
from nstcore.faces.augment import Augmentation, real
from nstcore.faces.mining import MININGS
from nstcore.ops._op import whole

LOSSES = ("triplet", "contrastive", "logistic")
AUGMENTATION = tuple(f.name for f in fields(Augmentation))
# Encodings of length 1 that have nothing in common are √2 apart, so a smaller margin pushes hardly any pair, while
# every pair of one class is pulled: people never seen are mixed up more than before training. 2 is as far as it goes.
# Of triplets the margin is a difference of squared distances, not a distance.
MARGINS = {"triplet": 0.2, "contrastive": 2.0, "logistic": 0.2}


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a run, with the photographs: the same settings give the same encoder, bit for bit.

    loss: "triplet"; "contrastive" or "logistic" on pairs, the second through a `VerificationHead` that is trained too.
    mining: of the triplets, one of `MININGS`. margin: of triplets in squared distance, 0.2; of pairs in
    distance, 2.0. With the logistic loss it only counts which triplets would have a loss.
    steps: at most. people, photos: of each in a batch. learning_rate, weight_decay: of AdamW. warm_up: steps until the
    rate is reached; it then falls to a hundredth along a cosine. clip: largest length of the gradient; 0 takes any.
    augmentation: of pictures. validation: the share of the people with two or more photographs who are not trained on.
    evaluate_every: steps between two looks at them. patience: looks without a better one after which it stops; 0 never
    does. seed: of all that is random.

    The command takes its defaults from here.
    """

    loss: str = "triplet"
    mining: str = "semi_hard"
    margin: Any = None  # a float from here on: that of the loss unless it was given
    steps: int = 600
    people: int = 16
    photos: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warm_up: int = 20
    clip: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation: float = 0.2
    evaluate_every: int = 25
    patience: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("loss", LOSSES), ("mining", MININGS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                raise ArgumentError(f"[train] expects {name} to be one of {', '.join(choices)}, got {value!r}")
        if self.margin is None:
            object.__setattr__(self, "margin", MARGINS[self.loss])
        for name, least in (("steps", 1), ("people", 2), ("photos", 2), ("warm_up", 0), ("evaluate_every", 1),
                            ("patience", 0), ("seed", 0)):  # fmt: skip
            object.__setattr__(self, name, _whole(name, getattr(self, name), least))
        for name in ("margin", "learning_rate", "weight_decay", "clip"):
            above = name in ("margin", "learning_rate")
            value = real("train", name, getattr(self, name), "above 0" if above else "of at least 0")
            if not 0 <= value < float("inf") or (above and not value):
                raise ArgumentError(f"[train] expects {name} {'above 0' if above else 'of at least 0'}, got {value!r}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "validation", real("train", "validation", self.validation, "in [0, 1)"))
        if not 0 <= self.validation < 1:
            raise ArgumentError(f"[train] expects validation in [0, 1), got {self.validation!r}")
        if not isinstance(self.augmentation, Augmentation):
            raise ArgumentError(f"[train] expects augmentation as an Augmentation, got {self.augmentation!r:.80}")
        if self.warm_up >= self.steps:
            object.__setattr__(self, "warm_up", self.steps - 1)

    def to_json(self) -> dict[str, Any]:
        """Give all choices as plain values."""
        return asdict(self)

    @classmethod
    def names(cls) -> list[str]:
        """The names of the choices."""
        return [f.name for f in fields(cls)]

    @classmethod
    def of(cls, choices: Mapping[str, Any]) -> TrainSettings:
        """The settings with these fields; those of `Augmentation` (flip, shift, scale, light) count as fields, too.

        Raises `ArgumentError` for a name that is none.
        """
        known = [*cls.names(), *AUGMENTATION]
        unknown = sorted(set(choices) - set(known))
        if unknown:
            raise ArgumentError(f"[train] has no choice {unknown[0]!r}; it has {', '.join(known)}")
        settings = cls(**{name: value for name, value in choices.items() if name not in AUGMENTATION})
        changed = {name: choices[name] for name in AUGMENTATION if name in choices}
        return replace(settings, augmentation=replace(settings.augmentation, **changed)) if changed else settings


def _whole(name: str, value: Any, least: int) -> int:
    try:
        number = whole("train", name, value)
    except ArgumentError:
        number = least - 1
    if number < least:
        raise ArgumentError(f"[train] expects {name} as a whole number of at least {least}, got {value!r}")
    return number
