"""Many photographs in one call: each is painted into a folder; what fails is told at the end, and the rest is done."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nstcore.errors import ArgumentError, NstError, OutputError
from nstcore.files import PathLike, check_output
from nstcore.images import SUFFIXES, is_picture_name, load, save
from nstcore.models.vgg import VGG
from nstcore.style.frames import files_among
from nstcore.style.result import Progress, Result
from nstcore.style.settings import SMALLEST
from nstcore.style.transfer import as_list, network_of, settings_of, transfer

OF_A_SCENE = ("start", "regions", "style_masks")  # options of `transfer` that are pictures


@dataclass
class BatchResult:
    """What became of each photograph. stopped: "interrupted", or None.

    folder: where the pictures are. painted: the picture of each that is done; failures: the reason of each that is not.
    What comes after an interruption is in neither.
    """

    folder: Path
    painted: dict[Path, Path] = field(default_factory=dict)
    failures: dict[Path, str] = field(default_factory=dict)
    stopped: str | None = None


def transfer_folder(
    photos: PathLike | Iterable[PathLike],
    styles: Any,
    output: PathLike,
    *,
    net: VGG | None = None,
    callback: Callable[[Path, Progress], None] | None = None,
    done: Callable[[Path, Path, Result], None] | None = None,
    max_pixels: int = 100_000_000,
    **options: Any,
) -> BatchResult:
    """Paint many photographs in the style of `styles`, as `transfer` does one: photos/a.jpg becomes output/a.png.

    photos: a folder (its pictures, not those in folders inside of it), a pattern (``"photos/*.jpg"``, or
    ``"photos/**/*.jpg"``), or paths. output: a folder, made where there is none. Of two photographs whose names differ
    in the suffix alone, the pictures are a-jpg.png and a-png.png; of the same name, a-jpg.png and a-jpg-2.png.
    callback: called after each step with the photograph and a `Progress`; done: after each photograph, with its
    picture. options: as of `transfer`, but those that name a file of one run (checkpoint, resume, film).
    A photograph that fails is told in the result, and the rest is painted. Ctrl-C leaves the one that is being painted
    out: what is in the folder is finished.

    Raises `ArgumentError` for options that mean nothing and where there is no photograph, `ImageError` for paintings
    that cannot be read, `OutputError` for a folder that cannot be, or in which a picture would replace an input.
    """
    for name in ("checkpoint", "checkpoint_every", "resume", "film", "film_every"):
        if name in options:
            raise ArgumentError(f"[style] {name} is for one photograph, not for a folder of them")
    settings = settings_of({name: value for name, value in options.items() if name not in OF_A_SCENE})
    many, found = as_list(styles), photographs(photos)
    settings.blend_shares(len(many))
    network = network_of(net, settings)
    longer = max(SMALLEST, round(settings.size * settings.style_scale))
    paintings = [load(x, size=longer, max_pixels=max_pixels, min_side=SMALLEST) for x in many]
    inputs = files_among(found, many, *(options.get(name) for name in OF_A_SCENE))
    targets = _targets(found, Path(output), inputs)
    result = BatchResult(_folder(output))
    for photo, picture in targets.items():
        step = None if callback is None else (lambda progress, photo=photo: callback(photo, progress))
        try:
            check_output(picture)
            one = transfer(photo, paintings, net=network, callback=step, max_pixels=max_pixels, **options)
            if one.stopped != "interrupted":
                save(picture, one.image)
        except KeyboardInterrupt:
            result.stopped = "interrupted"
            return result
        except (NstError, MemoryError) as error:
            result.failures[photo] = str(error) if isinstance(error, NstError) else "the memory does not suffice"
            continue
        if one.stopped == "interrupted":
            result.stopped = one.stopped
            return result
        result.painted[photo] = picture
        if done:
            done(photo, picture, one)
    return result


def photographs(photos: PathLike | Iterable[PathLike]) -> list[Path]:
    """The pictures of a folder, or those that a pattern names, or the paths; `ArgumentError` when there are none."""
    if not isinstance(photos, (str, os.PathLike)):
        found = [Path(path) for path in photos]
        if not found:
            raise ArgumentError("[style] expects photographs, got none")
        return found
    if os.path.isdir(photos):
        found = sorted(path for path in Path(photos).iterdir() if _is_picture(path))
        if not found:
            raise ArgumentError(f"[style] {photos} is a folder without pictures ({', '.join(sorted(SUFFIXES))})")
        return found
    if os.path.exists(photos) or not glob.has_magic(str(photos)):
        return [Path(photos)]
    found = sorted(path for path in map(Path, glob.glob(str(photos), recursive=True)) if not path.is_dir())
    if not found:
        raise ArgumentError(f"[style] expects photographs, got nothing for {photos}")
    return found


def _is_picture(path: Path) -> bool:
    """Whether the name is that of a picture; a link to nothing is one, which fails and is told."""
    return is_picture_name(path.name) and (path.is_file() or path.is_symlink())


def _folder(output: PathLike) -> Path:
    folder = Path(output)
    if not os.path.isdir(folder) and (folder.suffix or os.path.exists(folder)):
        raise OutputError(f"[output] expects a folder for several photographs, got {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"[output] cannot make the folder {folder}: {error.strerror or error}") from error
    return folder


def _targets(photos: list[Path], folder: Path, inputs: list[Path]) -> dict[Path, Path]:
    """The picture that each photograph becomes: no two the same, and none that is read."""
    stems, targets, taken = Counter(photo.stem for photo in photos), {}, set[str]()
    read = {_identity(path) for path in inputs} - {None}
    for photo in photos:
        name = photo.stem if stems[photo.stem] == 1 else photo.name.replace(".", "-")
        while name.casefold() in taken:
            name += "-2"
        taken.add(name.casefold())
        targets[photo] = folder / f"{name}.png"
        if _identity(targets[photo]) in read:
            raise OutputError(f"[output] {targets[photo]} is an input; choose another folder")
    return targets


def _identity(path: Path) -> tuple[int, int] | None:
    """What is the same for all names and links of one file, or None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
