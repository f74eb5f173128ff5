"""Boxes, float32 (n, 4): left, top, right, bottom; and which of those that overlap are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
_BLOCK = 64  # boxes that are decided on together


def keep_best(boxes: Floats, scores: Floats, limit: float, *, of_smaller: bool = False) -> Indices:
    """The boxes that overlap no better one that is kept by more than `limit`, best first.

    Overlap is intersection over union; with `of_smaller`, intersection over the smaller box, sides counted in whole
    pixels (last − first + 1). Of equal scores the first comes first.
    """
    extra = np.float32(1 if of_smaller else 0)
    waiting = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)
    corners = (*boxes.T, areas)
    kept: list[Indices] = []
    while waiting.size:
        block = waiting[:_BLOCK]
        rivals = _overlaps(corners, block, block, extra, of_smaller) > limit
        alive = np.ones(block.size, bool)
        for i in range(block.size):
            if alive[i]:
                alive[i + 1 :] &= ~rivals[i, i + 1 :]
        block, rest = block[alive], waiting[_BLOCK:]
        kept.append(block)
        waiting = rest[~(_overlaps(corners, block, rest, extra, of_smaller) > limit).any(axis=0)]
    return np.concatenate(kept) if kept else waiting


def _overlaps(corners: tuple[Any, ...], a: Indices, b: Indices, extra: np.float32, of_smaller: bool) -> Floats:
    """Overlap of each box of `a` with each of `b`; NaN, which no limit is below, where both have no area."""
    left, top, right, bottom, area = ((c[a][:, None], c[b][None]) for c in corners)
    width = np.maximum(np.minimum(*right) - np.maximum(*left) + extra, np.float32(0))
    height = np.maximum(np.minimum(*bottom) - np.maximum(*top) + extra, np.float32(0))
    shared = width * height
    with np.errstate(invalid="ignore"):
        return np.asarray(shared / (np.minimum(*area) if of_smaller else area[0] + area[1] - shared), np.float32)


def moved(boxes: Floats, offsets: Floats, extra: float) -> Floats:
    """Boxes with their sides moved by fractions of their size, which is last − first + `extra`."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(extra)
    return np.asarray(boxes + offsets * np.tile(size, 2), np.float32)


def squared(boxes: Floats) -> Floats:
    """The squares with the same centres and the longer of the two sides."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([corner, corner + side], axis=1)


def inside(boxes: Floats, width: int, height: int) -> NDArray[np.int64]:
    """The whole pixels of each box that lie in the picture, (n, 4); right ≤ left or bottom ≤ top where none do.

    The networks were trained with pixels counted from 1: a box from 1 to 12 covers the first twelve.
    """
    left, top, right, bottom = np.trunc(boxes).astype(np.int64).T
    first = np.maximum(left, 1) - 1, np.maximum(top, 1) - 1
    return np.stack([*first, np.minimum(right, width), np.minimum(bottom, height)], axis=1)
