"""Pictures turned, moved and scaled by affine maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd.engine import Context, apply
from nstcore.backend.arrays import beside, to_host
from nstcore.errors import ArgumentError, ShapeError
from nstcore.ops._op import Array, Case, Kernel, Op, Tolerance, check_dtypes, check_result, check_shapes, pair, register
from nstcore.ops.elementwise import operand

Matrices = NDArray[np.float64]
Taps = list[tuple[Array, Array, Array]]


def warp_affine(image: Any, matrix: Any, size: int | tuple[int, int]) -> Any:
    """y_npq = image_n at the place A_n · (q, p, 1), between four pixels; zeros outside of the picture.

    image: (n, h, w, c) float32 or float64. matrix: A, (2, 3) for all or (n, 2, 3): maps a place (x, y) in the result to
    one in the image. Places are counted in pixels from the upper left corner, so that the centre of the first pixel
    is (½, ½). size: height and width of the result, one number or (height, width). Gives (n, p, q, c).

    Between pixel centres the value is bilinear, and no mean is taken: to shrink, average first (`avg_pool2d`). There is
    no gradient for the matrix; that for the image exists everywhere.
    Raises `ShapeError`, `DTypeError`, `ArgumentError` for a matrix that is not finite.
    Source: Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS 2015, equation 5.

    >>> x = np.arange(6.0).reshape(1, 2, 3, 1)
    >>> warp_affine(x, [[1, 0, 0.5], [0, 1, 0]], 2)[0, :, :, 0]
    array([[0.5, 1.5],
           [3.5, 4.5]])
    """
    image = operand(image, None)
    check_shapes(WARP_AFFINE, (image,))
    check_dtypes(WARP_AFFINE, (image,))
    found = to_host(matrix).astype(np.float64)
    count = image.shape[0]
    if found.shape not in ((2, 3), (count, 2, 3)):
        raise ShapeError(f"[warp_affine] expects a matrix (2, 3) or ({count}, 2, 3), got {found.shape}")
    if not np.isfinite(found).all():
        raise ArgumentError("[warp_affine] expects a matrix of finite numbers, got one that is not")
    height, width = pair("warp_affine", "size", size, least=1)
    check_result("warp_affine", (count, height, width, image.shape[3]), image.dtype.itemsize)
    return apply(WARP_AFFINE, (image,), matrix=np.broadcast_to(found, (count, 2, 3)), size=(height, width))


def _taps(shape: tuple[int, ...], dtype: Any, matrix: Matrices, size: tuple[int, int]) -> Taps:
    """For each of four neighbours: its row among all pixels (n·h·w), its weight, and whether it is in the picture.

    Arrays (n, p, q). Neighbours outside have row 0 and weight 0.
    """
    count, height, width, _ = shape
    grid = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    place = np.stack([*grid, np.ones(size)])  # (3, p, q)
    x, y = (np.tensordot(matrix[:, i], place, axes=1) - 0.5 for i in range(2))
    left, top = np.floor(x), np.floor(y)
    right_part, lower_part = x - left, y - top
    pictures = np.arange(count)[:, None, None]
    taps: Taps = []
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        column, row = left + dx, top + dy
        within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weight = (right_part if dx else 1 - right_part) * (lower_part if dy else 1 - lower_part)
        index = (pictures * height + np.where(within, row, 0).astype(np.int64)) * width
        index += np.where(within, column, 0).astype(np.int64)
        taps.append((np.where(within, index, 0), np.where(within, weight, 0).astype(dtype), within))
    return taps


def _reference(ctx: Context, image: Array, matrix: Matrices, size: tuple[int, int]) -> Array:
    ctx.extra = image.shape
    pixels, shape = image.reshape(-1, image.shape[3]), (image.shape[0], *size, image.shape[3])
    result: Array = np.zeros_like(image, order="C", shape=shape)
    if len(pixels):
        for index, weight, _ in _taps(image.shape, image.dtype, matrix, size):
            result += pixels[beside(index, image)] * beside(weight[..., None], image)
    return result


def _reference_back(ctx: Context, grad: Array, matrix: Matrices, size: tuple[int, int]) -> tuple[Array | None, ...]:
    shape, here = ctx.extra, to_host(grad)  # on a device what several places add to one would be added in any order
    total = np.zeros((int(np.prod(shape[:3])), shape[3]), grad.dtype)
    if len(total):
        for index, weight, within in _taps(shape, grad.dtype, matrix, size):
            np.add.at(total, index[within], (here * weight[..., None])[within])
    return (beside(total.reshape(shape), grad),)


_TURN = [[0.8, -0.6, 3.1], [0.6, 0.8, -1.3]]
WARP_AFFINE = register(
    Op(
        "warp_affine",
        "n h w c -> n p q c",
        warp_affine,
        Kernel(_reference, _reference_back),
        (
            Case("as it is", ((1, 4, 5, 3),), {"matrix": [[1, 0, 0], [0, 1, 0]], "size": (4, 5)}),
            Case("one pixel", ((1, 1, 1, 1),), {"matrix": [[1, 0, 0.3], [0, 1, -0.2]], "size": 2}),
            Case("turned", ((1, 7, 9, 3),), {"matrix": _TURN, "size": (6, 8)}),
            Case(
                "a matrix each",
                ((2, 6, 5, 4),),
                {"matrix": [_TURN, [[0.4, 0, 0.2], [0, 0.4, 1]]], "size": (9, 7)},
            ),
            Case("wholly outside", ((1, 3, 3, 2),), {"matrix": [[1, 0, 50], [0, 1, 0]], "size": 3}),
            Case("no images", ((0, 4, 4, 3),), {"matrix": _TURN, "size": 3}),
            Case("an empty image", ((1, 0, 4, 3),), {"matrix": _TURN, "size": 3}),
        ),
        tolerance=Tolerance(float32=1e-6, float64=1e-14),
        source="Jaderberg, Simonyan, Zisserman, Kavukcuoglu: Spatial Transformer Networks, NIPS 2015, equation 5",
    )
)
