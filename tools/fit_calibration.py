"""Fits the threshold and the probability that come with the face encoder, and writes nstcore/faces/calibration.json.

Usage: python tools/fit_calibration.py DATA [--check]

DATA is the folder that tests know as NSTCORE_TEST_DATA. Two sets of photographs are read, every face is found, aligned
and encoded by the package itself, and every pair within a set is taken:

    faces/photos/<person>/*   15 colour photographs of 6 people, at all sizes
    faces/orl.npz             ORL: 400 grey pictures, 92 x 112 pixels, of 40 people

The curve weighs the two sets alike, and within each the pairs of one person and those of two. The threshold is where
the curve passes one half, to two digits, so that the answer and the probability agree. --check writes nothing and says
whether the file is what would be written.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nstcore.faces._statistics import Sample, fit_logistic
from nstcore.faces.calibration import Calibration
from nstcore.faces.encoder import SHIPPED
from nstcore.faces.folders import encode_people, people_in
from nstcore.faces.pairs import Pairs, all_pairs
from nstcore.faces.pipeline import encode_faces


@dataclass(frozen=True)
class Set:
    """Pairs of one set, and what is told about it."""

    name: str
    pairs: Pairs
    photographs: int
    without_face: int

    def __str__(self) -> str:
        without = f", {self.without_face} without a face found" if self.without_face else ""
        same = int(self.pairs.same.sum())
        return (
            f"{self.name} ({self.photographs} photographs of {self.pairs.people} people{without}: {same} pairs of one "
            f"person, {len(self.pairs.same) - same} of two)"
        )


def photographs(folder: Path) -> Set:
    """The colour photographs."""
    found = encode_people(people_in(folder))
    pairs = all_pairs(found.encodings, found.people)
    return Set("photographs of public figures", pairs, len(found.paths) + len(found.failures), len(found.failures))


def orl(path: Path) -> Set:
    """ORL, as it is stored: its faces are large enough for the detector."""
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    found = [encode_faces(image) for image in images]
    seen = np.array([bool(faces) for faces in found])
    encodings = np.stack([faces[0][1] for faces in found if faces])
    return Set("ORL", all_pairs(encodings, labels[seen]), len(images), int((~seen).sum()))


def fit(sets: list[Set]) -> Calibration:
    """The curve over all sets, each weighing the same, and where it passes one half."""
    slope, offset = fit_logistic(*(Sample(s.pairs.distances, s.pairs.same) for s in sets))
    same = sum(int(s.pairs.same.sum()) for s in sets)
    different = sum(len(s.pairs.same) for s in sets) - same
    source = "; ".join(map(str, sets)) + "; the sets weigh the same; tools/fit_calibration.py"
    return Calibration(round(-offset / slope, 2), round(slope, 3), round(offset, 3), False, same, different, source)


def errors(sets: list[Set], threshold: float) -> str:
    """The errors in each set, in a line each."""
    lines = []
    for s in sets:
        accepted, same = s.pairs.distances <= threshold, s.pairs.same
        wrong, twos = int((accepted & ~same).sum()), int((~same).sum())
        lines.append(
            f"  {threshold:.3f}  {s.name}: {(~accepted & same).sum()} of {same.sum()} pairs of one person refused, "
            f"{wrong} of {twos} of two accepted ({wrong / twos:.2%})"
        )
    return "\n".join(lines)


def main() -> int:
    """Fit, tell, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    sets = [photographs(arguments.data / "faces/photos"), orl(arguments.data / "faces/orl.npz")]
    found = fit(sets)
    text = json.dumps(found.to_json(), indent=2) + "\n"
    print(text, end="")
    for threshold in sorted({0.5, found.threshold, 0.6}):
        print(errors(sets, threshold))
    if arguments.check:
        same = SHIPPED.read_text(encoding="utf-8") == text
        print("the stored file is the same" if same else "the stored file differs")
        return 0 if same else 1
    SHIPPED.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
