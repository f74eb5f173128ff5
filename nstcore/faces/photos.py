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
from nstcore.faces.squares import middle_square

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Photos:
    """Pictures uint8 (n, side, side, 3), labels (n,) that index `names`, and what was left out, with the reason."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.intp]
    names: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def each_digest(self) -> list[str]:
        """SHA-256 of each picture, its first 16 hex digits: whether somebody's photograph is in another set, too."""
        return [hashlib.sha256(np.ascontiguousarray(p).data).hexdigest()[:16] for p in self.pictures]

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
    Raises `ArgumentError` for a folder that does not exist, or has less than two classes with photographs or nobody
    with two.
    """
    files = _listed(Path(folder))
    left_out = [f"{c.name}: an empty class, it has no photographs" for c in files if not files[c]]
    pictures: list[NDArray[np.uint8]] = []
    owners: list[str] = []
    total = sum(map(len, files.values()))
    done = 0
    for c, paths in files.items():
        for path in paths:
            try:
                pictures.append(_chip(path, side, align))
                owners.append(c.name)
            except ImageError as error:
                left_out.append(f"{c.name}/{path.name}: {error}")
            done += 1
            if progress:
                progress(done, total)
    names = tuple(sorted(set(owners)))
    place = {name: index for index, name in enumerate(names)}
    labels = np.array([place[o] for o in owners], np.intp)
    hint = "; classes that are no faces need --no-align (align=False)" if align and total and not pictures else ""
    _check_classes(f"{folder}: ", labels, names, left_out, hint)
    return Photos(np.stack(pictures), labels, names, tuple(left_out))


def _listed(root: Path) -> dict[Path, list[Path]]:
    """The folders of classes, and the pictures in each."""
    try:
        if not root.is_dir():
            raise ArgumentError(f"[train] expects a folder with a folder of photographs for each class, got {root}")
        inside = sorted(p for p in root.iterdir() if not p.name.startswith("."))
        classes = [p for p in inside if p.is_dir()]
        if not classes:
            loose = sum(p.suffix.lower() in images.SUFFIXES for p in inside)
            found = f"no folder in it, and {loose} photograph{'' if loose == 1 else 's'} side by side"
            raise ArgumentError(f"[train] {root}: expects a folder of photographs for each class, got {found}")
        return {c: sorted(p for p in c.iterdir() if _is_picture(p)) for c in classes}
    except OSError as error:
        raise ArgumentError(f"[train] {error.filename}: cannot be read: {error.strerror or error}") from error


def _is_picture(path: Path) -> bool:
    return images.is_picture_name(path.name) and path.is_file()


def _check_classes(
    where: str, labels: Array, names: Sequence[str], left_out: Sequence[str] = (), hint: str = ""
) -> None:
    """Raise unless there are two classes, and somebody with two photographs: a pair to train on."""
    counts = np.bincount(labels, minlength=len(names))
    more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    why = hint + (f"; left out: {'; '.join(left_out[:3])}{more}" if left_out else "")
    if len(names) < 2:
        got = f"{len(names)} ({names[0]})" if names else "0"
        raise ArgumentError(f"[train] {where}expects photographs of at least two classes, got {got}{why}")
    if counts.max() < 2:
        got = f"{len(names)} classes with one photograph each"
        raise ArgumentError(f"[train] {where}expects a class with at least two photographs, got {got}{why}")


def from_arrays(pictures: Any, labels: Sequence[Any] | Array, side: int) -> Photos:
    """Photographs that are there already.

    pictures: (n, h, w) or (n, h, w, 3), uint8 or float in [0, 1]; the middle square is brought to `side`. labels: n
    names or numbers. Raises `ShapeError` where they do not match, `ImageError`, `DTypeError`, and `ArgumentError` for
    pictures of several sizes, labels that are neither, less than two classes, or nobody with two photographs.
    """
    array, who = _pictures(pictures), _labels(labels)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)):
        raise ShapeError(f"[train] expects pictures (n, h, w) or (n, h, w, 3), got {array.shape}")
    if who.shape != array.shape[:1]:
        raise ShapeError(f"[train] expects one label a picture, got labels {who.shape} for pictures {array.shape}")
    found, index = np.unique(who, return_inverse=True)
    names = tuple(map(str, found))
    _check_classes("", index, names)
    chips = np.stack([middle_square(images.load(picture), side) for picture in array])
    return Photos(chips, index.astype(np.intp), names)


def _pictures(pictures: Any) -> Array:
    try:
        array = np.asarray(pictures)
    except ValueError:  # NumPy's word for rows of several lengths
        array = np.empty(0, object)
    if array.dtype == object:
        parts = pictures if np.iterable(pictures) else [pictures]
        shapes = sorted({str(getattr(p, "shape", type(p).__name__)) for p in parts})[:3]
        raise ArgumentError(
            f"[train] expects pictures (n, h, w) or (n, h, w, 3) of one size, got {' and '.join(shapes)}"
        )
    return array


def _labels(labels: Any) -> Array:
    """Names or numbers, and nothing that means neither."""
    try:
        array = np.asarray(labels)
    except ValueError:
        array = np.empty(0, object)
    missing = array.dtype.kind == "f" and not np.isfinite(array).all()
    if array.dtype.kind not in "biufUS" or missing:
        kind = "a label that is missing" if missing or array.dtype == object else f"labels of {array.dtype}"
        raise ArgumentError(f"[train] expects labels that are names or numbers, one a picture, got {kind}")
    return array


def _chip(path: Path, side: int, align: bool) -> NDArray[np.uint8]:
    if not align:
        return middle_square(images.load(path), side)
    from nstcore.faces.align import align as turn
    from nstcore.faces.detect import THRESHOLDS, detect
    from nstcore.faces.pipeline import MIN_SCORE, small_beside

    picture = images.load(path)
    found = detect(picture, thresholds=(*THRESHOLDS[:2], MIN_SCORE))
    faces = [face for face, small in zip(found, small_beside(found), strict=True) if not small]
    if len(faces) != 1:
        raise ImageError(f"[train] expects one face, found {len(faces)}")
    return images.to_bytes(np.asarray(turn(picture, faces[0], side)))
