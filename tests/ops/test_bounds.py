"""No kernel of rows reads beyond its inputs: they end where memory that may not be touched begins."""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
import pytest

import nstcore as nst
from nstcore.ops.pairwise import METRICS, nearest, pairwise_cosine, pairwise_inner, pairwise_sqdist
from nstcore.ops.triplet import MININGS, batch_triplet_loss

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="protects pages through Linux's mprotect")

PROTECTED: list[mmap.mmap] = []  # they must outlive the arrays


def at_the_end(a: np.ndarray) -> np.ndarray:
    """A copy of `a` whose last byte is the last one before a page that may be neither read nor written."""
    pages = -(-a.nbytes // mmap.PAGESIZE) + 1
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
    PROTECTED.append(memory)
    whole = np.frombuffer(memory, np.uint8)
    last = whole.ctypes.data + (pages - 1) * mmap.PAGESIZE
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(last), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    start = (pages - 1) * mmap.PAGESIZE - a.nbytes
    copy = whole[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "columns", "depth"), [(3, 9, 1), (15, 33, 7), (33, 47, 17), (113, 35, 129)])
def test_rows_end_before_a_forbidden_page(isa, kind, rows, columns, depth):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, depth)).astype(kind) for n in (rows, columns))
    safe, edge = (a, b), (at_the_end(a), at_the_end(b))
    for op in (pairwise_sqdist, pairwise_inner, pairwise_cosine):
        np.testing.assert_array_equal(op(*edge), op(*safe))
    np.testing.assert_array_equal(pairwise_sqdist(edge[0], edge[0]), pairwise_sqdist(a, a))
    for metric in METRICS:
        for got, expected in zip(nearest(*edge, 3, metric), nearest(*safe, 3, metric), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("batch", [5, 33, 67])
def test_batch_ends_before_a_forbidden_page(isa, mining, batch):
    z, labels = np.random.default_rng(1).standard_normal((batch, 19)).astype(np.float32), np.arange(batch) // 3
    gradients = []
    for data in (z, at_the_end(z)):
        t = nst.Tensor(data, requires_grad=True)
        batch_triplet_loss(t, labels, 2.0, mining).backward()
        gradients.append(t.grad)
    np.testing.assert_array_equal(*gradients)
