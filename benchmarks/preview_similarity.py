"""How much a small preview looks like the large picture: benchmarks/preview_similarity.py photo.jpg painting.jpg.

Paints the pair at two sizes from coarse to fine, as is the default, and at each size alone, and prints the structural
similarity (Wang et al., IEEE TIP 2004, on brightness, windows of 7 x 7) of the large picture, shrunk, with the preview.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nstcore.images import load, resize_to, save
from nstcore.style import transfer
from nstcore.style.colors import luminance

WINDOW = 7


def similarity(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Mean structural similarity of two pictures (h, w, 3) in [0, 1]; 1 for the same one."""
    a, b = (luminance(x.astype(np.float64)) for x in (one, other))

    def mean(x: NDArray[Any]) -> NDArray[Any]:
        along: NDArray[Any] = sliding_window_view(x, WINDOW, 0).mean(-1)
        smooth: NDArray[Any] = sliding_window_view(along, WINDOW, 1).mean(-1)
        return smooth

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return float(np.mean((2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("painting")
    parser.add_argument("--preview", type=int, default=256)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--alone-steps", type=int, default=100, help="steps of a picture that is painted at one size")
    parser.add_argument("--keep", help="prefix of the names under which the pictures are written")
    arguments = parser.parse_args()
    photo, painting = load(arguments.photo), load(arguments.painting)
    for name, options in (("coarse to fine", {}), ("each size alone", {"start_size": 16384})):
        began = time.perf_counter()
        pictures = []
        for size in (arguments.preview, arguments.size):
            steps = {"steps": arguments.alone_steps} if options else {}
            pictures.append(transfer(photo, painting, size=size, **options, **steps).image)
            if arguments.keep:
                save(f"{arguments.keep}-{name.replace(' ', '-')}-{size}.png", pictures[-1])
        small, large = pictures
        found = similarity(small, resize_to(large, small.shape[0], small.shape[1]))
        print(f"{name}: similarity {found:.3f}, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
