"""The weights file of nstcore: an ordinary .npz, stored plainly, with a digest over arrays and facts.

Members are named like the parameters (``conv1_1.weight``); the member ``__meta__`` holds JSON as uint8.
`load` trusts nothing in the file: see `archive` for the limits of the zip and `npy` for those of the arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from nstcore.errors import ArgumentError, WeightsError
from nstcore.weights import archive, npy
from nstcore.weights.npy import Array

FORMAT = "nstcore-weights"
FORMAT_VERSION = 1
META_KEY = "__meta__"
MAX_META_BYTES = 4 << 20
DTYPES = ("float16", "float32", "float64", "int32", "int64", "uint8")
NOT_STATED = "not stated"


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """What `load` read: arrays as stored (read-only) and the facts about them, both already checked."""

    path: Path
    arrays: Mapping[str, Array]
    meta: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """The network these weights are for, such as "vgg16"."""
        return str(self.meta["architecture"])

    @property
    def preprocessing(self) -> Mapping[str, Any] | None:
        """What turns RGB in [0, 1] into the input: color_order, then x * scale, then (x - mean) / std."""
        found: Mapping[str, Any] | None = self.meta["preprocessing"]
        return found

    @property
    def digest(self) -> str:
        """SHA-256, in hex, over all arrays and facts."""
        return str(self.meta["digest"])

    @property
    def arrays_digest(self) -> str:
        """SHA-256, in hex, over the arrays alone: the same for the same weights, whatever the facts say."""
        return hashlib.sha256(_canonical(self.meta["digests"])).hexdigest()

    @property
    def parameters(self) -> int:
        """The number of stored values."""
        return sum(array.size for array in self.arrays.values())


def load(path: str | Path, *, remedy: str | None = None) -> WeightsFile:
    """Read a weights file and check it: limits, structure, every digest and, for a known network, every shape.

    Args:
        path: an .npz written by `save` or by ``nst weights convert``.
        remedy: what the reader of an error is told to do; default: get the file again.

    Returns:
        A `WeightsFile`; its arrays keep the stored dtype and are read-only.

    Raises:
        WeightsError: the file is missing, damaged, altered, pickled, foreign or of another shape; the message
            names the file, the key, and what to do.
    """
    path = Path(path)
    try:
        return _load(path)
    except FileNotFoundError as error:
        told = remedy or "'nst weights list' shows the embedded ones"
        raise WeightsError(f"[weights] {path}: there is no such file; {told}") from error
    except WeightsError as error:
        told = remedy or f"download the file again, or make it again: nst weights convert SOURCE -o {path.name}"
        raise WeightsError(f"{error}; {told}") from error


def _load(path: Path) -> WeightsFile:
    try:
        with open(path, "rb") as file:
            blocks = archive.read_members(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror or error})") from error
    except KeyError as error:
        raise damaged(path, error.args[1], error.args[0]) from error
    except ValueError as error:
        raise damaged(path, str(error)) from error
    arrays = {key: _parse(path, key, block) for key, block in blocks.items()}
    meta = _read_meta(path, arrays.pop(META_KEY, None))
    _check_arrays(path, arrays, meta)
    return WeightsFile(path, MappingProxyType(arrays), MappingProxyType(meta))


def save(path: str | Path, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write a weights file atomically; the same arrays and facts give the same bytes.

    Args:
        path: where to write; an existing file is replaced.
        arrays: parameter name -> array of one of `DTYPES`; names are ASCII letters,
            digits, ``_``, ``-`` and dots.
        meta: `architecture` (required), and `preprocessing` (None, or a dict of color_order, scale, mean,
            std), `source`, `licence` and any further facts that JSON can hold.

    Raises:
        ArgumentError: a name, dtype or fact that the format cannot hold.
        OutputError: the place cannot be written.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> save(Path(folder.name, "a.npz"), {"w": np.ones((2, 2), "float32")}, {"architecture": "example"})
    >>> load(Path(folder.name, "a.npz")).arrays["w"].sum()
    np.float32(4.0)
    >>> folder.cleanup()
    """
    from nstcore.files import atomic_write

    plain = {key: _plain(key, arrays[key]) for key in sorted(arrays)}
    if not plain or len(plain) >= archive.MAX_MEMBERS:
        raise ArgumentError(f"[weights] a file holds 1 to {archive.MAX_MEMBERS - 1} arrays, got {len(plain)}")
    if sum(array.nbytes for array in plain.values()) > archive.MAX_FILE_BYTES - (64 << 20):
        raise ArgumentError(f"[weights] a file holds at most {archive.MAX_FILE_BYTES >> 20} MiB of arrays")
    facts = _complete_meta(plain, meta)
    text = np.frombuffer(_canonical(facts), np.uint8)
    members = [(key, npy.header(array), _bytes(array)) for key, array in {META_KEY: text, **plain}.items()]

    def write(file: BinaryIO) -> None:
        archive.write_members(file, members)

    atomic_write(Path(path), write)


def damaged(path: Path, problem: str, key: str | None = None) -> WeightsError:
    """Make the error for a file that cannot be used: which file, which key, what is wrong; `load` says what to do."""
    where = f"{path}: {key}" if key else f"{path}"
    return WeightsError(f"[weights] {where}: {problem}")


def _bytes(array: Array) -> memoryview:
    """Give the bytes of a C-ordered array without copying them, also of an empty one or a scalar."""
    return array.reshape(-1).view(np.uint8).data


def _parse(path: Path, key: str, block: bytes) -> Array:
    try:
        return npy.parse(block)
    except ValueError as error:
        raise damaged(path, str(error), key) from error


def array_digest(array: Array) -> str:
    """Give the SHA-256 of dtype, shape and C-order little-endian bytes, in hex."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode("ascii"))
    digest.update(_bytes(array))
    return digest.hexdigest()


def meta_digest(meta: Mapping[str, Any]) -> str:
    """Give the SHA-256 of all facts but the digest itself, the digests of the arrays among them, in hex."""
    return hashlib.sha256(_canonical({k: v for k, v in meta.items() if k != "digest"})).hexdigest()


def _canonical(meta: Mapping[str, Any]) -> bytes:
    return json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _plain(key: str, value: Any) -> Array:
    """Check one array that is to be saved and give it C-ordered and little-endian."""
    if not archive.is_key(key) or key == META_KEY:
        raise ArgumentError(f"[weights] {key!r} cannot name an array; use letters, digits, _, - and dots")
    array = np.asarray(value)
    if array.dtype.name not in DTYPES:
        raise ArgumentError(f"[weights] {key}: expects one of {', '.join(DTYPES)}, got {array.dtype}")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _complete_meta(arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Add format, dtype and digests to the facts of the caller, and check them all."""
    facts: dict[str, Any] = {"preprocessing": None, "source": NOT_STATED, "licence": NOT_STATED, **meta}
    facts.update(format=FORMAT, format_version=FORMAT_VERSION, dtype=_common_dtype(arrays))
    facts["digests"] = {key: array_digest(array) for key, array in arrays.items()}
    try:
        facts = json.loads(_canonical(facts))  # tuples become lists, as a reader will see them
        facts["digest"] = meta_digest(facts)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"[weights] the facts about a file must be plain JSON values ({error})") from error
    problem = _meta_problem(facts)
    if problem or len(_canonical(facts)) > MAX_META_BYTES:
        raise ArgumentError(f"[weights] {problem or 'the facts about a file are longer than 4 MiB'}")
    return facts


def _common_dtype(arrays: Mapping[str, Array]) -> str:
    names = {array.dtype.name for array in arrays.values()}
    return names.pop() if len(names) == 1 else "mixed"


def _read_meta(path: Path, text: Array | None) -> dict[str, Any]:
    """Parse and check the facts, their digest included."""
    if text is None:
        raise damaged(path, "is missing: not a weights file of nstcore", META_KEY)
    if text.dtype != np.uint8 or text.ndim != 1 or text.size > MAX_META_BYTES:
        raise damaged(path, f"expects at most 4 MiB of uint8, got {text.dtype} {text.shape}", META_KEY)
    try:
        meta: dict[str, Any] = dict(json.loads(text.tobytes()))
        digest = meta_digest(meta)
    except (TypeError, ValueError, RecursionError) as error:
        raise damaged(path, f"is not a JSON table ({error})", META_KEY) from error
    kind, version = meta.get("format"), meta.get("format_version")
    if (kind, version) != (FORMAT, FORMAT_VERSION):
        found = f"{kind!r:.40} version {version!r:.40}"
        raise damaged(path, f"expects {FORMAT} version {FORMAT_VERSION}, got {found}", META_KEY)
    if meta.get("digest") != digest:
        raise damaged(path, "does not match its digest: the file was altered", META_KEY)
    problem = _meta_problem(meta)
    if problem:
        raise damaged(path, problem, META_KEY)
    return meta


def _meta_problem(meta: Mapping[str, Any]) -> str | None:
    """Name the first fact that is missing or of the wrong type; None if all are well."""
    for name in ("architecture", "source", "licence"):
        if not isinstance(meta.get(name), str) or not meta[name]:
            return f"expects {name} as text, got {meta.get(name)!r:.40}"
    if not isinstance(meta.get("digests"), dict):
        return "expects digests as a table of keys"
    wanted = meta.get("preprocessing", "nothing")
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or wanted.get("color_order") not in ("RGB", "BGR"):
        return "expects preprocessing with color_order RGB or BGR"
    scale, mean, std = (wanted.get(name, 0) for name in ("scale", "mean", "std"))
    if not (_is_number(scale) and _is_triple(mean) and _is_triple(std) and scale > 0 and min(std) > 0):
        return "expects preprocessing with scale > 0, three means, and three std > 0"
    return None


def _is_triple(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _check_arrays(path: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Compare the arrays with the facts: the same keys, dtypes, digests and, for a known network, shapes."""
    from nstcore.weights.layout import layout_problem

    digests = meta["digests"]
    for key in digests.keys() - arrays.keys():
        raise damaged(path, "is missing", key)
    for key, array in arrays.items():
        if array.dtype.name not in DTYPES or array.dtype.byteorder == ">" or not array.flags.c_contiguous:
            raise damaged(path, f"expects C-ordered little-endian {', '.join(DTYPES)}, got {array.dtype}", key)
        if digests.get(key) != array_digest(array):
            raise damaged(path, "does not match its digest: the file was altered", key)
    if meta.get("dtype") != _common_dtype(arrays):
        raise damaged(path, f"says dtype {meta.get('dtype')!r:.40}, its arrays are {_common_dtype(arrays)}")
    wrong = layout_problem(arrays, meta["architecture"])
    if wrong:
        raise damaged(path, wrong[1], wrong[0])
