"""A short clip, painted so that its still parts do not flicker; clip.gif is the result."""

import tempfile
from pathlib import Path

import numpy as np

import nstcore as nst
from nstcore.demo import picture_path
from nstcore.demo.painter import paint


def main(size: int = 192, steps: int = 60, output: str | None = None) -> np.ndarray:
    """Let a bright disc cross a photograph, paint it, and give the last frame."""
    photo = nst.images.load(picture_path("rocket"), size=size)
    height, width, _ = photo.shape
    rows, columns = np.mgrid[:height, :width]
    frames = []
    for place in (0.2, 0.4, 0.6):
        disc = (rows - height / 3) ** 2 + (columns - place * width) ** 2 < (height / 8) ** 2
        frames.append(np.where(disc[:, :, None], np.float32([1.0, 0.8, 0.3]), photo))
    with tempfile.TemporaryDirectory() as folder:
        painted = nst.style.transfer_clip(
            frames, paint("swirl", size, size), Path(folder, "painted"), size=size, steps=steps, frame_steps=steps // 2
        )
        print(f"{painted.frames} frames")
        pictures = [nst.images.load(path) for path in sorted(Path(folder, "painted").glob("*.png"))]
    if output:
        from PIL import Image

        shown = [Image.fromarray(np.rint(255 * picture).astype(np.uint8)) for picture in pictures]
        shown[0].save(output, save_all=True, append_images=shown[1:], duration=400, loop=0)
    return pictures[-1]


if __name__ == "__main__":
    main(output="clip.gif")
