"""The verification head in a gallery's file: a table of one row, which is there only while there is a head."""

from __future__ import annotations

import sqlite3
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, GalleryError
from nstcore.faces.head import FORMS, VerificationHead

_FORMS = ", ".join(f"'{form}'" for form in FORMS)
SCHEMA = f"""CREATE TABLE head (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        form TEXT NOT NULL CHECK (form IN ({_FORMS})),
        numbers BLOB NOT NULL CHECK (typeof(numbers) = 'blob'),
        sum INTEGER NOT NULL
    )"""


def numbers(head: VerificationHead) -> NDArray[np.float32]:
    """The weights and, behind them, the bias, float32 (size + 1,); `ArgumentError` where they are not finite."""
    with np.errstate(over="ignore"):
        found = np.append(head.weight.data[:, 0], head.bias.data).astype("<f4")
    if not np.isfinite(found).all():
        raise ArgumentError("[gallery] expects a head with finite weights, got NaN or infinity")
    return found


def from_numbers(form: str, array: NDArray[Any], encoder: str) -> VerificationHead:
    """What `numbers` gave; ValueError or `ArgumentError` for anything else."""
    if array.dtype != np.float32 or array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise ValueError("has a head that is not a row of finite numbers")
    head = VerificationHead(len(array) - 1, form, encoder=encoder)
    head.weight.data = np.array(array[:-1, None], np.float32)
    head.bias.data = np.array(array[-1:], np.float32)
    return head


def read(connection: sqlite3.Connection, encoder: tuple[str, str, int]) -> VerificationHead | None:
    """The head of a gallery for that encoder, if it has one. Raises `GalleryError` where it is damaged."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'head'").fetchone() is None:
        return None
    row = connection.execute("SELECT form, numbers, sum FROM head").fetchone()
    _, digest, size = encoder
    try:
        form, blob, found = row
        if len(blob) != 4 * (size + 1) or found != _sum(digest, form, blob):
            raise ValueError
        return from_numbers(form, np.frombuffer(blob, "<f4"), digest)
    except (TypeError, ValueError, ArgumentError):
        raise GalleryError("[gallery] the file is damaged: its verification head cannot be read") from None


def write(connection: sqlite3.Connection, encoder: tuple[str, str, int], head: VerificationHead | None) -> None:
    """Keep a head, or none, as a part of a change."""
    connection.execute("DROP TABLE IF EXISTS head")
    if head is None:
        return
    blob = numbers(head).tobytes()
    connection.execute(SCHEMA)
    connection.execute("INSERT INTO head VALUES (1, ?, ?, ?)", (head.form, blob, _sum(encoder[1], head.form, blob)))


def _sum(encoder: str, form: str, blob: bytes) -> int:
    return zlib.crc32(f"{encoder}\0{form}\0".encode("utf-8", "surrogatepass") + blob)
