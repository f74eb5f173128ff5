"""How good a picture of a face is, and what speaks against enrolling it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from nstcore import images
from nstcore.faces.align import TEMPLATE, align, visible
from nstcore.faces.face import Face

MIN_SIZE, MIN_SHARPNESS, MAX_YAW, MAX_PITCH, MIN_VISIBLE, MIN_SCORE = 40, 0.08, 45, 40, 0.9, 0.98
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_CENTRE = slice(25, 125)  # of a chip: the face without hair, neck and what is behind
# Heights over the plane through the eyes' centres, in pixels of a chip (an adult's eyes are 63 mm apart, 54.8 pixels in
# a chip): the tip of the nose stands 25 mm in front of it, the corners of the mouth 5 mm.
_NOSE_HEIGHT, _MOUTH_HEIGHT = 22.0, 4.0


@dataclass(frozen=True)
class Quality:
    """Facts about one face in one picture.

    size: the shorter side of the box, in pixels.
    sharpness: of the grey values in the middle of the chip, Σ (Laplacian)² / Σ |gradient|², which contrast does not
        change; as a chip always has the same size, a small face counts as blurred too. Noise counts as sharp.
    yaw, pitch, roll: where the face looks, in degrees, estimated from the five landmarks: to the right in the picture,
        downwards, and turned clockwise; a frontal face has about 0 each. Good to about 10° (yaw), 20° (pitch).
    visible: the part of the chip that lies inside the picture, from 0 to 1.
    score: the detector's probability that this is a face.
    """

    size: float
    sharpness: float
    yaw: float
    pitch: float
    roll: float
    visible: float
    score: float

    def to_json(self) -> dict[str, float]:
        """Give all fields as plain values."""
        return asdict(self)


def quality(image: images.Source, face: Face) -> Quality:
    """Measure a face; `problems` judges what was found.

    image: the picture that the face was found in, as `nstcore.images.load` takes it. Errors as `align`.
    """
    picture = images.readable(image)
    chip = align(picture, face)
    height, width = picture.shape[:2]
    yaw, pitch, roll = pose(face)
    return Quality(
        size=min(face.width, face.height),
        sharpness=_sharpness(chip),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        visible=visible(height, width, face),
        score=face.score,
    )


def _sharpness(chip: NDArray[np.float32]) -> float:
    grey = (chip @ _LUMA)[_CENTRE, _CENTRE].astype(np.float64)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    gradient = np.sum(np.diff(grey, axis=0) ** 2) + np.sum(np.diff(grey, axis=1) ** 2)
    return float(np.sum(laplacian**2) / gradient) if gradient > 1e-6 else 0.0


def pose(face: Face) -> tuple[float, float, float]:
    """Yaw, pitch and roll of a face in degrees, as `Quality` describes them, from its landmarks alone.

    The landmarks are fitted, by least squares, with an average head seen from far away: x = s R X + t.
    Source: DeMenthon, Davis, "Model-Based Object Pose in 25 Lines of Code", IJCV 1995, section 4 (its first step).

    >>> [abs(round(angle)) for angle in pose(Face((0, 0, 150, 150), TEMPLATE.astype(np.float32), 1.0))]
    [0, 0, 0]
    """
    heights = np.array([0, 0, _NOSE_HEIGHT, _MOUTH_HEIGHT, _MOUTH_HEIGHT])
    model = np.column_stack([TEMPLATE, -heights])  # x to the right, y down, z away from the viewer
    points = np.asarray(face.landmarks, np.float64)
    view = np.linalg.lstsq(model - model.mean(axis=0), points - points.mean(axis=0), rcond=None)[0].T
    scale = max(float(np.sqrt(np.sum(view**2) / 2)), 1e-9)
    across, down = np.clip(-view[:, 2] / scale, -1, 1)  # the direction of the nose
    roll = np.arctan2(view[1, 0], view[0, 0])
    # seen with the head upright
    right, below = np.cos(roll) * across + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * across
    yaw, pitch = np.arcsin(np.clip((right, below), -1, 1))
    return float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll))


def problems(
    q: Quality,
    *,
    min_size: float | None = MIN_SIZE,
    min_sharpness: float | None = MIN_SHARPNESS,
    max_yaw: float | None = MAX_YAW,
    max_pitch: float | None = MAX_PITCH,
    min_visible: float | None = MIN_VISIBLE,
    min_score: float | None = MIN_SCORE,
) -> list[str]:
    """What speaks against enrolling a face, in words; an empty list when nothing does.

    Each limit can be another number, or None, which switches it off. The defaults were chosen on 15 photographs of six
    people, enrolled as they are and looked up shrunk or blurred (threshold 0.6). Shrunk to faces of 40, 32, 25 and 20
    pixels, the encodings moved by 0.21, 0.28, 0.36 and 0.45, and 0, 0, 0 and 7 % of the pairs of one person were taken
    for two. Blurred to a sharpness of about 0.3, 0.11, 0.05 and 0.04, they moved by 0.19, 0.33, 0.45 and 0.53, and
    0, 0, 4 and 21 % of the pairs were. Faces turned by up to 32° (yaw) and 29° (pitch) were all recognised. The score
    is measured in docs/guide/faces-thresholds.md: in 315 copies the lowest of a face was 0.988, the highest of anything
    else 0.986.

    >>> problems(Quality(size=30, sharpness=1, yaw=-60, pitch=0, roll=0, visible=1, score=1))
    ['the face is 30 pixels wide, at least 40 are wanted', 'the face is turned by 60° (yaw), at most 45° are wanted']
    """
    found: list[str] = []
    if min_size is not None and q.size < min_size:
        found.append(f"the face is {q.size:.0f} pixels wide, at least {min_size:g} are wanted")
    if min_sharpness is not None and q.sharpness < min_sharpness:
        found.append(f"the face is blurred: sharpness {q.sharpness:.3f}, at least {min_sharpness:g} is wanted")
    for name, angle, most in (("yaw", q.yaw, max_yaw), ("pitch", q.pitch, max_pitch)):
        if most is not None and abs(angle) > most:
            found.append(f"the face is turned by {abs(angle):.0f}° ({name}), at most {most:g}° are wanted")
    if min_visible is not None and q.visible < min_visible:
        found.append(f"the border cuts the face: {q.visible:.0%} is visible, at least {min_visible:.0%} is wanted")
    if min_score is not None and q.score < min_score:
        found.append(f"it may be no face: score {q.score:.2f}, at least {min_score:g} is wanted")
    return found
