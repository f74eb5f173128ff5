"""VGG from ONNX: the Conv nodes in graph order, with their initializers (weights OIHW)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nstcore.weights.convert.source import (
    CAFFE_INPUT,
    OXFORD,
    TORCHVISION,
    TORCHVISION_INPUT,
    Convolution,
    Source,
    fits,
    from_oihw,
    need,
    unreadable,
)
from nstcore.weights.npy import Array


def read(path: Path) -> Source:
    """Read the convolutions of an ONNX graph; whatever follows them (a dense head) is left out.

    The input that the network wants is not written in the graph: it is known from who made it. Keras names
    its layers ``block1_conv1`` and keeps the original weights; PyTorch names itself as the producer.
    """
    onnx = need("onnx", path)
    try:
        # external data would be read from paths that the file names
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError is not part of onnx's own interface
        raise unreadable(path, f"is not a readable ONNX file ({error})") from error
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    found = [_convolution(onnx, path, node, tensors) for node in nodes]
    if any("block1_conv1" in name for name in tensors):
        return Source("ONNX (Keras)", found, CAFFE_INPUT, OXFORD)
    if model.producer_name == "pytorch":
        return Source("ONNX (PyTorch)", found, TORCHVISION_INPUT, TORCHVISION)
    raise unreadable(path, "was made neither by Keras nor by PyTorch, so the input it wants is not known")


def _convolution(onnx: Any, path: Path, node: Any, tensors: dict[str, Any]) -> Convolution:
    """Read one Conv node."""
    if len(node.input) != 3:
        raise unreadable(path, "has no bias", node.name)
    weight, bias = (_tensor(onnx, path, tensors, name) for name in node.input[1:])
    return Convolution(node.input[1], from_oihw(weight), bias)


def _tensor(onnx: Any, path: Path, tensors: dict[str, Any], name: str) -> Array:
    """Read one initializer whose size is checked."""
    tensor = tensors.get(name)
    if tensor is None:
        raise unreadable(path, "is not stored in the graph", name)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise unreadable(path, "lies in another file; export the model into one file", name)
    if not fits(tuple(tensor.dims), 1):
        raise unreadable(path, f"has shape {tuple(tensor.dims)}, not that of a VGG", name)
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise unreadable(path, f"is damaged ({error})", name) from error
