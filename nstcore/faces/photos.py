"""Photographs with labels, as training wants them: from a folder of classes, or from arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore import images
from nstcore.errors import ArgumentError, ImageError, ShapeError

Array = NDArray[Any]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")


@dataclass(frozen=True, eq=False)
class Photos:
    """Pictures uint8 (n, side, side, 3), labels (n,) that index `names`, and what was left out, with the reason."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.intp]
    names: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 of pictures and labels, in hex: whether two runs have the same photographs."""
        digest = hashlib.sha256(f"{self.pictures.shape} {self.names}".encode())
        digest.update(np.ascontiguousarray(self.pictures).data)
        digest.update(np.ascontiguousarray(self.labels, np.int64).data)
        return digest.hexdigest()


def read_folder(
    folder: str | Path, side: int, align: bool, progress: Callable[[int, int], object] | None = None
) -> Photos:
    """Read a folder with one folder of photographs a class; hidden files and files that are no pictures do not count.

    side: of the chips. align: find the face in each photograph and turn it upright; else the middle square is taken.
    A photograph that cannot be read, or in which not exactly one face is found, is left out and told, as is a class
    without photographs. progress: is called with how many are done and how many there are.
    Raises `ArgumentError` for a folder that does not exist or has less than two classes with photographs.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ArgumentError(f"[train] expects a folder with a folder of photographs for each class, got {folder}")
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = {c: sorted(p for p in c.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()) for c in classes}
    left_out = [f"{c.name}: an empty class, it has no photographs" for c in classes if not files[c]]
    pictures: list[NDArray[np.uint8]] = []
    owners: list[str] = []
    total = sum(map(len, files.values()))
    done = 0
    for c in classes:
        for path in files[c]:
            try:
                pictures.append(_chip(path, side, align))
                owners.append(c.name)
            except ImageError as error:
                left_out.append(f"{c.name}/{path.name}: {error}")
            done += 1
            if progress:
                progress(done, total)
    names = tuple(sorted(set(owners)))
    if len(names) < 2:
        why = f"; left out: {'; '.join(left_out[:3])}" if left_out else ""
        raise ArgumentError(f"[train] {folder}: expects photographs of at least two classes, got {len(names)}{why}")
    labels = np.array([names.index(o) for o in owners], np.intp)
    return Photos(np.stack(pictures), labels, names, tuple(left_out))


def from_arrays(pictures: Any, labels: Sequence[Any] | Array, side: int) -> Photos:
    """Photographs that are there already.

    pictures: (n, h, w) or (n, h, w, 3), uint8 or float in [0, 1]; the middle square is brought to `side`. labels: n
    names or numbers. Raises `ShapeError` where they do not match, `ImageError`, `DTypeError`, `ArgumentError`.
    """
    array, who = np.asarray(pictures), np.asarray(labels)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)):
        raise ShapeError(f"[train] expects pictures (n, h, w) or (n, h, w, 3), got {array.shape}")
    if who.shape != array.shape[:1]:
        raise ShapeError(f"[train] expects one label a picture, got labels {who.shape} for pictures {array.shape}")
    names, index = np.unique(who, return_inverse=True)
    if len(names) < 2:
        raise ArgumentError(f"[train] expects photographs of at least two classes, got {len(names)}")
    chips = np.stack([_squared(images.load(picture), side) for picture in array])
    return Photos(chips, index.astype(np.intp), tuple(map(str, names)))


def _chip(path: Path, side: int, align: bool) -> NDArray[np.uint8]:
    if not align:
        return _squared(images.load(path), side)
    from nstcore.faces.align import align as turn
    from nstcore.faces.detect import THRESHOLDS, detect
    from nstcore.faces.pipeline import MIN_SCORE, small_beside

    picture = images.load(path)
    found = detect(picture, thresholds=(*THRESHOLDS[:2], MIN_SCORE))
    faces = [face for face, small in zip(found, small_beside(found), strict=True) if not small]
    if len(faces) != 1:
        raise ImageError(f"[train] expects one face, found {len(faces)}")
    return _bytes(np.asarray(turn(picture, faces[0], side)))


def _squared(picture: NDArray[Any], side: int) -> NDArray[np.uint8]:
    """The middle square, side × side."""
    height, width = picture.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return _bytes(images.resize_to(picture[top : top + edge, left : left + edge], side, side))


def _bytes(picture: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(picture, 0, 1) * 255), np.uint8)
