"""Derives the template of `nstcore.faces.align` and measures how well it serves.

    NSTCORE_TEST_DATA=... python tools/face_template.py

`faces/dlib_reference.npz` holds 15 chips as dlib cut them, on which the encoder was trained. Each is enlarged twice,
given a margin, and searched with our detector; the template is the mean of the landmarks, in the chip's own pixels, and
of their mirror image, since people have two like halves. Then the 15 photographs are aligned with it and with others
around it, and the encodings compared with dlib's and with each other.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nstcore import faces, images, models  # noqa: E402

aligning = sys.modules["nstcore.faces.align"]  # the function has the module's name
ENLARGED, MARGIN = 2, 75  # times; pixels of the enlarged chip
Array = NDArray[np.float64]


def template(chips: NDArray[np.uint8]) -> Array:
    """Mean landmarks of the chips and of their mirror images, (5, 2)."""
    found = []
    for chip in chips:
        side = ENLARGED * len(chip)
        large = np.pad(images.resize_to(chip, side, side), ((MARGIN,) * 2, (MARGIN,) * 2, (0, 0)), mode="edge")
        found.append((faces.detect(large)[0].landmarks - MARGIN) / ENLARGED)
    mean = np.mean(found, axis=0)
    mirrored = mean[[1, 0, 2, 4, 3]]
    mirrored[:, 0] = chips.shape[2] - mirrored[:, 0]
    return np.asarray((mean + mirrored) / 2, np.float64)


def main() -> None:
    folder = Path(os.environ["NSTCORE_TEST_DATA"]) / "faces"
    with np.load(folder / "dlib_reference.npz") as reference:
        chips, descriptors, files, names = (reference[key] for key in ("chips", "descriptors", "files", "names"))
    found = template(chips)
    print("template:", found.round(1).tolist())
    photographs = [images.load(folder / "photos" / str(file)) for file in files]
    largest = [faces.detect(photograph)[0] for photograph in photographs]
    network, same = models.face_encoder(), names[:, None] == names
    pairs = np.triu(np.ones_like(same), 1)

    def measure(label: str, points: Array | None) -> None:
        if points is None:
            encodings = descriptors
        else:
            aligning.TEMPLATE = points
            encodings = network.encode(
                np.stack([faces.align(*each) for each in zip(photographs, largest, strict=True)])
            )
        apart = np.linalg.norm(encodings - descriptors, axis=1)
        distances = np.linalg.norm(encodings[:, None] - encodings, axis=2)
        one, two = distances[same & pairs], distances[~same & pairs]
        print(
            f"{label:12s} from dlib's: mean {apart.mean():.3f}, max {apart.max():.3f}; one person: mean "
            f"{one.mean():.3f}, max {one.max():.3f}; two: mean {two.mean():.3f}, min {two.min():.3f}"
        )

    measure("dlib", None)
    measure("in use", aligning.TEMPLATE.copy())
    centre = np.full(2, chips.shape[1] / 2)
    for scale in (0.94, 0.97, 1.0, 1.02, 1.04):
        measure(f"scale {scale}", (found - centre) * scale + centre)
    for shift in (-4, -2, 2, 4):
        measure(f"down {shift}", found + np.array([0, shift]))


if __name__ == "__main__":
    main()
