"""Faces that stay recognisable: the distance between their encodings in the picture and in the photograph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nstcore.autograd import Tensor
from nstcore.backend import current_backend, moved
from nstcore.backend.arrays import beside
from nstcore.errors import ImageError
from nstcore.faces import Face, align, detect
from nstcore.faces.align import CHIP, TEMPLATE
from nstcore.faces.encoder import load_encoder

Array = NDArray[Any]

View = tuple[float, float, tuple[float, float], bool]

MIN_SIZE = 24  # pixels of the smallest face that is looked for
SEARCHED = 1024  # longer side of the picture in which faces are looked for
MOST = 16  # faces, the largest
#: how a chip is turned (degrees), scaled, moved (parts of its side), and whether it is mirrored. The detector finds the
#: landmarks of a painted face elsewhere than those of the photograph, so the face must be close from there as well.
VIEWS: tuple[View, ...] = (
    (0.0, 1.0, (0.0, 0.0), False),
    (5.0, 1.06, (0.03, -0.03), True),
    (-5.0, 0.94, (-0.03, 0.03), False),
    (0.0, 0.97, (0.03, 0.05), True),
)


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of a photograph, where they are in it, and what they are encoded as."""

    faces: list[Face]
    shape: tuple[int, ...]  # of the photograph
    encodings: Array  # (n, 128)
    net: Any
    threshold: float

    @classmethod
    def of(cls, photo: Array, painted: Array, dtype: DTypeLike = np.float32) -> Faces | None:
        """Those of `photo` (h, w, 3), encoded as in `painted`, the same in the colours of the run; None without any.

        The more pixels the photograph has (up to 1024), the better they are known; the run may be at a smaller size.
        """
        found = detect(photo, min_size=MIN_SIZE, max_side=SEARCHED, max_faces=MOST)
        height, width = photo.shape[:2]
        found = [face for face in found if _covers(_window(face, (height, width)))]
        if not found:
            return None
        encoder = load_encoder()
        net = encoder.net
        if net.dtype != np.dtype(dtype):
            from nstcore.models import face_encoder

            net = face_encoder(dtype=dtype)
        net.to(current_backend())
        encodings = net.encode(align(painted, found).astype(dtype))
        return cls(found, photo.shape, encodings, net, encoder.calibration.threshold)

    def clear(self, photo: Array) -> Faces | None:
        """Those that the photograph is recognised by at the size of `photo`; None where there is none."""
        kept = [i for i, distance in enumerate(self.distances(photo)) if distance <= self.threshold]
        faces = [self.faces[i] for i in kept]
        return replace(self, faces=faces, encodings=self.encodings[kept]) if kept else None

    def distances(self, picture: Array) -> list[float]:
        """How far each face of a picture (h, w, 3) in [0, 1] is from the photograph's."""
        chips = align(picture, self.at_size(picture.shape)).astype(self.net.dtype, copy=False)
        return [float(d) for d in np.linalg.norm(self.net.encode(chips) - self.encodings, axis=1)]

    def at_size(self, shape: tuple[int, ...]) -> list[Face]:
        """The faces in a picture of another size."""
        scale = np.array([shape[1] / self.shape[1], shape[0] / self.shape[0]])
        moved_boxes = [tuple(float(x) for x in np.asarray(f.box) * np.tile(scale, 2)) for f in self.faces]
        return [
            Face(box, (face.landmarks * scale).astype(np.float32), face.score)  # type: ignore[arg-type]
            for box, face in zip(moved_boxes, self.faces, strict=True)
        ]

    def term(self, photo: Array, weight: float) -> FaceTerm:
        """The cost at the size of `photo`, of the faces that can be told apart there.

        Others are left out: those that the photograph itself, so small, would not be recognised by.
        """
        clear = self.clear(photo)
        faces, encodings = ([], self.encodings[:0]) if clear is None else (clear.at_size(photo.shape), clear.encodings)
        return FaceTerm(faces, encodings, self.net, weight, photo.shape)


class FaceTerm:
    """W Σ ‖e(picture) − e(photograph)‖² over faces; e: the encoding of the aligned face, 128 numbers.

    The distance is the mean over a few views, each with the face turned, scaled and moved a little.

    Source of the idea to compare features of a face network: Johnson, Alahi, Fei-Fei, "Perceptual Losses for Real-Time
    Style Transfer and Super-Resolution", ECCV 2016; of the encodings: dlib, see `nstcore.models.FaceEncoder`.
    """

    name = "faces"

    def __init__(self, faces: list[Face], encodings: Array, net: Any, weight: float, shape: tuple[int, ...]) -> None:
        self.net, self.weight = net, weight
        self._parts = []
        for face, encoding in zip(faces, encodings, strict=True):
            window = _window(face, shape)
            if _covers(window):
                here, target = _shifted(face, window), moved(encoding, current_backend())
                self._parts += [(window, _viewed(here, view), view[3], target) for view in VIEWS]

    def __len__(self) -> int:
        return len(self._parts) // len(VIEWS)

    def add(self, pixels: Array, grad: Array | None) -> float:
        """See `Extra.add`. One view at a time, and of the picture only what its chip shows."""
        cost = 0.0
        for (rows, columns), face, mirrored, encoding in self._parts:
            x = Tensor(pixels[0, rows, columns].copy(), requires_grad=grad is not None)
            chip = align(x, face)
            seen = chip[None, :, ::-1] if mirrored else chip[None]
            difference = self.net(seen) - encoding
            distance = (difference * difference).sum() * (1 / len(VIEWS))
            cost += float(distance.item())
            if grad is not None:
                (distance * self.weight).backward()
                grad[0, rows, columns] += beside(x.grad, grad)
        return cost


def no_face(size: int) -> ImageError:
    """What is told when there is nothing to keep."""
    return ImageError(
        f"[style] keep_face found no face that the photograph would be recognised by at size {size}; "
        "choose a larger size, or leave it out"
    )


def _window(face: Face, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a picture that contain the chip of a face, and some more."""
    centre = face.landmarks.astype(np.float64).mean(0)
    reach = 4 * np.linalg.norm(face.landmarks - centre, axis=1).max() + 4  # a chip's corner is 2.9 such spreads away
    low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int)
    (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, (shape[1], shape[0]))
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _covers(window: tuple[slice, slice]) -> bool:
    return all(part.start < part.stop for part in window)


def _viewed(face: Face, view: View) -> Face:
    """The face with landmarks that turn, scale and move its chip."""
    degrees, scale, shift, _ = view
    turn = np.deg2rad(degrees)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * scale
    centre = face.landmarks.astype(np.float64).mean(0)
    side = np.linalg.norm(face.landmarks[1] - face.landmarks[0]) * CHIP / (TEMPLATE[1, 0] - TEMPLATE[0, 0])
    points = (face.landmarks - centre) @ linear.T + centre + side * np.array(shift)
    return Face(face.box, points.astype(np.float32), face.score)


def _shifted(face: Face, window: tuple[slice, slice]) -> Face:
    rows, columns = window
    corner = np.array([columns.start, rows.start], np.float32)
    left, top, right, bottom = face.box
    box = (left - corner[0], top - corner[1], right - corner[0], bottom - corner[1])
    return Face(box, face.landmarks - corner, face.score)
