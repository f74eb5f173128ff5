"""How much the still parts of a painted clip flicker: benchmarks/flicker.py photo.jpg moving.jpg painting.jpg.

Makes a clip in which the second photograph, small, moves over the first one, with the noise of a camera (1 of 255), and
paints it in several ways: each frame alone; each from the one before, without and with the temporal term. Prints the
mean absolute change, in levels of 255, of the pixels that do not change in the clip from one frame to the next; with
--formats also of what is read back from such files, and how far that is from the frames.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.images import load, resize, save, to_bytes
from nstcore.style import transfer, transfer_clip
from nstcore.style.animation import read_animation, write_animation
from nstcore.style.frames import FrameFolder
from nstcore.style.still import flicker

Array = NDArray[Any]


def clip(photo: Array, thing: Array, frames: int) -> list[Array]:
    """`frames` pictures in which `thing`, a third as high, crosses `photo` from left to right."""
    rng = np.random.default_rng(0)
    height, width, _ = photo.shape
    small = resize(thing, max(thing.shape[:2]) * (height // 3) // thing.shape[0])
    pictures = []
    for i in range(frames):
        picture = photo + rng.normal(0, 1 / 255, photo.shape)
        left = round(i * (width - small.shape[1]) / max(1, frames - 1))
        picture[height // 3 : height // 3 + small.shape[0], left : left + small.shape[1]] = small
        pictures.append(np.clip(picture, 0, 1).astype(np.float32))
    return pictures


def stored(frames: list[Array], path: Path) -> list[Array]:
    """What an animation of these frames shows."""
    write_animation(path, lambda i: (to_bytes(frames[i]), 0.1), len(frames))
    height, width, _ = frames[0].shape
    return [np.float32(pixels[:height, :width]) / 255 for pixels, _ in read_animation(path, 100_000_000)]


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("thing")
    parser.add_argument("painting")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--steps", type=int, default=60, help="of the first frame, and of each frame alone")
    parser.add_argument("--frame-steps", type=int, default=30)
    parser.add_argument("--weights", default="0,1e6,1e7", help="of the temporal term")
    parser.add_argument("--formats", default="", help="such as gif,webp,mp4")
    parser.add_argument("--keep", help="folder for the frames")
    arguments = parser.parse_args()
    photos = clip(load(arguments.photo, size=arguments.size), load(arguments.thing), arguments.frames)
    painting = load(arguments.painting)
    folder = Path(arguments.keep or tempfile.mkdtemp())
    options: dict[str, Any] = {"size": arguments.size, "start_size": arguments.size, "steps": arguments.steps}
    print(f"the clip itself: {255 * flicker(photos, photos):.2f}", flush=True)
    began = time.perf_counter()
    alone = [transfer(photo, painting, **options).image for photo in photos]
    print(f"each frame alone: {255 * flicker(alone, photos):.2f} ({time.perf_counter() - began:.0f} s)", flush=True)
    for i, picture in enumerate(alone):
        (folder / "alone").mkdir(parents=True, exist_ok=True)
        save(folder / "alone" / f"{i + 1:06d}.png", picture)
    for weight in map(float, arguments.weights.split(",")):
        began = time.perf_counter()
        place = folder / f"{weight:.0e}".replace("+", "")
        transfer_clip(photos, painting, place, frame_steps=arguments.frame_steps, still_weight=weight, **options)
        painted = [FrameFolder(place).read(i + 1) for i in range(len(photos))]
        took = time.perf_counter() - began
        print(
            f"from the frame before, weight {weight:g}: {255 * flicker(painted, photos):.2f} ({took:.0f} s)", flush=True
        )
        for suffix in filter(None, arguments.formats.split(",")):
            found = stored(painted, folder / f"{place.name}.{suffix}")
            error = 255 * np.mean([np.abs(a - b).mean() for a, b in zip(found, painted, strict=True)])
            print(f"  as {suffix}: {255 * flicker(found, photos):.2f}, error {error:.1f}", flush=True)


if __name__ == "__main__":
    main()
