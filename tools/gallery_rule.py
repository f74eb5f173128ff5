"""Which rule combines several photographs of a person best: nearest, mean or medoid (decision record 0008).

    python tools/gallery_rule.py FOLDER     FOLDER has orl.npz (images, labels), and photos/<person>/*.jpg

Distances from each photograph that is not enrolled to every person, by each rule, with so many photographs enrolled
of each, drawn at random again and again. Told are the equal error rate, the rates at the shipped threshold, the
false-reject rate at the threshold with one false acceptance in 1000, and how often the nearest person is the wrong one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nstcore as nst
from nstcore.models.face_layout import CHIP

Array = NDArray[Any]
THRESHOLD = 0.6  # of two single photographs
DRAWS, ENLARGED = 50, 3


def _encodings(pictures: list[Array]) -> Array:
    """One encoding a picture (n, 128); where no face is found, of the middle of the picture."""
    chips = []
    for picture in pictures:
        faces = nst.faces.detect(picture, max_faces=1)
        if faces:
            chips.append(nst.faces.align(picture, faces[0]))
        else:
            side = min(picture.shape[:2])
            top, left = ((length - side) // 2 for length in picture.shape[:2])
            middle = picture[top : top + side, left : left + side]
            chips.append(nst.images.resize_to(middle, CHIP, CHIP))
    print(f"{len(pictures)} pictures", file=sys.stderr)
    return nst.models.face_encoder().encode(np.stack(chips))


def _nearest(probes: Array, own: Array) -> Array:
    return np.sqrt(nst.ops.pairwise_sqdist(probes, own)).min(axis=1)


def _mean(probes: Array, own: Array) -> Array:
    return _nearest(probes, own.mean(axis=0, keepdims=True))


def _medoid(probes: Array, own: Array) -> Array:
    middle = np.sqrt(nst.ops.pairwise_sqdist(own, own)).sum(axis=1).argmin()
    return _nearest(probes, own[middle : middle + 1])


RULES: dict[str, Callable[[Array, Array], Array]] = {"nearest": _nearest, "mean": _mean, "medoid": _medoid}


def _trial(encodings: Array, labels: Array, enrolled: Array, rule: str) -> tuple[Array, Array, float]:
    """Distances to the own person, to all others, and the share of probes whose nearest person is another."""
    probes, who = encodings[~enrolled], labels[~enrolled]
    people = np.unique(labels[enrolled])
    table = np.stack([RULES[rule](probes, encodings[enrolled & (labels == p)]) for p in people], axis=1)
    own = who[:, None] == people
    probed = own.any(axis=1)  # a probe of somebody who is not enrolled is a stranger
    wrong = people[table[probed].argmin(axis=1)] != who[probed]
    return table[own], table[~own], float(wrong.mean())


def _rates(same: Array, other: Array, threshold: float) -> tuple[float, float]:
    return float((other <= threshold).mean()), float((same > threshold).mean())


def _equal_error(same: Array, other: Array) -> float:
    steps = np.sort(np.concatenate([same, other]))
    accepts = np.searchsorted(np.sort(other), steps, side="right") / len(other)
    rejects = 1 - np.searchsorted(np.sort(same), steps, side="right") / len(same)
    nearest = np.abs(accepts - rejects).argmin()
    return float((accepts[nearest] + rejects[nearest]) / 2)


def _row(name: str, count: int, rule: str, trials: list[tuple[Array, Array, float]]) -> str:
    same, other = (np.concatenate([trial[i] for trial in trials]) for i in (0, 1))
    accepted, rejected = _rates(same, other, THRESHOLD)
    strict = float(np.partition(other, len(other) // 1000)[len(other) // 1000])
    missed = float((same >= strict).mean())
    wrong = float(np.mean([trial[2] for trial in trials]))
    figures = f"{_equal_error(same, other):.2%} | {accepted:.3%} | {rejected:.2%} | {strict:.3f} | {missed:.2%}"
    return f"| {name} | {count} | {rule} | {figures} | {wrong:.2%} |"


def main(folder: Path) -> None:
    """Print the table."""
    with np.load(folder / "orl.npz") as orl:
        images, labels = orl["images"], orl["labels"]
    enlarged = [nst.images.resize_to(i, ENLARGED * i.shape[0], ENLARGED * i.shape[1]) for i in images]
    grey = _encodings([np.repeat(picture[:, :, None], 3, axis=2) for picture in enlarged])
    files = sorted((folder / "photos").glob("*/*"))
    colour = _encodings([nst.images.load(path) for path in files])
    names = np.array([path.parent.name for path in files])
    print(
        "| photographs | enrolled | rule | equal error | accepted, 0.6 | rejected, 0.6 | at 1/1000 | rejected | wrong |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for count in (1, 2, 3, 5, 8):
        rng = np.random.default_rng(count)
        masks = [_some(labels, count, rng) for _ in range(DRAWS)]
        for rule in RULES:
            print(_row("ORL", count, rule, [_trial(grey, labels, mask, rule) for mask in masks]))
    for rule in RULES:
        others = ~np.eye(len(files), dtype=bool)
        print(
            _row(
                "15, leave one out",
                14,
                rule,
                [_trial(colour, names, mask, rule) for mask in others if _known(names, mask)],
            )
        )


def _some(labels: Array, count: int, rng: np.random.Generator) -> Array:
    """`count` photographs of each person."""
    mask = np.zeros(len(labels), bool)
    for person in np.unique(labels):
        mask[rng.permutation(np.flatnonzero(labels == person))[:count]] = True
    return mask


def _known(names: Array, enrolled: Array) -> bool:
    """Whether the one that is left out has another photograph."""
    return bool(np.isin(names[~enrolled], names[enrolled]).all())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
