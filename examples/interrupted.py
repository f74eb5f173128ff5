"""A run that is stopped in the middle, as by Ctrl-C, and continues from its file bit for bit."""

import tempfile
from pathlib import Path

import numpy as np

import nstcore as nst
from nstcore.demo import picture_path
from nstcore.demo.painter import paint


def main(size: int = 256, steps: int = 60) -> np.ndarray:
    """Give the picture, the same as without the interruption."""
    photo, painting = picture_path("coffee"), paint("autumn", size, size)

    def stop(progress: nst.style.Progress) -> None:
        if progress.row.step == steps // 2:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "run.npz")
        half = nst.style.transfer(photo, painting, size=size, steps=steps, callback=stop, checkpoint=saved)
        print(f"{half.stopped} after {len(half.history)} steps")
        return nst.style.transfer(photo, painting, size=size, steps=steps, resume=saved).image


if __name__ == "__main__":
    nst.images.save("interrupted.png", main())
