"""Two paintings on one photograph: one above, one below, with a soft edge between them."""

import numpy as np

import nstcore as nst
from nstcore.demo import picture_path
from nstcore.demo.painter import paint


def main(size: int = 256, steps: int = 60) -> np.ndarray:
    """Give the painted photograph, (h, w, 3) in [0, 1]."""
    photo = nst.images.load(picture_path("rocket"), size=size)
    below = np.clip(np.linspace(-1, 2, photo.shape[0], dtype=np.float32), 0, 1)[:, None].repeat(photo.shape[1], 1)
    paintings = [paint("swirl", size, size), paint("woodcut", size, size)]
    return nst.style.transfer(photo, paintings, regions=[1 - below, below], size=size, steps=steps).image


if __name__ == "__main__":
    nst.images.save("regions.png", main())
