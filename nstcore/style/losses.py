"""The costs that style transfer weighs against each other, on one layer's activations each."""

from __future__ import annotations

from typing import Any

from nstcore import ops
from nstcore.errors import DTypeError, ShapeError


def content_loss(a: Any, target: Any) -> Any:
    """J_content = ½ Σ (a − target)², over every element of every image.

    a, target: activations (n, h, w, c), of the picture and of the content image. Gives a scalar; a tensor if either is.
    Raises `ShapeError` when the shapes differ, `DTypeError` when the types do.
    Source: Gatys, Ecker, Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016, equation 1.
    """
    _check_types("content_loss", a, target)
    if a.shape != target.shape or a.ndim != 4:
        raise ShapeError(f"[content_loss] expects two (n, h, w, c) of one shape, got {a.shape} and {target.shape}")
    difference = ops.sub(a, target)
    return ops.mul(ops.sum(ops.mul(difference, difference)), 0.5)


def style_loss(a: Any, target_gram: Any) -> Any:
    """J_style of one layer = 1 / (2 h w c)² · Σ (G(a) − target_gram)², over every pair of channels of every image.

    a: activations (n, h, w, c); target_gram: (n, c, c), unnormalised as `nstcore.ops.gram` gives it. Gives a scalar.
    The difference is scaled before it is squared, so that float32 stays finite at any size.
    Raises `ShapeError`, `DTypeError`.
    Source: Gatys, Ecker, Bethge, CVPR 2016, equation 4, with N = c and M = h w.
    """
    _check_types("style_loss", a, target_gram)
    gram = ops.gram(a)
    if target_gram.shape != gram.shape:
        raise ShapeError(f"[style_loss] expects target_gram of shape {gram.shape}, got {target_gram.shape}")
    _, h, w, c = a.shape
    if h * w * c == 0:
        raise ShapeError(f"[style_loss] expects at least one element in each image, got {a.shape}")
    difference = ops.mul(ops.sub(gram, target_gram), 1.0 / (2.0 * h * w * c))
    return ops.sum(ops.mul(difference, difference))


def total_variation(image: Any) -> Any:
    """Σ (x_i+1,j − x_ij)² + (x_i,j+1 − x_ij)²: how rough a picture is; 0 for one colour.

    image: (n, h, w, c). Gives a scalar. Raises `ShapeError`, `DTypeError`.
    Source: Mahendran, Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR 2015, section 3.
    """
    _check_types("total_variation", image)
    if image.ndim != 4:
        raise ShapeError(f"[total_variation] expects (n, h, w, c), got {image.shape}")
    every, later, earlier = slice(None), slice(1, None), slice(None, -1)
    down = ops.sub(ops.getitem(image, (every, later)), ops.getitem(image, (every, earlier)))
    right = ops.sub(ops.getitem(image, (every, every, later)), ops.getitem(image, (every, every, earlier)))
    return ops.add(ops.sum(ops.mul(down, down)), ops.sum(ops.mul(right, right)))


def _check_types(name: str, *values: Any) -> None:
    """Arrays or tensors, all of one type: what NumPy would silently convert costs memory and hides mistakes."""
    for value in values:
        if not hasattr(value, "dtype"):
            raise DTypeError(f"[{name}] expects arrays or tensors, got {type(value).__name__}")
    if len({value.dtype for value in values}) != 1:
        raise DTypeError(f"[{name}] expects one type, got {' and '.join(str(value.dtype) for value in values)}")
