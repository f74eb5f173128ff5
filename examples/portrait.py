"""A portrait that is still recognised: the distance of its face from the photograph's, without and with keep_face."""

import numpy as np

import nstcore as nst
from nstcore.demo import picture_path
from nstcore.demo.painter import paint


def main(size: int = 256, steps: int = 60) -> np.ndarray:
    """Give the portrait painted without and with `keep_face`, side by side."""
    photo = np.ascontiguousarray(nst.images.load(picture_path("astronaut"))[:256, 96:352])
    painting = paint("swirl", size, size)
    face = nst.faces.detect(photo, max_faces=1)[0]
    known = nst.faces.encode(nst.faces.align(photo, face))[0]
    pictures = []
    for keep in (False, True):
        result = nst.style.transfer(photo, painting, size=size, steps=steps, keep_face=keep)
        chip = nst.faces.align(nst.images.resize_to(result.image, *photo.shape[:2]), face)
        distance = np.linalg.norm(nst.faces.encode(chip)[0] - known)
        print(f"keep_face={keep}: {distance:.2f} (one person up to {nst.faces.load_encoder().calibration.threshold})")
        pictures.append(result.image)
    return np.concatenate(pictures, axis=1)


if __name__ == "__main__":
    nst.images.save("portrait.png", main())
