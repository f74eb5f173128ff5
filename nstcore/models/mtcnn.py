"""MTCNN's three networks: P-Net proposes windows with a face, R-Net and O-Net judge and correct them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nstcore import ops, weights
from nstcore.errors import ShapeError, WeightsError
from nstcore.models.mtcnn_layout import ARCHITECTURE, BOX, CHANNELS, LOGIT, NETS, POINTS
from nstcore.nn.layers import Conv2d, MaxPool2d, PReLU
from nstcore.nn.module import Module

PIXELS = {"color_order": "RGB", "scale": 255.0, "mean": (127.5,) * 3, "std": (128.0,) * 3}


class Net(Module):
    """One network of the three: ``net(x)`` gives (probability, box, landmarks) of each window.

    P-Net takes pictures (n, h, w, 3), both sides at least 11, and gives, for windows of 12 pixels 2 apart, arrays
    (n, p, q, ·) with p = ⌈h / 2⌉ − 5: the last one may hang over by a pixel. R-Net and O-Net take windows
    (n, 24, 24, 3) and (n, 48, 48, 3) and give arrays (n, ·).

    The results: the probability (…, 1) of a face, the offsets (…, 4) of left, top, right and bottom as fractions of
    width and height, and the landmarks (…, 10), five x, then five y, as fractions of the window; O-Net alone has
    those, the others give None.
    """

    def __init__(self, name: str) -> None:
        net = NETS[name]
        counts = [CHANNELS, *(layer.filters for layer in net.convolutions)]
        self.name, self.side = name, net.side
        self.convolutions = [
            Conv2d(channels, layer.filters, layer.size)
            for channels, layer in zip(counts, net.convolutions, strict=False)
        ]
        self.activations = [PReLU(layer.filters) for layer in net.convolutions]
        self.pools = [MaxPool2d(*layer.pool, ceil_mode=True) if layer.pool else None for layer in net.convolutions]
        self.dense = Conv2d(*net.dense, 1) if net.dense else None
        self.dense_activation = PReLU(net.dense[1]) if net.dense else None
        self.head = Conv2d(net.dense[1] if net.dense else counts[-1], net.results, 1)

    def forward(self, x: Any) -> tuple[Any, Any, Any]:
        """x: RGB, (value − 127.5) / 128 with values in 0–255, of the type of the weights."""
        fits = len(x.shape) == 4 and x.shape[3] == CHANNELS and min(x.shape[1:3]) >= self.side - 1
        if not fits or (self.dense is not None and x.shape[1:3] != (self.side, self.side)):
            sides = (
                f"{self.side}, {self.side}" if self.dense is not None else f"h >= {self.side - 1}, w >= {self.side - 1}"
            )
            raise ShapeError(f"[{ARCHITECTURE}] {self.name} expects (n, {sides}, 3), got {tuple(x.shape)}")
        for convolution, activation, pool in zip(self.convolutions, self.activations, self.pools, strict=True):
            x = activation(convolution(x))
            x = x if pool is None else pool(x)
        if self.dense is not None and self.dense_activation is not None:
            x = self.dense_activation(self.dense(ops.reshape(x, (x.shape[0], 1, 1, self.dense.weight.shape[3]))))
        found = self.head(x)
        if self.dense is not None:
            found = found[:, 0, 0]
        points = found[..., POINTS] if found.shape[-1] == POINTS.stop else None
        return ops.sigmoid(found[..., LOGIT]), found[..., BOX], points


class MTCNN(Module):
    """The three networks, frozen; `nstcore.faces.detect` runs them one after the other."""

    def __init__(self, preprocessing: Mapping[str, Any] = PIXELS, dtype: DTypeLike = np.float32) -> None:
        self.pnet, self.rnet, self.onet = (Net(name) for name in NETS)
        self.preprocessing = preprocessing
        self.freeze().astype(dtype)

    def save(self, path: str | Path, **meta: Any) -> None:
        """Write the weights so that `mtcnn` can read them; `meta` is stored beside them."""
        super().save(path, **{"architecture": ARCHITECTURE, "preprocessing": dict(self.preprocessing), **meta})


def mtcnn(weights: str | Path | None = None, *, dtype: DTypeLike = np.float32) -> MTCNN:
    """MTCNN with the embedded weights, or those of an ``.npz`` that ``nst weights convert`` made.

    weights: path, or None for the embedded file. dtype: float32 or float64.
    Raises `WeightsError` when the file is missing, damaged or of another network.

    >>> probability, box, landmarks = mtcnn().onet(np.zeros((2, 48, 48, 3), np.float32))
    >>> probability.shape, box.shape, landmarks.shape
    ((2, 1), (2, 4), (2, 10))
    """
    return _load(weights, dtype)


def _load(path: str | Path | None, dtype: DTypeLike) -> MTCNN:
    file = weights.load(weights.embedded(ARCHITECTURE) if path is None else path)
    if file.architecture != ARCHITECTURE or file.preprocessing is None:
        raise WeightsError(f"[{ARCHITECTURE}] {file.path}: expects weights of {ARCHITECTURE}, got {file.architecture}")
    how = file.preprocessing
    if how["color_order"] != "RGB" or how["scale"] != PIXELS["scale"] or len({*how["mean"]}) + len({*how["std"]}) > 2:
        raise WeightsError(f"[{ARCHITECTURE}] {file.path}: expects RGB in 0-255 with one mean and one std, got {how}")
    net = MTCNN(file.preprocessing, dtype)
    net.load_state_dict(file.arrays, str(file.path))
    return net
