"""MTCNN: the three state dicts inside the wheel of facenet-pytorch, read without torch.

A wheel is a zip; its ``facenet_pytorch/data/{pnet,rnet,onet}.pt`` are of torch's older format. Nothing is extracted to
the disk, and no name from the archive but these three is used.
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from nstcore.models import mtcnn_layout as layout
from nstcore.weights.convert import torch
from nstcore.weights.convert.source import Network, from_oihw, preprocessing, unreadable
from nstcore.weights.npy import Array

MAX_MEMBER_BYTES = 16 << 20  # the largest of the true ones has 1,559,269
_FOLDER = "facenet_pytorch/data"
_LICENCE = "MIT, Timothy Esler (facenet-pytorch), after David Sandberg (facenet) and Kaipeng Zhang (MTCNN)"


def read(path: Path) -> Network:
    """Read the three networks; dense layers are reordered for (h, w, c), and each one's heads are joined."""
    arrays: dict[str, Array] = {}
    for name, net in layout.NETS.items():
        member = f"{_FOLDER}/{name}.pt"
        try:
            arrays |= _parameters(name, net, torch.parse_state_dict(BytesIO(_member(path, member))))
        except torch.DAMAGE as error:
            raise unreadable(path, str(error), member) from error
    return Network(
        "Wheel", layout.ARCHITECTURE, arrays, preprocessing("RGB", 255.0, (127.5,) * 3, (128.0,) * 3), _LICENCE
    )


def _member(path: Path, name: str) -> bytes:
    """Give one file of the archive; never more of it than the limit."""
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            raise ValueError("is missing: take the wheel of facenet-pytorch")
        with archive.open(name) as file:
            block = file.read(MAX_MEMBER_BYTES + 1)
    if len(block) > MAX_MEMBER_BYTES:
        raise ValueError(f"is larger than {MAX_MEMBER_BYTES} bytes, the limit for this format")
    return block


def _parameters(name: str, net: layout.Net, state: dict[str, Array]) -> dict[str, Array]:
    """Give the parameters of one network our names and layout."""
    channels, found, count = layout.CHANNELS, {}, len(net.convolutions)
    before = 0  # channels of zeros
    for i, layer in enumerate(net.convolutions):
        filters = layer.filters - layer.zeros
        weight = _take(state, f"conv{i + 1}.weight", (filters, channels - before, layer.size, layer.size))
        found[f"convolutions.{i}.weight"] = _padded(from_oihw(weight), layer.zeros, 0, 0, before)
        found[f"convolutions.{i}.bias"] = _padded(_take(state, f"conv{i + 1}.bias", (filters,)), layer.zeros)
        found[f"activations.{i}.slope"] = _padded(_take(state, f"prelu{i + 1}.weight", (filters,)), layer.zeros)
        channels, before = layer.filters, layer.zeros
    number, kind = count + 1, "conv"
    tail: tuple[int, ...] = (1, 1)
    if net.dense is not None:
        inputs, units = net.dense
        side = round((inputs // channels) ** 0.5)
        weight = _take(state, f"dense{number}.weight", (units, inputs)).reshape(units, side, side, channels)
        # the source flattens columns, rows, channels; an array here is rows, columns, channels
        found["dense.weight"] = weight.transpose(0, 2, 1, 3).reshape(units, 1, 1, inputs)
        found["dense.bias"] = _take(state, f"dense{number}.bias", (units,))
        found["dense_activation.slope"] = _take(state, f"prelu{number}.weight", (units,))
        channels, number, kind, tail = units, number + 1, "dense", ()
    sizes = (2, 4, 10) if net.results == layout.POINTS.stop else (2, 4)
    heads = [(f"{kind}{number}_{i}", size) for i, size in enumerate(sizes, 1)]
    weight = _joined([_take(state, f"{head}.weight", (size, channels, *tail)) for head, size in heads])
    found["head.weight"] = weight.reshape(net.results, 1, 1, channels)
    found["head.bias"] = _joined([_take(state, f"{head}.bias", (size,)) for head, size in heads])
    return {f"{name}.{key}": array for key, array in found.items()}


def _padded(array: Array, *zeros: int) -> Array:
    """Zeros after the end of each axis."""
    return np.pad(array, [(0, count) for count in zeros])


def _joined(heads: list[Array]) -> Array:
    """Face minus no face, then the other heads: softmax over two numbers is the sigmoid of their difference."""
    scores, *others = (head.astype(np.float64) for head in heads)
    return np.concatenate([scores[1:] - scores[:1], *others])


def _take(state: dict[str, Array], key: str, shape: tuple[int, ...]) -> Array:
    if key not in state:
        raise ValueError(f"{key} is missing")
    if state[key].shape != shape:
        raise ValueError(f"{key}: expects shape {shape}, got {state[key].shape}")
    return state[key]
