"""Converters from other formats to the weights file of nstcore; one file a source format.

Of a VGG or an AlexNet the convolutions are read (the dense head of a classifier is left out), of the networks for faces
all. No converter runs code from the file, or trusts a size or path in it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nstcore.errors import ArgumentError
from nstcore.files import check_output
from nstcore.weights.convert import caffe, dlib, keras, matconvnet, mtcnn, onnx, safetensors, torch
from nstcore.weights.convert.source import (
    MAX_SOURCE_BYTES,
    Convolution,
    Network,
    Source,
    as_floats,
    file_digest,
    unreadable,
)
from nstcore.weights.format import WeightsFile, load, save
from nstcore.weights.npy import Array

__all__ = ["convert"]

_BY_SUFFIX: dict[str, Callable[[Path], Source | Network]] = {
    ".onnx": onnx.read,
    ".pth": torch.read,
    ".pt": torch.read,
    ".safetensors": safetensors.read,
    ".h5": keras.read_h5,
    ".hdf5": keras.read_h5,
    ".npz": keras.read_npz,
    ".mat": matconvnet.read,
    ".caffemodel": caffe.read,
    ".dat": dlib.read,
    ".whl": mtcnn.read,
}


def convert(
    source: str | Path,
    output: str | Path,
    *,
    architecture: str | None = None,
    dtype: str = "float16",
    origin: str | None = None,
) -> WeightsFile:
    """Read a VGG, an AlexNet, dlib's face encoder or MTCNN from another format and write it as a weights file.

    Args:
        source: .onnx, .pth or .pt (torchvision state dict), .safetensors (the same), .h5 or .npz (Keras), .mat
            (MatConvNet), .caffemodel (Caffe), .dat (dlib's face encoder), or .whl (facenet-pytorch, with MTCNN).
        output: the .npz to write; replaced if it is there.
        architecture: "vgg16", "vgg19", "alexnet", "alexnet_torchvision", "face_encoder" or "mtcnn" to insist on one;
            None takes what the file holds.
        dtype: "float16" (half the size, 5e-4 of relative feature error) or "float32" (exact).
        origin: where the source file came from, such as a package and its version; kept in the written file.

    Returns:
        The written file, loaded and checked again.

    Raises:
        WeightsError: the source is damaged, unsafe, of another network, or its package is not installed.
        ArgumentError: an option outside its range.
        OutputError: the output cannot be written.
    """
    source, output = Path(source), Path(output)
    _check_options(source, output, architecture, dtype)
    found = _reader(source)(source)
    if isinstance(found, Network):
        arrays, name = _known_parameters(source, found, architecture, dtype), found.architecture
        facts = dict(found.facts)
    else:
        arrays, name = _name_parameters(source, found.convolutions, architecture, dtype)
        facts = {}
    facts |= {
        "architecture": name,
        "preprocessing": found.preprocessing,
        "source": f"{found.kind} file {source.name}, sha256 {file_digest(source)}"
        + (f", from {origin}" if origin else ""),
        "licence": found.licence,
    }
    save(output, arrays, facts)
    return load(output)


def _check_options(source: Path, output: Path, architecture: str | None, dtype: str) -> None:
    """Refuse, before the work, what could not succeed."""
    from nstcore.models import face_layout, mtcnn_layout
    from nstcore.models.alexnet_layout import STAGES
    from nstcore.models.vgg_layout import BLOCKS

    known = (*BLOCKS, *STAGES, face_layout.ARCHITECTURE, mtcnn_layout.ARCHITECTURE)
    if architecture is not None and architecture not in known:
        raise ArgumentError(f"[weights convert] expects architecture {' or '.join(known)}, got {architecture!r}")
    if dtype not in ("float16", "float32"):
        raise ArgumentError(f"[weights convert] expects dtype float16 or float32, got {dtype!r}")
    if output.suffix != ".npz":
        raise ArgumentError(f"[weights convert] the output must end in .npz, got {str(output)!r}")
    if not source.is_file():
        raise unreadable(source, "there is no such file")
    if source.stat().st_size > MAX_SOURCE_BYTES:
        raise unreadable(source, f"is {source.stat().st_size} bytes long, the limit is {MAX_SOURCE_BYTES}")
    check_output(output, inputs=[source])


def _reader(path: Path) -> Callable[[Path], Source | Network]:
    """Choose by suffix; each reader then checks what is really in the file."""
    try:
        return _BY_SUFFIX[path.suffix.lower()]
    except KeyError:
        known = ", ".join(_BY_SUFFIX)
        raise unreadable(path, f"is of no format read here, which are {known}") from None


def _known_parameters(path: Path, found: Network, wanted: str | None, dtype: str) -> dict[str, Array]:
    """Give the parameters of a network whose reader named them; `save` and `load` check their shapes."""
    if wanted not in (None, found.architecture):
        raise unreadable(path, f"expects {wanted}, got {found.architecture}")
    return {key: as_floats(path, key, array, dtype) for key, array in found.arrays.items()}


def _name_parameters(
    path: Path, found: list[Convolution], wanted: str | None, dtype: str
) -> tuple[dict[str, Array], str]:
    """Give the convolutions our names, having checked their number and every shape."""
    name = _architecture(path, found, wanted)
    shapes = _parameter_shapes(name)
    layers = list(dict.fromkeys(key.partition(".")[0] for key in shapes))
    arrays = {}
    for layer, convolution in zip(layers, found, strict=True):
        for kind, array in (("weight", convolution.weight), ("bias", convolution.bias)):
            key = f"{layer}.{kind}"
            if array.shape != shapes[key]:
                rule = f"expects {shapes[key]} (k, r, s, c) as {key} of {name}, got {array.shape}"
                raise unreadable(path, rule, convolution.name)
            arrays[key] = as_floats(path, f"{convolution.name} {kind}", array, dtype)
    return arrays, name


def _architecture(path: Path, found: list[Convolution], wanted: str | None) -> str:
    """Which network has so many convolutions; the two AlexNets are told apart by the filters of the first one."""
    from nstcore.models.alexnet_layout import STAGES
    from nstcore.models.vgg_layout import BLOCKS

    counts = {name: len(stages) for name, stages in STAGES.items()}
    counts |= {name: sum(count for count, _ in blocks) for name, blocks in BLOCKS.items()}
    fitting = [name for name, count in counts.items() if count == len(found) and wanted in (None, name)]
    first = found[0].weight.shape if found else ()
    same = [name for name in fitting if _parameter_shapes(name)[f"{_first(name)}.weight"] == first]
    if fitting:
        return (same or fitting)[0]
    expected = ", ".join(f"{count} ({name})" for name, count in counts.items() if wanted in (None, name))
    if not expected:
        raise unreadable(path, f"expects {wanted}, got a network of {len(found)} convolutions")
    raise unreadable(path, f"expects this many convolutions: {expected}, got {len(found)}")


def _first(name: str) -> str:
    """The name of a network's first layer."""
    return next(iter(_parameter_shapes(name))).partition(".")[0]


def _parameter_shapes(name: str) -> dict[str, tuple[int, ...]]:
    from nstcore.models import alexnet_layout, vgg_layout

    if name in alexnet_layout.STAGES:
        return alexnet_layout.parameter_shapes(name)
    return vgg_layout.parameter_shapes(name)
