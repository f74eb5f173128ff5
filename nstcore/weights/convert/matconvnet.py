"""VGG from MatConvNet: `imagenet-vgg-verydeep-19.mat` and -16, weights HWIO, input RGB 0-255 minus a mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nstcore.errors import WeightsError
from nstcore.weights.convert.source import OXFORD, Convolution, Source, from_hwio, preprocessing, unreadable
from nstcore.weights.npy import Array


def read(path: Path) -> Source:
    """Read the 3 x 3 convolutions of a MatConvNet VGG; its dense layers, of other sizes, are left out."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        tree = loadmat(path, simplify_cells=True, variable_names=["layers", "meta", "normalization"])
        found = [conv for layer in np.atleast_1d(tree["layers"]) if (conv := _convolution(layer)) is not None]
        mean = _mean(tree)
    except WeightsError:
        raise
    except NotImplementedError as error:
        raise unreadable(path, "is a MATLAB 7.3 file; save it again with save(..., '-v7')") from error
    except MemoryError as error:
        raise unreadable(path, "claims more than the memory of this machine") from error
    except (
        MatReadError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        EOFError,
        OSError,
        AttributeError,
    ) as error:
        raise unreadable(path, f"is not a MatConvNet network ({type(error).__name__}: {error})") from error
    return Source("MatConvNet", found, preprocessing("RGB", 255.0, mean, (1.0, 1.0, 1.0)), OXFORD)


def _convolution(layer: Mapping[str, Any]) -> Convolution | None:
    """Give a layer's convolution; None if it is no convolution or not a 3 x 3 one."""
    if layer.get("type") != "conv":
        return None
    pair = layer["weights"] if "weights" in layer else (layer["filters"], layer["biases"])  # before and after 2015
    weight, bias = (np.asarray(part) for part in pair)
    if weight.ndim != 4 or weight.shape[:2] != (3, 3):
        return None
    return Convolution(str(layer["name"]), from_hwio(weight), np.atleast_1d(bias))


def _mean(tree: Mapping[str, Any]) -> tuple[float, ...]:
    """Give the mean colour (R, G, B), 0-255, from a mean colour or a mean picture."""
    normalization = tree["meta"]["normalization"] if "meta" in tree else tree["normalization"]
    average: Array = np.asarray(normalization["averageImage"], np.float64)
    mean = average.reshape(-1, 3).mean(axis=0)
    if not np.isfinite(mean).all() or mean.min() < 0 or mean.max() > 255:
        raise ValueError(f"its averageImage has the mean colour {mean}")
    return tuple(float(value) for value in mean)
