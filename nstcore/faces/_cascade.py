"""The three stages of MTCNN on one picture: propose, refine, locate.

Source: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
IEEE Signal Processing Letters 2016. The steps between the networks (pyramid, limits of overlap, rounding) are those of
facenet-pytorch 2.6.0, whose weights are used.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstcore.autograd import no_grad
from nstcore.backend import current_backend
from nstcore.backend.arrays import to_host
from nstcore.faces._area import AreaMeans
from nstcore.faces._boxes import inside, keep_best, moved, squared
from nstcore.models.mtcnn import MTCNN, Net, mtcnn
from nstcore.models.mtcnn_layout import NETS, PROPOSAL_STRIDE

Floats = NDArray[np.float32]
WINDOW = NETS["pnet"].side
_FACTOR = 0.709  # from a level of the pyramid to the next: half the area
_SAME_LEVEL, _ACROSS_LEVELS, _REFINED, _LOCATED = 0.5, 0.7, 0.7, 0.7  # overlaps at which the worse box goes
_STRIP = 1 << 17  # pixels of a level that P-Net sees at a time
_BATCH = 64  # windows that R-Net and O-Net see at a time


@functools.cache
def embedded_networks() -> MTCNN:
    """The networks with the embedded weights, loaded once."""
    return mtcnn()


def run(
    levels: NDArray[np.uint8], min_size: float, thresholds: tuple[float, float, float], nets: MTCNN
) -> tuple[Floats, Floats, Floats]:
    """Boxes (n, 4), landmarks (n, 5, 2) and scores (n,) of the faces in a picture, best first.

    levels: uint8 (h, w, 3). min_size: the side of the smallest face, in pixels.
    """
    if min(levels.shape[:2]) * (WINDOW / min_size) < WINDOW:
        return _nothing()
    nets.to(current_backend())  # once, not for every level
    means = AreaMeans(levels, *_pixel_range(nets))
    with no_grad():
        boxes = _propose(means, min_size, thresholds[0], nets.pnet)
        boxes, scores, offsets, _ = _judge(means, boxes, thresholds[1], nets.rnet)
        kept = keep_best(boxes, scores, _REFINED)
        boxes = squared(moved(boxes[kept], offsets[kept], 1))
        boxes, scores, offsets, points = _judge(means, boxes, thresholds[2], nets.onet)
    if points is None or not len(boxes):
        return _nothing()
    size = boxes[:, None, 2:] - boxes[:, None, :2] + np.float32(1)
    landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * size + boxes[:, None, :2] - np.float32(1)
    boxes = moved(boxes, offsets, 1)
    kept = keep_best(boxes, scores, _LOCATED, of_smaller=True)
    return boxes[kept], landmarks[kept], scores[kept]


def _nothing() -> tuple[Floats, Floats, Floats]:
    return np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32)


def _scales(side: int, min_size: float) -> Iterator[float]:
    """The scales at which a face of `min_size` and larger ones fill a window; `side`: the picture's shorter one."""
    scale, room = WINDOW / min_size, side * (WINDOW / min_size)
    while room >= WINDOW:
        yield scale
        scale, room = scale * _FACTOR, room * _FACTOR


def _propose(means: AreaMeans, min_size: float, threshold: float, net: Net) -> Floats:
    """Square boxes of everything that P-Net takes for a face, at every scale."""
    found: list[tuple[Floats, Floats, Floats]] = []
    for scale in _scales(min(means.height, means.width), min_size):
        level = means.resized(int(means.height * scale + 1), int(means.width * scale + 1))
        scores, offsets, places = _look_everywhere(level, threshold, net)
        corner = places[:, ::-1].astype(np.float32) * np.float32(PROPOSAL_STRIDE) + np.float32(1)
        ends = corner + np.float32(WINDOW - 1)
        boxes = np.floor(np.concatenate([corner, ends], axis=1) / np.float32(scale))
        kept = keep_best(boxes, scores, _SAME_LEVEL)
        found.append((boxes[kept], scores[kept], offsets[kept]))
    boxes, scores, offsets = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept = keep_best(boxes, scores, _ACROSS_LEVELS)
    return squared(moved(boxes[kept], offsets[kept], 0))


def _look_everywhere(level: Floats, threshold: float, net: Net) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Score, offsets and place (row, column) of the windows above the threshold, row by row.

    The level is cut into strips of rows, with the rows between two strips in both: memory stays bounded, and small.
    """
    height, width = level.shape[1:3]
    rows = -(-height // PROPOSAL_STRIDE) - 5  # of windows
    step = max(1, _STRIP // (PROPOSAL_STRIDE * width))
    found = []
    for first in range(0, rows, step):
        last = min(first + step, rows)
        pixels = slice(first * PROPOSAL_STRIDE, (last - 1) * PROPOSAL_STRIDE + WINDOW)
        probability, offsets, _ = _answers(net, level[:, pixels])
        above = probability[0, ..., 0] >= threshold
        places = np.argwhere(above)
        places[:, 0] += first
        found.append((probability[0, ..., 0][above], offsets[0][above], places))
    scores, offsets, places = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return scores, offsets, places


def _judge(means: AreaMeans, boxes: Floats, threshold: float, net: Net) -> tuple[Floats, Floats, Floats, Floats | None]:
    """Boxes that the network takes for faces, with their scores, offsets and, from O-Net, landmarks."""
    pixels = inside(boxes, means.width, means.height)
    visible = (pixels[:, 2] > pixels[:, 0]) & (pixels[:, 3] > pixels[:, 1])
    boxes, pixels = boxes[visible], pixels[visible]
    found: list[tuple[Any, ...]] = []
    for start in range(0, max(len(boxes), 1), _BATCH):
        part = slice(start, start + _BATCH)
        probability, offsets, points = _answers(net, means.windows(pixels[part], net.side))
        above = probability[:, 0] > threshold
        results = (boxes[part], probability[:, 0], offsets, *([] if points is None else [points]))
        found.append(tuple(array[above] for array in results))
    boxes, scores, offsets, *rest = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return boxes, scores, offsets, rest[0] if rest else None


def _answers(net: Net, pixels: Floats) -> tuple[Floats, Floats, Floats | None]:
    """What a network says, as arrays of the host: what follows is small, and branches."""
    probability, offsets, points = net(pixels)
    return to_host(probability.data), to_host(offsets.data), None if points is None else to_host(points.data)


def _pixel_range(nets: MTCNN) -> tuple[float, float]:
    """Shift and scale that turn values in 0–255 into what the networks take."""
    how = nets.preprocessing
    return how["mean"][0], 1 / how["std"][0]
