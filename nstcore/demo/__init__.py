"""Photographs that travel with the package, and a painter of style pictures."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from nstcore.errors import ArgumentError

# Name -> file in `pictures/`; NOTICE has the source and licence of each.
PICTURES = {
    "astronaut": "astronaut.jpg",
    "chelsea": "chelsea.jpg",
    "coffee": "coffee.jpg",
    "rocket": "rocket.jpg",
}


def picture_path(name: str) -> Path:
    """The file of a photograph in the package.

    Raises:
        ArgumentError: no photograph has this name; the message lists those that exist.

    Example:
        >>> picture_path("coffee").name
        'coffee.jpg'
    """
    if name not in PICTURES:
        raise ArgumentError(f"[demo] expects one of {', '.join(PICTURES)}, got {name!r}")
    return Path(str(files("nstcore.demo") / "pictures" / PICTURES[name]))
