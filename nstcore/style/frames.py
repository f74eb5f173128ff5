"""A folder of numbered pictures: what is done of a film or a clip, so that an interruption loses nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nstcore.errors import CheckpointError, OutputError
from nstcore.files import PathLike, atomic_write
from nstcore.images import load, save

Array = NDArray[Any]

MARKER = "nstcore-frames.json"  # says that the folder is ours, and what it is made with
_NAME = re.compile(r"(\d{6,})\.png")


class FrameFolder:
    """Pictures by number, 000001.png and so on, each written whole or not at all."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def start(self, made_with: Mapping[str, Any] | None = None) -> None:
        """Make the folder; `OutputError` when something else is there."""
        if self.path.exists() and not self.is_ours and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(
                f"[output] {self.path} exists and is no folder of frames; move it away or give another name"
            )
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"[output] cannot make the folder {self.path}: {error.strerror or error}") from error
        text = json.dumps({"format": "nstcore-frames", "made_with": made_with or {}}, indent=1)
        atomic_write(self.path / MARKER, lambda stream: stream.write(text.encode()))

    @property
    def is_ours(self) -> bool:
        """Whether the folder was made by `start`."""
        return (self.path / MARKER).is_file()

    def check(self, made_with: Mapping[str, Any]) -> None:
        """Raise `CheckpointError`, with the first difference, unless the frames are made with just this."""
        try:
            facts = json.loads((self.path / MARKER).read_text())["made_with"]
            theirs = {str(name): value for name, value in facts.items()}
        except FileNotFoundError:
            raise CheckpointError(f"[resume] {self.path} is no folder of frames of a clip") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"[resume] {self.path / MARKER} cannot be read: {error}") from error
        for name, value in json.loads(json.dumps(made_with)).items():
            if theirs.get(name) != value:
                raise CheckpointError(f"[resume] {self.path} was made with {name} {theirs.get(name)!s}, got {value!s}")

    def numbers(self) -> list[int]:
        """Those that are there, in order."""
        found = (_NAME.fullmatch(path.name) for path in self.path.iterdir()) if self.path.is_dir() else ()
        return sorted(int(match[1]) for match in found if match)

    def write(self, number: int, picture: Array) -> None:
        """Write a picture (h, w, 3), float in [0, 1] or uint8."""
        save(self.file(number), picture)

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
