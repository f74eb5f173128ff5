"""What the tests of galleries share: an encoder that is none, and a gallery with people in it."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nstcore.faces import Calibration, Gallery

SIZE = 16
CALIBRATION = Calibration(0.5, 20.0, -10.0, False, 7, 7, "made up")


@dataclass(frozen=True)
class Fake:
    """Stands for an encoder: a gallery asks who it is, and nothing else here."""

    id: str = "fake"
    digest: str = "f" * 64
    size: int = SIZE
    calibration: Calibration = CALIBRATION


def opened(path: Path | str, encoder: Any = None, **options: Any) -> Gallery:
    """The gallery of that path, for encodings of 16 made-up numbers."""
    return Gallery(path, encoder=encoder or Fake(), **options)


@functools.cache
def _content() -> bytes:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "people.db")
        with opened(path) as gallery:
            gallery.add_many([f"p{i // 3}" for i in range(180)], rng.standard_normal((180, SIZE)))
            for i in range(5):
                facts = {"source": f"{i}.jpg", "digest": f"{i:064x}", "about": {"score": 1}}
                gallery.add(f"p{i}", rng.standard_normal(SIZE), **facts)  # type: ignore[arg-type]
        return path.read_bytes()


def filled(path: Path) -> Path:
    """A gallery of 60 people with 185 photographs, five of them with facts."""
    path.write_bytes(_content())
    return path
