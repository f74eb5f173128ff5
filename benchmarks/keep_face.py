"""How many portraits are still recognised after they are painted: benchmarks/keep_face.py photographs... painting.jpg.

Of each photograph, head and shoulders are painted without and with `keep_face`. The result is seen as a gallery sees
it: the face is detected in the painted picture, and its encoding compared with those of the photograph, of the other
photographs of the same person (those in the same folder) and of other people. Prints the distances, and how many are
below the threshold.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import faces
from nstcore.images import load, save
from nstcore.style import transfer

Array = NDArray[Any]


def encoding(picture: Any) -> Array | None:
    """Of the largest face that is found, or None."""
    found = faces.detect(picture, max_faces=1)
    return faces.encode(faces.align(picture, found[0]))[0] if found else None


def portrait(picture: Array, size: int) -> Array:
    """Head and shoulders: a square of three faces' width around the largest face."""
    left, top, right, bottom = faces.detect(picture, max_faces=1)[0].box
    x, y, side = (left + right) / 2, (top + bottom) / 2, 1.5 * max(right - left, bottom - top)
    part = picture[max(0, int(y - side)) : int(y + side), max(0, int(x - side)) : int(x + side)]
    return load(np.ascontiguousarray(part), size=size)


def row(label: str, encoded: Array | None, own: int, known: Sequence[Array], people: Sequence[str]) -> list[Any]:
    """Label, distance to the photograph itself, to the nearest other one of the person, to the nearest other person."""
    if encoded is None:
        return [label, np.inf, np.inf, np.inf]
    distances = np.linalg.norm(np.stack(known) - encoded, axis=1)
    mine = [d for i, d in enumerate(distances) if people[i] == people[own] and i != own]
    others = [d for i, d in enumerate(distances) if people[i] != people[own]]
    return [label, distances[own], min(mine, default=np.nan), min(others, default=np.nan)]


def report(name: str, rows: list[list[Any]], threshold: float) -> None:
    """One line: how many are verified, the mean distances."""
    table = np.array([r[1:] for r in rows], float)
    seen = np.isfinite(table[:, 0])
    same = int((table[:, 0] <= threshold).sum())
    other = int((table[:, 1] <= threshold).sum())
    pairs = int((~np.isnan(table[:, 1])).sum())
    taken = int((table[:, 2] <= threshold).sum())
    print(
        f"{name}: face found {int(seen.sum())} of {len(rows)}; verified against its photograph {same} of {len(rows)} "
        f"(mean distance {table[seen, 0].mean():.2f}); against another photograph {other} of {pairs}; "
        f"taken for another person {taken}",
        flush=True,
    )


def main() -> None:
    """Print one line for each picture, and one for each weight."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", help="photographs in folders named after the person")
    parser.add_argument("painting")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--weights", default="0,5e4", help="of keep_face; 0 leaves it out")
    parser.add_argument("--colors", default="style")
    parser.add_argument("--keep", help="folder for the pictures")
    arguments = parser.parse_args()
    threshold = faces.load_encoder().calibration.threshold
    paths = [Path(p) for p in arguments.photos]
    whole = [load(p, size=1024) for p in paths]
    people, photos = [p.parent.name for p in paths], [portrait(p, arguments.size) for p in whole]
    encoded = [encoding(p) for p in whole]  # as a gallery that has the photographs
    sizes = [e for e in encoded if e is not None]
    if len(sizes) != len(paths):
        raise SystemExit("a photograph without a face")
    painting = load(arguments.painting)
    folder = Path(arguments.keep or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    print(f"threshold {threshold}; {arguments.size} px, {arguments.steps} steps")
    report("the photographs", [row("", encoding(p), i, sizes, people) for i, p in enumerate(photos)], threshold)
    for weight in map(float, arguments.weights.split(",")):
        rows, began = [], time.perf_counter()
        for i, photo in enumerate(photos):
            keep = {"keep_face": True, "face_weight": weight} if weight else {}
            result = transfer(
                photo, painting, size=arguments.size, steps=arguments.steps, colors=arguments.colors, **keep
            )
            path = folder / f"{people[i]}-{paths[i].stem}-{Path(arguments.painting).stem}-{weight:g}.png"
            save(path, result.image)
            rows.append(row(path.stem, encoding(load(path)), i, sizes, people))
            words = "  ".join(f"{value:.2f}" for value in rows[-1][1:])
            print(f"  {path.stem}: {words}  J {result.history[-1].total:.4g}", flush=True)
        report(f"weight {weight:g} ({time.perf_counter() - began:.0f} s)", rows, threshold)


if __name__ == "__main__":
    main()
