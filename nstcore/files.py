"""Writing files so that a reader sees either the old one or the whole new one."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from nstcore.errors import OutputError

PathLike = str | os.PathLike[str]


def atomic_write(path: PathLike, write: Callable[[BinaryIO], object], *, private: bool = False) -> None:
    """Write a file through `write(stream)`; whatever goes wrong, the path keeps what it had.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the name.  A new
    file gets the permissions that the umask gives, a replaced one keeps its own, and a symbolic link stays
    a link.

    Args:
        path: where the file shall be; its folder exists.
        write: is called once with a seekable binary stream.
        private: the file shall be for its owner alone (mode 0600), whatever the umask and a replaced file say.

    Raises:
        OutputError: the folder or the disk refuses; other errors of `write` itself pass through.

    Example:
        >>> atomic_write("/tmp/nstcore-doctest.txt", lambda stream: stream.write(b"done"))
        >>> Path("/tmp/nstcore-doctest.txt").read_bytes()
        b'done'
    """
    target = _regular_target(path)
    try:
        temporary, stream = _open_temporary(target, 0o600 if private else 0o666)
        try:
            with stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            if target.exists() and not private:
                temporary.chmod(stat.S_IMODE(target.stat().st_mode) & 0o777)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"[output] {path} cannot be written: {error.strerror or error}") from error


def check_output(path: PathLike, *, inputs: Iterable[PathLike] = ()) -> Path:
    """Refuse a place that could not be written later, before any work is done; return it as a Path.

    Args:
        path: where a result shall be written.
        inputs: files that it must not be, under whatever name or link.

    Raises:
        OutputError: the folder is missing or cannot be written, or the path is a folder, device or input.
    """
    target = _regular_target(path)
    folder = target.parent
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist; create it first"
        raise OutputError(f"[output] the folder {folder} of {path} {state}")
    for source in inputs:
        if target.exists() and os.path.exists(source) and os.path.samefile(target, source):
            raise OutputError(f"[output] {path} is the input {source}; choose another name")
    # An access check says nothing about quotas and network disks: create a file to know.
    try:
        probe, stream = _open_temporary(target)
        stream.close()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"[output] the folder {folder} cannot be written: {reason}") from error
    return Path(path)


def _regular_target(path: PathLike) -> Path:
    """The file behind the path and its links: a regular file, or nothing yet."""
    if not os.fspath(path):
        raise OutputError("[output] expects a file name, got an empty one")
    try:
        target = Path(os.path.realpath(path))
        mode = os.stat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except (OSError, ValueError) as error:
        raise OutputError(f"[output] {path} cannot be a file name: {error}") from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"[output] {path} is a folder; give a file name in it")
    if not stat.S_ISREG(mode):
        raise OutputError(f"[output] {path} is not a regular file")
    return target


def _open_temporary(target: Path, mode: int = 0o666) -> tuple[Path, BinaryIO]:
    """A new hidden file beside the target, short-named so that any legal target name is possible."""
    temporary = target.with_name(f".nst-{secrets.token_hex(8)}.tmp")
    # 0o666 is what open() asks for: the kernel takes the umask away.
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    return temporary, os.fdopen(handle, "w+b")
