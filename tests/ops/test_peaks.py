"""The highest value of each channel: ties, NaN, infinities, and blocks that threads share."""

from __future__ import annotations

import numpy as np
import pytest

import nstcore as nst
from nstcore.errors import DTypeError, ShapeError
from nstcore.ops.pool import channel_peaks


def by_numpy(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Channel by channel, with the functions that pass NaN over."""
    flat = x.reshape(len(x), -1, x.shape[3])
    values, places = np.full(flat.shape[::2], -np.inf, x.dtype), np.full(flat.shape[::2], -1)
    for image, channel in np.ndindex(*values.shape):
        column = flat[image, :, channel]
        if (column > -np.inf).any():
            values[image, channel], places[image, channel] = np.nanmax(column), np.nanargmax(column)
    return values, places


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 3, 4, 1), (2, 9, 31, 5), (1, 64, 65, 100), (3, 40, 41, 16), (1, 1, 2000, 63)])
def test_of_equal_values_the_first_is_told(isa, kind, shape):
    """Few different values, so that every block has the highest one; some NaN, which is nothing."""
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, shape).astype(kind)
    x[rng.random(shape) < 0.2] = np.nan
    x[rng.random(shape) < 0.1] = -np.inf
    for got, wanted in zip(channel_peaks(x), by_numpy(x), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_infinities_and_nothing(isa):
    x = np.zeros((1, 70, 70, 40), np.float32)
    x[0, 50, 3, 0] = np.inf
    x[..., 1] = np.nan
    x[..., 2] = -np.inf
    x[0, 69, 69, 3] = np.nextafter(np.float32(0), np.float32(1))
    values, places = channel_peaks(x)
    assert values[0, :4].tolist() == [np.inf, -np.inf, -np.inf, x[0, 69, 69, 3]]
    assert places[0, :5].tolist() == [50 * 70 + 3, -1, -1, 70 * 70 - 1, 0]


def test_threads_change_nothing(isa):
    x = np.random.default_rng(1).integers(0, 9, (2, 120, 121, 33)).astype(np.float32)
    before, found = nst.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            nst.set_num_threads(threads)
            found.append(channel_peaks(x))
    finally:
        nst.set_num_threads(before)
    for values, places in found[1:]:
        np.testing.assert_array_equal(values, found[0][0])
        np.testing.assert_array_equal(places, found[0][1])


def test_strided_and_tensors(isa):
    x = np.random.default_rng(2).standard_normal((2, 8, 9, 20)).astype(np.float32)
    for seen in (x[:, ::2], x[..., ::-1], x.transpose(0, 2, 1, 3)):
        for got, wanted in zip(channel_peaks(nst.Tensor(seen)), by_numpy(seen), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_what_is_refused():
    with pytest.raises(ShapeError, match=r"\[channel_peaks\]"):
        channel_peaks(np.zeros((3, 4, 5)))
    with pytest.raises(DTypeError, match=r"\[channel_peaks\]"):
        channel_peaks(np.zeros((1, 3, 4, 5), np.int32))
