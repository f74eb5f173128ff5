"""Whether a set of arrays is what a known network needs."""

from __future__ import annotations

from collections.abc import Mapping

from nstcore.weights.npy import Array


def vgg_problem(arrays: Mapping[str, Array], architecture: str) -> tuple[str, str] | None:
    """Find the first array that does not fit VGG-16 or VGG-19, as (key, what is wrong).

    Args:
        arrays: parameter name -> array.
        architecture: any name; those other than "vgg16" and "vgg19" have no rule here and always fit.

    >>> vgg_problem({}, "vgg16")
    ('conv1_1.weight', 'is missing: vgg16 needs it with shape (64, 3, 3, 3)')
    """
    from nstcore.models.vgg_layout import BLOCKS, parameter_shapes

    if architecture not in BLOCKS:
        return None
    shapes = parameter_shapes(architecture)
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
