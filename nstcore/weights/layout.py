"""Whether a set of arrays is what a known network needs."""

from __future__ import annotations

from collections.abc import Mapping

from nstcore.weights.npy import Array


def layout_problem(arrays: Mapping[str, Array], architecture: str) -> tuple[str, str] | None:
    """Find the first array that does not fit a known network, as (key, what is wrong).

    Args:
        arrays: parameter name -> array.
        architecture: any name; those other than "vgg16", "vgg19", "alexnet", "alexnet_torchvision", "face_encoder" and
            "mtcnn" have no rule here and always fit.

    >>> layout_problem({}, "vgg16")
    ('conv1_1.weight', 'is missing: vgg16 needs it with shape (64, 3, 3, 3)')
    """
    shapes = _shapes(architecture)
    if shapes is None:
        return None
    for key, shape in shapes.items():
        if key not in arrays:
            return key, f"is missing: {architecture} needs it with shape {shape}"
        if arrays[key].shape != shape:
            return key, f"{architecture} expects shape {shape}, got {arrays[key].shape}"
        if arrays[key].dtype.kind != "f":
            return key, f"{architecture} expects floating point, got {arrays[key].dtype}"
    for key in arrays:
        if key not in shapes:
            return key, f"is no parameter of {architecture}"
    return None


def _shapes(architecture: str) -> dict[str, tuple[int, ...]] | None:
    """Give the shapes of all parameters of a known network."""
    from nstcore.models import alexnet_layout, face_layout, mtcnn_layout, vgg_layout

    if architecture == face_layout.ARCHITECTURE:
        return face_layout.parameter_shapes()
    if architecture == mtcnn_layout.ARCHITECTURE:
        return mtcnn_layout.parameter_shapes()
    if architecture in alexnet_layout.STAGES:
        return alexnet_layout.parameter_shapes(architecture)
    return vgg_layout.parameter_shapes(architecture) if architecture in vgg_layout.BLOCKS else None
