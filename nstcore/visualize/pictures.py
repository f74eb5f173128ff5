"""A set of pictures to stream through a network: a folder, paths, or arrays, decoded ahead in a thread of its own."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nstcore.errors import ArgumentError, DTypeError, ImageError, NstError
from nstcore.images import MAX_PIXELS, SUFFIXES, is_picture_name, load_within

Array = NDArray[Any]
AHEAD = 3  # decoded pictures that wait at most


class Decoded(NamedTuple):
    """A picture's number; itself, or the error of one that cannot be read; and a digest of its pixels, never 0."""

    number: int
    picture: Array | NstError
    digest: int


@dataclass(frozen=True)
class Pictures:
    """Pictures by number. `size` limits the longer side: larger ones are shrunk to it, smaller ones stay.

    max_pixels: the most that a picture may have before; larger ones are refused, before they are decoded.
    """

    names: tuple[str, ...]
    sources: tuple[Any, ...]
    size: int | None = None
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.names)

    def load(self, number: int) -> Array:
        """Picture (h, w, 3), float32 in [0, 1]; `ImageError` when it cannot be read, or memory does not suffice."""
        try:
            return load_within(self.sources[number], self.size, max_pixels=self.max_pixels)
        except MemoryError as error:
            raise ImageError(f"[image] {self.names[number]} does not fit into memory") from error

    def _decoded(self, number: int) -> Decoded:
        try:
            picture = self.load(number)
        except NstError as error:
            return Decoded(number, error, 0)
        pixels = np.ascontiguousarray(picture)
        digest = hashlib.blake2b(pixels.data, digest_size=8, salt=repr(pixels.shape).encode()[:16]).digest()
        return Decoded(number, picture, int.from_bytes(digest, "little") or 1)

    def digest(self) -> str:
        """SHA-256, in hex, of what tells one set from another: of files names, sizes and times of change."""
        digest = hashlib.sha256(f"size {self.size}, of at most {self.max_pixels} pixels".encode())
        for name, source in zip(self.names, self.sources, strict=True):
            if isinstance(source, np.ndarray):
                fact = f"{source.shape} {source.dtype} {hashlib.sha256(np.ascontiguousarray(source).data).hexdigest()}"
            else:
                try:
                    found = os.stat(source)
                    fact = f"{found.st_size} {found.st_mtime_ns}"
                except OSError:
                    fact = "missing"
            digest.update(f"\n{name!r} {fact}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def ahead(self, first: int = 0) -> Iterator[Decoded]:
        """Every picture from number `first` on.

        A thread decodes up to three pictures ahead, so that the network does not wait for files.
        """
        ready: queue.Queue[Decoded | BaseException | None] = queue.Queue(AHEAD)
        stop = threading.Event()

        def put(item: Decoded | BaseException | None) -> None:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return
                except queue.Full:
                    continue

        def work() -> None:
            for number in range(first, len(self)):
                if stop.is_set():
                    return
                try:
                    put(self._decoded(number))
                except BaseException as error:  # raised again where it can be seen
                    put(error)
                    return
            put(None)

        thread = threading.Thread(target=work, name="nst-decode", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()


def pictures(images: Any, size: int | None = None, max_pixels: int = MAX_PIXELS) -> Pictures:
    """`images` as `Pictures`: a folder (with the folders in it), or a sequence of paths and arrays.

    Of a folder every file with the suffix of a picture is taken, in the order of their names.
    Raises `ImageError` for a folder that is missing or has no pictures, `ArgumentError` for an empty sequence.
    """
    if isinstance(images, Pictures):
        return images
    if size is not None and (isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1):
        raise ArgumentError(f"[visualize] expects size as a whole number of at least 1, got {size!r}")
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, (int, np.integer)) or max_pixels < 1:
        raise ArgumentError(f"[visualize] expects max_pixels as a whole number of at least 1, got {max_pixels!r}")
    if isinstance(images, (str, os.PathLike)):
        folder = Path(images)
        names = _files(folder)
        return Pictures(tuple(names), tuple(folder / name for name in names), size, max_pixels)
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if not isinstance(images, Sequence):
        raise DTypeError(
            f"[visualize] expects a folder, or a sequence of paths and arrays, got {type(images).__name__}"
        )
    if not len(images):
        raise ArgumentError("[visualize] expects at least one picture, got none")
    for source in images:
        if not isinstance(source, (str, os.PathLike, np.ndarray)):
            raise DTypeError(f"[visualize] expects paths and arrays as pictures, got {type(source).__name__}")
    names = [f"picture {i}" if isinstance(source, np.ndarray) else str(source) for i, source in enumerate(images)]
    return Pictures(tuple(names), tuple(images), size, max_pixels)


def _files(folder: Path) -> list[str]:
    """The pictures in a folder and in those inside of it, as paths from it; hidden ones are left out."""
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise ImageError(f"[visualize] expects a folder of pictures; {folder} {state}")
    found: list[str] = []
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in files:
            path = os.path.join(place, name)
            if os.path.exists(path) and not os.path.isfile(path):
                continue  # a pipe would be waited for; a link to nothing is listed as broken
            if is_picture_name(name):
                found.append(os.path.relpath(path, folder))
    if not found:
        raise ImageError(f"[visualize] {folder} has no pictures ({', '.join(sorted(SUFFIXES))})")
    return sorted(found)
