"""Photographs in folders, a folder a person, and LFW's lists of pairs: read, encoded, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, ImageError, ShapeError
from nstcore.faces.encoder import Encoder, load_encoder
from nstcore.faces.pairs import MAX_PAIRS, Pairs, all_pairs, between, count_pairs
from nstcore.faces.pipeline import Encoded, encode_faces
from nstcore.files import PathLike

_MAX_LIST_BYTES = 64 << 20
_LIST_NAME = 200  # characters of a name in a list

Progress = Callable[[int, int], None]
Listed = tuple[str, int, str, int, int]  # name, number, name, number, fold


@dataclass(frozen=True, eq=False)
class Photographs:
    """Encoded photographs.

    encodings: float32 (n, d). people: n names. paths: n files.
    failures: (file, why) of those without an encoding. several: files with more than one face, of which one was taken.
    """

    encodings: NDArray[np.float32]
    people: tuple[str, ...]
    paths: tuple[Path, ...]
    failures: tuple[tuple[Path, str], ...]
    several: tuple[Path, ...]


def people_in(folder: PathLike) -> list[tuple[str, Path]]:
    """(person, file) of every file one folder down, by name; names that begin with a dot are passed over.

    Raises `ArgumentError` where there is no such folder, or nobody in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ArgumentError(f"[faces] expects a folder with a folder a person, got {folder}")
    found = [(person.name, path) for person in _listed(root) if person.is_dir() for path in _listed(person)]
    found = [(person, path) for person, path in found if path.is_file()]
    if not found:
        raise ArgumentError(
            f"[faces] expects a folder with a folder a person, got {folder} without any files in folders"
        )
    return found


def encode_people(
    photographs: Sequence[tuple[str, Path]],
    *,
    encoder: Encoder | None = None,
    central: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Photographs:
    """Find and encode one face in each photograph; a file without one, or that is no picture, becomes a failure.

    central: of several faces take the one nearest to the middle of the picture, else the largest.
    progress: is called with (done, in all) after each. options: as `encode_faces`.
    """
    encoder = encoder or load_encoder()
    encodings, people, paths, failures, several = [], [], [], [], []
    for index, (person, path) in enumerate(photographs, 1):
        try:
            found, middle = _faces(path, encoder, central, options)
        except (ImageError, ShapeError) as error:
            failures.append((path, str(error)))
        else:
            if not found:
                failures.append((path, "no face was found"))
            else:
                encodings.append(_chosen(found, middle)[1])
                people.append(person)
                paths.append(path)
                several += [path] if len(found) > 1 else []
        if progress is not None:
            progress(index, len(photographs))
    stacked = np.stack(encodings) if encodings else np.zeros((0, encoder.size), np.float32)
    return Photographs(stacked, tuple(people), tuple(paths), tuple(failures), tuple(several))


def pairs_in(
    folder: PathLike,
    listed: PathLike | None = None,
    *,
    encoder: Encoder | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> tuple[Pairs, Photographs]:
    """The pairs of a folder with a folder a person: all of them, or those of a list in LFW's format.

    listed: the list; None takes every pair. Of several faces in a photograph the largest is taken, and for a list the
    most central one, as the photographs of LFW are cut around the person.

    Raises `ArgumentError` for a folder or list that means nothing, or names a photograph that is not there.
    """
    if listed is None:
        found = encode_people(people_in(folder), encoder=encoder, progress=progress, **options)
        return all_pairs(found.encodings, found.people), found
    rows = read_pairs(listed)
    files: dict[tuple[str, int], Path] = {}
    for a, i, b, j, _ in rows:
        for key in ((a, i), (b, j)):
            if key not in files:
                files[key] = _photograph(Path(folder), *key)
    photographs = [(name, path) for (name, _), path in files.items()]
    found = encode_people(photographs, encoder=encoder, central=True, progress=progress, **options)
    place = {path: index for index, path in enumerate(found.paths)}
    index = [(place.get(files[a, i], -1), place.get(files[b, j], -1), fold) for a, i, b, j, fold in rows]
    kept = np.array([row for row in index if min(row[:2]) >= 0], np.intp).reshape(-1, 3)
    person = np.unique(np.array(found.people, str), return_inverse=True)[1].astype(np.intp)
    points = found.encodings.astype(np.float64)
    return between(points, person, kept[:, 0], kept[:, 1], kept[:, 2]), found


def most_pairs(folder: PathLike, listed: PathLike | None = None) -> tuple[int, int]:
    """How many pairs of one person and of two `pairs_in` would give, were a face found in every file.

    Raises what `pairs_in` raises for the folder and the list.
    """
    if listed is not None:
        of_one = [a == b for a, _, b, _, _ in read_pairs(listed)]
        return sum(of_one), len(of_one) - sum(of_one)
    counts = np.unique([person for person, _ in people_in(folder)], return_counts=True)[1]
    same, different = count_pairs(counts)
    return min(same, MAX_PAIRS), min(different, MAX_PAIRS)


def read_pairs(path: PathLike) -> list[Listed]:
    """Read a list of pairs in the format of Labeled Faces in the Wild.

    The first line has the number of folds n and of pairs m, separated by a blank, or m alone for a single fold. For
    each fold follow m lines "name i j" (photographs i and j of one person) and m lines "name i name j" (of two people).
    Source: Huang, Ramesh, Berg, Learned-Miller, "Labeled Faces in the Wild", 2007; its README and pairs.txt.

    Raises `ArgumentError`, with the line, for anything else.
    """
    lines = _lines(path)
    head = lines[0].split() if lines else []
    if len(head) not in (1, 2) or not all(_is_number(word) for word in head):
        raise ArgumentError(f"[pairs] {path}, line 1: expects 'folds pairs' or 'pairs', got {' '.join(head)[:80]!r}")
    folds, count = (1, int(head[0])) if len(head) == 1 else (int(head[0]), int(head[1]))
    if len(lines) - 1 != 2 * folds * count:
        raise ArgumentError(f"[pairs] {path}: expects {2 * folds * count} pairs after line 1, got {len(lines) - 1}")
    return [
        _pair(path, number, line, (number - 2) // (2 * count), (number - 2) // count % 2 == 0)
        for number, line in enumerate(lines[1:], 2)
    ]


def _pair(path: PathLike, number: int, line: str, fold: int, same: bool) -> Listed:
    words = line.split("\t") if "\t" in line else line.split()
    words = [word.strip() for word in words]
    if same and len(words) == 3 and _is_name(words[0]) and _is_number(words[1]) and _is_number(words[2]):
        if int(words[1]) == int(words[2]):
            raise ArgumentError(f"[pairs] {path}, line {number}: expects two photographs, got one with itself")
        return words[0], int(words[1]), words[0], int(words[2]), fold
    numbers = len(words) == 4 and _is_number(words[1]) and _is_number(words[3])
    if not same and numbers and _is_name(words[0]) and _is_name(words[2]) and words[0] != words[2]:
        return words[0], int(words[1]), words[2], int(words[3]), fold
    wanted = "'name i j'" if same else "'name i other-name j'"
    raise ArgumentError(f"[pairs] {path}, line {number}: expects {wanted}, got {line[:80]!r}")


def _lines(path: PathLike) -> list[str]:
    """The lines that are not empty."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_LIST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ArgumentError(f"[pairs] {path}: cannot be read: {reason}") from error
    if len(content) > _MAX_LIST_BYTES:
        raise ArgumentError(f"[pairs] {path}: expects at most {_MAX_LIST_BYTES >> 20} MiB")
    return [line for line in text.splitlines() if line.strip()]


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and 0 < len(word) <= 9 and int(word) > 0


def _is_name(word: str) -> bool:
    """A folder's name and nothing that leads out of the folder."""
    return 0 < len(word) <= _LIST_NAME and not set(word) & set("/\\\0") and word not in (".", "..")


def _photograph(folder: Path, name: str, number: int) -> Path:
    """The file of a person's photograph: name/name_0001.*, as in LFW, or name/1.*."""
    files = [path for path in _listed(folder / name) if path.is_file()] if (folder / name).is_dir() else []
    for stem in (f"{name}_{number:04d}", str(number)):
        found = [path for path in files if path.stem == stem]
        if len(found) == 1:
            return found[0]
        if found:
            raise ArgumentError(f"[pairs] {folder / name}: expects one file {stem}.*, got {len(found)}")
    raise ArgumentError(
        f"[pairs] {folder / name}: has no file {name}_{number:04d}.* or {number}.*, which the list names"
    )


def _listed(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.iterdir() if not path.name.startswith(".")))


def _faces(path: Path, encoder: Encoder, central: bool, options: dict[str, Any]) -> tuple[list[Encoded], Any]:
    """The faces, and the middle of the picture where it is asked for."""
    from nstcore import images

    picture = images.load(path, max_pixels=options.get("max_pixels", images.MAX_PIXELS))
    middle = np.array(picture.shape[1::-1]) / 2 if central else None
    return encode_faces(picture, encoder=encoder, **options), middle


def _chosen(found: list[Encoded], middle: Any) -> Encoded:
    """The largest face, which comes first, or the most central."""
    if middle is None:
        return found[0]
    centres = [np.reshape(face.box, (2, 2)).mean(axis=0) for face, _ in found]
    return found[int(np.argmin([np.sum((centre - middle) ** 2) for centre in centres]))]
