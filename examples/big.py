"""What a large picture needs, and painting it within a limit."""

import numpy as np

import nstcore as nst
from nstcore.demo import picture_path
from nstcore.demo.painter import paint


def main(size: int = 1024, steps: int = 60, memory: int = 1 << 30) -> np.ndarray:
    """Print the plan, then give the picture."""
    photo, painting = picture_path("astronaut"), paint("mosaic", size, size)
    how = {"size": size, "steps": steps, "optimizer": "adam", "memory": memory}
    print("\n".join(nst.style.plan_transfer(photo, painting, **how).lines()))
    return nst.style.transfer(photo, painting, **how).image


if __name__ == "__main__":
    nst.images.save("big.png", main())
