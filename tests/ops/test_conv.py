"""What the Op record of conv2d cannot show: schedules that only large layers reach, and the ReLU's bit mask."""

from __future__ import annotations

import numpy as np
import pytest

import nstcore as nst
from nstcore.errors import ArgumentError, ShapeError
from nstcore.ops import conv2d


@pytest.fixture(scope="module")
def layer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A layer so wide that its transformed weights leave the caches, on a map of more tiles than are done at once."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 70, 61, 512), np.float32)
    w = rng.standard_normal((64, 3, 3, 512), np.float32) / np.float32(68)
    return x, w, rng.standard_normal((64,), np.float32)


@pytest.mark.parametrize("algorithm", ["winograd4", "winograd6"])
def test_lots_of_tiles_agree_with_the_direct_sum(layer, isa, algorithm):
    x, w, b = layer
    exact = nst.ops.conv2d(x, w, b, padding=1, activation="relu", algorithm="direct")
    found = []
    for threads in (1, 3):
        nst.set_num_threads(threads)
        found.append(nst.ops.conv2d(x, w, b, padding=1, activation="relu", algorithm=algorithm))
    got = found[0]
    assert np.array_equal(got, found[1])
    assert np.max(np.abs(got - exact)) < 4e-5 * np.max(exact)


@pytest.mark.parametrize("algorithm", ["winograd4", "winograd6"])
@pytest.mark.parametrize("element", ["float32", "float64"])
def test_a_gradient_passes_where_the_result_is_above_zero(isa, algorithm, element):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 11, 9, 16)).astype(element)
    w = rng.standard_normal((16, 3, 3, 16)).astype(element)
    t = nst.tensor(x, requires_grad=True)
    y = nst.ops.conv2d(t, w, padding=1, activation="relu", algorithm=algorithm)
    seed = rng.standard_normal(y.shape).astype(element)
    y.backward(seed)
    plain = nst.tensor(x, requires_grad=True)
    nst.ops.conv2d(plain, w, padding=1, algorithm=algorithm).backward(np.where(y.data > 0, seed, 0).astype(element))
    assert np.max(np.abs(t.grad - plain.grad)) < 1e-5 * np.max(np.abs(plain.grad))  # a wrong bit is off by about 1


def test_weights_and_picture_together_have_the_gradients_of_each_alone(isa):
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((1, 9, 8, 16), np.float32), rng.standard_normal((16, 3, 3, 16), np.float32)
    options = {"padding": 1, "activation": "relu", "algorithm": "winograd6"}
    both_x, both_w = nst.tensor(x, requires_grad=True), nst.tensor(w, requires_grad=True)
    nst.ops.conv2d(both_x, both_w, **options).sum().backward()
    only_x, only_w = nst.tensor(x, requires_grad=True), nst.tensor(w, requires_grad=True)
    nst.ops.conv2d(only_x, w, **options).sum().backward()
    nst.ops.conv2d(x, only_w, **options).sum().backward()
    assert np.array_equal(both_x.grad, only_x.grad)
    assert np.array_equal(both_w.grad, only_w.grad)


@pytest.mark.parametrize("algorithm", ["winograd4", "winograd6"])
@pytest.mark.parametrize("size", [(12, 18), (13, 9)])
def test_a_pool_in_the_same_pass_is_the_pool_behind(isa, algorithm, size):
    """Values and all three gradients; the odd row and column have none. The same bits for any number of threads."""
    rng = np.random.default_rng(4)
    arrays = [rng.standard_normal(shape, np.float32) for shape in ((2, *size, 16), (48, 3, 3, 16), (48,))]
    seed = rng.standard_normal((2, size[0] // 2, size[1] // 2, 48), np.float32)

    def all_of(pool: bool) -> list[np.ndarray]:
        tensors = [nst.tensor(a, requires_grad=True) for a in arrays]
        y = nst.ops.conv2d(*tensors, padding=1, activation="relu", algorithm=algorithm, pool=pool)
        y = y if pool else nst.ops.max_pool2d(y, 2)
        y.backward(seed)
        return [y.data, *(t.grad for t in tensors)]

    together, apart = all_of(True), all_of(False)
    nst.set_num_threads(3)
    for a, b, threaded in zip(together, apart, all_of(True), strict=True):
        assert np.max(np.abs(a - b)) < 1e-5 * np.max(np.abs(b))
        np.testing.assert_array_equal(a, threaded)


def test_a_pool_in_the_same_pass_keeps_nan(isa):
    x = np.zeros((1, 12, 12, 16), np.float32)
    x[0, 5, 5, 3] = np.nan
    w = np.ones((16, 3, 3, 16), np.float32)
    y = nst.ops.conv2d(x, w, padding=1, activation="relu", algorithm="winograd4", pool=True)
    assert np.isnan(y[0, 2, 2]).all()
    assert np.isfinite(y[0, 5, 5]).all()


@pytest.mark.parametrize("element", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 37, 33, 48, 80), (1, 8, 9, 16, 16), (3, 6, 3, 32, 144)])
def test_weight_gradients_by_tiles_agree_with_the_direct_sum(isa, element, shape):
    """Several groups of tiles, tiles done in several parts, blocks of channels and filters that are not full."""
    n, h, w, c, k = shape
    rng = np.random.default_rng(5)
    x, weights = rng.standard_normal((n, h, w, c)).astype(element), rng.standard_normal((k, 3, 3, c)).astype(element)
    seed = rng.standard_normal((n, h, w, k)).astype(element)

    def gradient(algorithm: str) -> np.ndarray:
        t = nst.Tensor(weights, requires_grad=True)
        nst.ops.conv2d(x, t, padding=1, activation="relu", algorithm=algorithm).backward(seed)
        return t.grad

    exact, found = gradient("direct"), gradient("winograd4")
    assert np.max(np.abs(found - exact)) < (2e-5 if element == "float32" else 4e-14) * np.max(np.abs(exact))
    for threads in (2, 3):
        nst.set_num_threads(threads)
        np.testing.assert_array_equal(gradient("winograd4"), found)


@pytest.mark.parametrize("algorithm", ["auto", "direct", "winograd2", "winograd4", "winograd6"])
@pytest.mark.parametrize("shape", [(0, 8, 8, 16), (1, 0, 8, 16), (1, 8, 0, 16)])
def test_pictures_without_pixels(algorithm, shape):
    """What stands beside them, the padding, gives results of zero and gradients without numbers."""
    x = nst.tensor(np.zeros(shape, np.float32), requires_grad=True)
    w = nst.tensor(np.ones((16, 3, 3, 16), np.float32), requires_grad=True)
    y = conv2d(x, w, padding=5, activation="relu", algorithm=algorithm)
    y.sum().backward()
    assert y.shape == (shape[0], shape[1] + 8, shape[2] + 8, 16)
    assert (y.data == 0).all()
    assert x.grad.shape == shape
    assert (w.grad == 0).all()


def test_no_filters_are_refused():
    with pytest.raises(ShapeError, match=r"at least one channel and one filter, got .*w \(0, 3, 3, 5\)"):
        conv2d(np.zeros((1, 8, 8, 5), np.float32), np.zeros((0, 3, 3, 5), np.float32))


def test_a_stride_beyond_the_picture_needs_no_memory():
    """One row of results, whatever comes after it."""
    x, w = np.ones((1, 8, 8, 3), np.float32), np.ones((4, 3, 3, 3), np.float32)
    np.testing.assert_array_equal(conv2d(x, w, stride=(2**20, 1)), np.full((1, 1, 6, 4), 27.0))
    wide = np.ones((1, 3, 2, 1), np.float32), np.ones((4, 3, 2, 1), np.float32)
    with pytest.raises(ArgumentError, match="at most 1048576"):
        conv2d(*wide, stride=2**31 - 1, padding=(0, 2**31 - 1))
    assert conv2d(*wide, stride=2**20, padding=(0, 2**20)).shape == (1, 1, 3, 4)


def test_a_cpu_has_no_tiles_of_two():
    """It takes their name for "auto", for any number of channels."""
    rng = np.random.default_rng(0)
    for channels in (3, 16):
        x, w = (
            rng.standard_normal((1, 9, 9, channels), np.float32),
            rng.standard_normal((16, 3, 3, channels), np.float32),
        )
        np.testing.assert_array_equal(conv2d(x, w, algorithm="winograd2"), conv2d(x, w))
