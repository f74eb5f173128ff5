"""A folder of numbered pictures: what is done of a film or a clip, so that an interruption loses nothing."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import CheckpointError, OutputError
from nstcore.files import PathLike, atomic_write
from nstcore.images import load, to_bytes

Array = NDArray[Any]

MARKER = "nstcore-frames.json"  # says that the folder is ours, what it belongs to, and what that is made with
MADE_OF = b"nstcore made of"  # of a picture: the fingerprint of what it was painted from
_NAME = re.compile(r"(\d{6,})\.png")
_HEAD, _FINGERPRINT = 1024, 64  # bytes of a PNG before its pixels; digits of a SHA-256


def flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What `nstcore.style.checkpoint.identity` gives, by one name each."""
    parts = {"version": identity["version"], "network": identity["network"]}
    return {**parts, **identity["settings"], **identity["pictures"]}


class Owner(NamedTuple):
    """What a folder of pictures belongs to. kind: "film" or "clip"; output: the name of its file, "" for the folder."""

    kind: str
    output: str

    def __str__(self) -> str:
        return f"the {self.kind} {self.output}" if self.output else f"a {self.kind}"


class FrameFolder:
    """Pictures by number, 000001.png and so on, each written whole or not at all."""

    def __init__(self, path: PathLike, owner: Owner | None = None) -> None:
        self.path, self.owner = Path(path), owner
        self._started = self._made = False

    def refuse_inputs(self, inputs: Iterable[PathLike]) -> None:
        """Raise `OutputError` when a file that is read lies in the folder, where it would be written over."""
        here = os.path.realpath(self.path)
        for source in inputs:
            folders = (
                os.path.realpath(os.path.dirname(os.path.abspath(source))),
                os.path.dirname(os.path.realpath(source)),
            )
            if here in (*folders, os.path.realpath(source)):
                raise OutputError(f"[output] {self.path} is the folder of the input {source}; choose another name")

    def start(self, made_with: Mapping[str, Any] | None = None) -> None:
        """Make the folder; `OutputError` when something else is there, or pictures of another owner or another run."""
        if self.path.exists() and not self.is_ours and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(
                f"[output] {self.path} exists and is no folder of frames; move it away or give another name"
            )
        if self.numbers() and (others := self._others(made_with or {})):
            raise OutputError(f"[output] {self.path} has the frames of {others}; move it away, or give another name")
        self._made = not self.path.exists()
        try:
            self.path.mkdir(exist_ok=True)
            self._started = True
        except OSError as error:
            raise OutputError(f"[output] cannot make the folder {self.path}: {error.strerror or error}") from error
        facts = {"format": "nstcore-frames", "of": self.owner and self.owner._asdict(), "made_with": made_with or {}}
        atomic_write(self.path / MARKER, lambda stream: stream.write(json.dumps(facts, indent=1).encode()))

    @property
    def is_ours(self) -> bool:
        """Whether the folder was made by `start`."""
        return (self.path / MARKER).is_file()

    @property
    def has_own(self) -> bool:
        """Whether there are pictures of this owner."""
        return bool(self.numbers()) and self._owned() == self.owner

    def check(self, made_with: Mapping[str, Any]) -> None:
        """Raise `CheckpointError`, with the first difference, unless the owner's frames are made with just this."""
        if not self.is_ours:
            raise CheckpointError(f"[resume] {self.path} is no folder of frames of a clip")
        if self._owned() != self.owner:
            raise CheckpointError(
                f"[resume] {self.path} has the frames of {self._owned() or 'another run'}, not of {self.owner}"
            )
        if found := self.difference(made_with):
            raise CheckpointError(f"[resume] {self.path} was made with {found}")

    def difference(self, made_with: Mapping[str, Any]) -> str | None:
        """What the frames are made with that `made_with` says otherwise, or None."""
        theirs, ours = self._facts().get("made_with"), json.loads(json.dumps(made_with))
        if not isinstance(theirs, dict):
            return "another version"
        for name in (*ours, *(name for name in theirs if name not in ours)):
            before, now = theirs.get(name), ours.get(name)
            if before != now:
                told = name in ours and name in theirs and not _is_fingerprint(now)
                return f"{name} {before}, got {now}" if told else f"another {name}"
        return None

    def _others(self, made_with: Mapping[str, Any]) -> str | None:
        """Whose the pictures are, when they are not those of this owner's run."""
        if self._owned() != self.owner:
            return str(self._owned() or "another run")
        found = self.difference(made_with)
        return f"another run of {self.owner}, made with {found}" if found else None

    def _facts(self) -> dict[str, Any]:
        """What the marker says, or nothing where it cannot be read."""
        try:
            found = json.loads((self.path / MARKER).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _owned(self) -> Owner | None:
        found = self._facts().get("of")
        return Owner(str(found.get("kind")), str(found.get("output"))) if isinstance(found, dict) else None

    def numbers(self) -> list[int]:
        """Those that are there, in order."""
        found = (_NAME.fullmatch(path.name) for path in self.path.iterdir()) if self.path.is_dir() else ()
        return sorted(int(match[1]) for match in found if match)

    def write(self, number: int, picture: Array, made_of: str | None = None) -> None:
        """Write a picture (h, w, 3), float in [0, 1] or uint8; made_of: what `made_of` shall tell."""
        from PIL import Image, PngImagePlugin

        chunks = PngImagePlugin.PngInfo()
        chunks.add(b"sRGB", b"\0")
        if made_of is not None:
            chunks.add_text(MADE_OF.decode(), made_of)
        image = Image.fromarray(np.ascontiguousarray(picture if picture.dtype == np.uint8 else to_bytes(picture)))
        atomic_write(self.file(number), functools.partial(image.save, format="PNG", pnginfo=chunks))

    def made_of(self, number: int) -> str | None:
        """The fingerprint of what a picture was painted from, which is in its file; None where there is none."""
        with self.file(number).open("rb") as file:
            head = file.read(_HEAD)
        _, found, rest = head.partition(b"tEXt" + MADE_OF + b"\0")
        return rest[:_FINGERPRINT].decode("ascii", "replace") if found else None

    def read(self, number: int) -> Array:
        """Give a picture as `load` does, float32 (h, w, 3) in [0, 1]."""
        return load(self.file(number))

    def file(self, number: int) -> Path:
        """Where a picture is."""
        return self.path / f"{number:06d}.png"

    def forget(self, after: int = -1) -> None:
        """Remove the pictures with a higher number."""
        for number in self.numbers():
            if number > after:
                self.file(number).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the pictures and the marker, and the folder if nothing else is in it."""
        if self.is_ours:
            self.forget()
            (self.path / MARKER).unlink()
            if not any(self.path.iterdir()):
                self.path.rmdir()

    def discard(self) -> None:
        """Undo `start` where no picture came of it."""
        if self._started and not self.numbers():
            (self.path / MARKER).unlink(missing_ok=True)
            if self._made and not any(self.path.iterdir()):
                self.path.rmdir()


def files_among(*given: Any) -> list[Path]:
    """The files and folders among pictures as `nstcore.images.load` takes them, and lists of such.

    >>> files_among("a.png", None, ["b.png", np.zeros((2, 2))])
    [PosixPath('a.png'), PosixPath('b.png')]
    """
    found: list[Path] = []
    for source in given:
        if isinstance(source, (str, os.PathLike)):
            found.append(Path(source))
        elif isinstance(source, (list, tuple)):
            found += files_among(*source)
    return found


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, str) and len(value) == _FINGERPRINT)
