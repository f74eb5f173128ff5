"""The pass that finds the nine patches of all units of all layers, beside the forward pass that it cannot do without.

Both go through the same photographs of 256 pixels on their shorter side. The forward pass alone gets them decoded and
throws every activation away; the pass reads JPEG files and keeps the nine highest places of all 4224 units of VGG-16's
convolutions. From nothing, every picture still enters nearly every unit's nine, and the digests of network and pictures
count, which are taken once a call. Among thousands, the n-th picture enters a unit's nine with a chance of 9 / n:
nearly all of the time is spent as when nothing enters any more.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from harness import FULL, Bench, Contender  # first: it sets the threads of all libraries

import numpy as np  # isort: skip

import nstcore as nst
from nstcore import models
from nstcore.backend.memory import reuse
from nstcore.demo import PICTURES, picture_path
from nstcore.images import load, resize_to, save
from nstcore.visualize import index_patches
from nstcore.visualize.fill import fill_index
from nstcore.visualize.patches import default_layers
from nstcore.visualize.pictures import pictures

SIDES = (256, 344)  # height and width


def photographs(folder: Path, count: int) -> list[Path]:
    """So many different JPEG files: parts of the package's photographs, turned and mirrored."""
    rng, paths = np.random.default_rng(0), []
    photos = [load(picture_path(name)) for name in PICTURES]
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(0, side // 3)) for side in photo.shape[:2])
        part = photo[top:, left:][:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        paths.append(folder / f"{number:03}.jpg")
        save(paths[-1], resize_to(part, *SIDES), quality=90)
    return paths


def main() -> None:
    """Measure both, in turns."""
    bench = Bench("patches")
    count = 64 if FULL else 12
    net = models.vgg16()
    layers = default_layers(net, SIDES)
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), count)
        decoded, known = [load(path) for path in paths], pictures(paths)
        full = index_patches(net, known)

        def later() -> float:  # the same pictures once more: as good as those that are there, and not better
            layers = {name: replace(part, done=0) for name, part in full.found.layers.items()}
            again = replace(full, found=replace(full.found, layers=layers))
            return float(fill_index(net, known, again).layers["conv5_3"].value[0, 0])

        def index() -> float:
            return float(index_patches(net, paths).layers["conv5_3"].value[0, 0])

        def forward() -> float:
            highest = 0.0
            with reuse(), nst.no_grad():
                for picture in decoded:
                    for name, x in net.walk(picture, layers):
                        if name == "conv5_3":
                            highest = max(highest, float(x.data[..., 0].max()))
            return highest

        contenders = [
            Contender("the pass, nothing enters", later),
            Contender("the pass, from nothing", index),
            Contender("forward pass alone", forward),
        ]
        bench.measure(f"VGG-16, {count} photographs of {SIDES[0]}x{SIDES[1]}", contenders)
    bench.finish()


if __name__ == "__main__":
    main()
