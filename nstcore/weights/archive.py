"""The zip around a weights file: stored members only, every limit checked before anything is read.

Because members are never compressed, their bytes must all be in the file: no zip bomb is possible, and
reading is one copy. Because the directory must end the file exactly and its length is bounded by the count of
members, a file cannot make `zipfile` build a directory larger than the limit.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Container
from typing import BinaryIO

MAX_MEMBERS = 10_000
MAX_FILE_BYTES = (1 << 31) - 1  # a larger one would need zip64; VGG-19 in float64 is 160 MB
KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*(\.[A-Za-z0-9_\-]+)*")

_END = struct.Struct("<4s4H2LH")  # the end-of-directory record
_DIRECTORY_BYTES_PER_MEMBER = 512  # 46 and a name of at most 200 characters, with room for extra fields
_MAX_KEY_LENGTH = 200
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same arrays give the same bytes, whenever they are saved


def is_key(text: object) -> bool:
    """Tell whether `text` may name an array: ASCII letters, digits, _ and -, parts joined by single dots."""
    return isinstance(text, str) and len(text) <= _MAX_KEY_LENGTH and KEY.fullmatch(text) is not None


def read_members(file: BinaryIO, only: Container[str] | None = None) -> dict[str, bytes]:
    """Read all members of an open zip file, or `only` those with these keys, as key -> .npy block.

    Raises ValueError with the reason, or KeyError(key, reason) where one member is to blame.
    """
    size = file.seek(0, 2)
    if size > MAX_FILE_BYTES:
        raise ValueError(f"is {size} bytes long, the limit is {MAX_FILE_BYTES}")
    _check_directory(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            _check_members(infos, size)
            keys = [(info.filename[:-4], info) for info in infos]
            return {key: _read(archive, info) for key, info in keys if only is None or key in only}
    except (zipfile.BadZipFile, NotImplementedError, UnicodeError, struct.error, OverflowError) as error:
        raise ValueError(f"is a damaged zip archive ({error})") from error


def _check_directory(file: BinaryIO, size: int) -> None:
    """Refuse, before `zipfile` sees it, a file that is no zip, is cut off, or claims too long a directory."""
    file.seek(0)
    head = file.read(4)
    if head[:1] == b"\x80":
        raise ValueError("is a pickle, not an .npz; nstcore never unpickles")
    if head not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise ValueError("is not a zip archive")
    if size < _END.size:
        raise ValueError("is truncated: only the beginning of a zip archive")
    file.seek(size - _END.size)
    signature, disk, start_disk, here, count, length, start, comment = _END.unpack(file.read(_END.size))
    if signature != b"PK\x05\x06":
        raise ValueError("is truncated: the end of its zip directory is missing")
    if count > MAX_MEMBERS:
        raise ValueError(f"has {count} members, the limit is {MAX_MEMBERS}")
    if disk or start_disk or comment or here != count or start + length + _END.size != size:
        raise ValueError("is a damaged zip archive (its directory does not end the file)")
    if length > count * _DIRECTORY_BYTES_PER_MEMBER:
        raise ValueError(f"is a damaged zip archive (a directory of {length} bytes for {count} members)")


def _check_members(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse names that are no keys, compressed or encrypted members, and sizes that the file cannot hold."""
    seen: set[str] = set()
    for info in infos:
        key = info.filename[:-4]
        if not info.filename.endswith(".npy") or not is_key(key):
            raise KeyError(ascii(info.filename[:80]), "is not the name of an array")
        if key in seen:
            raise KeyError(key, "is there twice")
        seen.add(key)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise KeyError(key, "is compressed or encrypted; a weights file stores its arrays plainly")
        if info.file_size != info.compress_size:
            raise KeyError(key, f"claims {info.file_size} bytes, but holds {info.compress_size}")
    claimed = sum(info.file_size for info in infos)
    if claimed > size:
        raise ValueError(f"claims {claimed} bytes of arrays, but is {size} bytes long")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read one member whose sizes are already checked."""
    try:
        with archive.open(info) as member:
            block = member.read()
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error, OSError) as error:
        raise KeyError(info.filename[:-4], f"is damaged ({error})") from error
    if len(block) != info.file_size:
        raise KeyError(info.filename[:-4], f"is truncated: {len(block)} of {info.file_size} bytes")
    return block


def write_members(file: BinaryIO, members: list[tuple[str, bytes, memoryview]]) -> None:
    """Write (key, header, data) members; the same members give the same bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for key, header, data in members:
            info = zipfile.ZipInfo(f"{key}.npy", _EPOCH)
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o644 << 16
            info.file_size = len(header) + data.nbytes
            with archive.open(info, "w") as member:
                member.write(header)
                member.write(data)
