"""Pretrained weights: the file format, the files embedded in the package, and the converters.

>>> available()
['face_encoder', 'mtcnn', 'vgg16']
>>> load(embedded("vgg16")).parameters
14714688
"""

from __future__ import annotations

from pathlib import Path

from nstcore.errors import WeightsError
from nstcore.weights.format import WeightsFile, load, save

__all__ = ["WeightsFile", "available", "embedded", "load", "save", "verify"]

_DATA = Path(__file__).parent / "data"


def available() -> list[str]:
    """List the names of the weights that travel inside the package."""
    return sorted(file.stem for file in _DATA.glob("*.npz"))


def embedded(name: str) -> Path:
    """Give the path of the embedded weights `name`; WeightsError, with the names there are, for any other."""
    if name not in available():
        raise WeightsError(f"[weights] no embedded weights {name!r}; there are: {', '.join(available()) or 'none'}")
    return _DATA / f"{name}.npz"


def verify(path: str | Path) -> WeightsFile:
    """Check a whole weights file; the same as `load`, under the name of the intent."""
    return load(path)
