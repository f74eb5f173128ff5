"""The strokes of a painting in the colours of the photograph, both ways."""

import numpy as np

import nstcore as nst
from nstcore.demo import picture_path
from nstcore.demo.painter import paint


def main(size: int = 256, steps: int = 60) -> np.ndarray:
    """Give the photograph painted with its brightness alone, and with matched colours, side by side."""
    photo, painting = picture_path("chelsea"), paint("swirl", size, size)
    ways = ("luminance", "match")
    return np.concatenate(
        [nst.style.transfer(photo, painting, colors=way, size=size, steps=steps).image for way in ways], axis=1
    )


if __name__ == "__main__":
    nst.images.save("colors.png", main())
