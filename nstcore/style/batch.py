"""Many photographs in one call: each is painted into a folder; what fails is told at the end, and the rest is done."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nstcore.errors import ArgumentError, NonFiniteError, NstError, OutputError
from nstcore.files import PathLike, check_output
from nstcore.images import load, save
from nstcore.models.vgg import VGG, vgg16
from nstcore.style.result import Progress, Result
from nstcore.style.settings import SMALLEST
from nstcore.style.transfer import as_list, settings_of, transfer

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}  # of photographs in a folder


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

    photos: a folder, a pattern (``"photos/*.jpg"``), or paths. output: a folder, made where there is none. Of two
    photographs whose names differ in the suffix alone, the pictures are a-jpg.png and a-png.png.
    callback: called after each step with the photograph and a `Progress`; done: after each photograph, with its
    picture. options: as of `transfer`, but those that name a file of one run (checkpoint, resume, film).
    A photograph that fails is told in the result and the rest is painted; when its loss stops being a number, the last
    good picture is written too. Ctrl-C writes what is reached of the one that is being painted.

    Raises `ArgumentError` for options that mean nothing and where there is no photograph, `OutputError` for a folder
    that cannot be.
    """
    for name in ("checkpoint", "checkpoint_every", "resume", "film", "film_every"):
        if name in options:
            raise ArgumentError(f"[style] {name} is for one photograph, not for a folder of them")
    of_a_run = {"start", "regions", "style_masks"}
    settings = settings_of({name: value for name, value in options.items() if name not in of_a_run})
    many = as_list(styles)
    settings.blend_shares(len(many))
    inputs = [x for x in (*many, options.get("start")) if isinstance(x, (str, Path))]
    longer = max(SMALLEST, round(settings.size * settings.style_scale))
    paintings = [load(x, size=longer, max_pixels=max_pixels, min_side=SMALLEST) for x in many]
    network = net or vgg16(pooling=settings.pooling)
    result = BatchResult(_folder(output))
    targets = _targets(photographs(photos), result.folder)
    for photo, picture in targets.items():
        step = None if callback is None else (lambda progress, photo=photo: callback(photo, progress))
        try:
            check_output(picture, inputs=[photo, *inputs])
            one = transfer(photo, paintings, net=network, callback=step, max_pixels=max_pixels, **options)
        except KeyboardInterrupt:
            result.stopped = "interrupted"
            return result
        except (NstError, MemoryError) as error:
            result.failures[photo] = str(error) or "out of memory"
            if isinstance(error, NonFiniteError) and isinstance(error.result, Result):
                save(picture, error.result.image)
            continue
        if one.history:
            save(picture, one.image)
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
    if Path(photos).is_dir():
        found = sorted(path for path in Path(photos).iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        if not found:
            raise ArgumentError(f"[style] {photos} is a folder without pictures")
        return found
    if os.path.exists(photos) or not glob.has_magic(str(photos)):
        return [Path(photos)]
    found = sorted(path for path in map(Path, glob.glob(str(photos))) if path.is_file())
    if not found:
        raise ArgumentError(f"[style] expects photographs, got nothing for {photos}")
    return found


def _folder(output: PathLike) -> Path:
    folder = Path(output)
    if folder.suffix or (folder.exists() and not folder.is_dir()):
        raise ArgumentError(f"[style] expects a folder for several photographs, got {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"[output] cannot make the folder {folder}: {error.strerror or error}") from error
    return folder


def _targets(photos: list[Path], folder: Path) -> dict[Path, Path]:
    """The picture that each photograph becomes; no two the same."""
    stems, targets, taken = Counter(photo.stem for photo in photos), {}, set[str]()
    for photo in photos:
        name = photo.stem if stems[photo.stem] == 1 else photo.name.replace(".", "-")
        while name.casefold() in taken:
            name += "-2"
        taken.add(name.casefold())
        targets[photo] = folder / f"{name}.png"
    return targets
