"""Memory of results: aligned, used again, joined with what lies beside it, and given back."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstcore.backend import memory

MB = 1 << 20


def address(a: np.ndarray) -> int:
    return int(a.__array_interface__["data"][0])


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    memory.give_back()
    yield
    memory.give_back()


@pytest.mark.parametrize("shape", [(), (0, 5), (1024,), (3, 5, 7), (1000, 1001), (4, 512, 512)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64"])
def test_an_array_like_any_other(shape: tuple[int, ...], dtype: str) -> None:
    a = memory.empty(shape, dtype)
    assert (a.shape, a.dtype.name) == (shape, dtype)
    assert a.flags.c_contiguous
    assert a.flags.writeable
    a[...] = 7
    assert np.all(a == 7)
    if a.nbytes >= memory.PAGE:
        assert address(a) % 64 == 0


def test_arrays_do_not_overlap() -> None:
    arrays = [memory.empty((size,), "uint8") for size in (MB, 5, 70_000, 3 * MB + 1, 65_536, 10_000, 2 * MB) * 3]
    for i, a in enumerate(arrays):
        a[...] = i
    assert all(np.all(a == i) for i, a in enumerate(arrays))


def test_what_is_freed_is_used_again() -> None:
    a = memory.empty((3, MB), "uint8")
    where = address(a)
    del a
    assert memory.usage().kept >= 3 * MB
    assert address(memory.empty((3 * MB,), "uint8")) == where


def test_a_view_keeps_the_memory() -> None:
    before = memory.usage().used
    a = memory.empty((4, MB), "uint8")
    view = a[1:3, ::2].T
    a[...] = 5
    del a
    assert memory.usage().used == before + 4 * MB
    assert np.all(view == 5)
    del view
    assert memory.usage().used == before


def test_blocks_of_other_sizes_share_the_memory() -> None:
    """A large block is cut up for small ones, and joined again when they are gone."""
    with memory.reuse():
        del_me = memory.empty((16 * MB,), "uint8")
        where = address(del_me)
        del del_me
        parts = [memory.empty((4 * MB,), "uint8") for _ in range(4)]
        assert sorted(address(a) for a in parts) == [where + i * 4 * MB for i in range(4)]
        del parts[2], parts[0], parts[:]
        assert address(memory.empty((16 * MB,), "uint8")) == where


def test_outside_of_reuse_little_is_kept() -> None:
    arrays = [memory.empty((10 * MB,), "uint8") for _ in range(20)]
    del arrays
    assert memory.KEPT_LIMIT - 2 * MB < memory.usage().kept <= memory.KEPT_LIMIT


def test_reuse_keeps_everything_until_its_end() -> None:
    with memory.reuse(), memory.reuse():
        arrays = [memory.empty((10 * MB,), "uint8") for _ in range(20)]
        del arrays
        assert memory.usage().kept >= 200 * MB
    assert memory.usage().kept <= memory.KEPT_LIMIT


def fail_after_freeing(size: int) -> None:
    with memory.reuse():
        freed = memory.empty((size,), "uint8")
        del freed
        raise ZeroDivisionError


def test_reuse_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError):
        fail_after_freeing(100 * MB)
    assert memory.usage().kept <= memory.KEPT_LIMIT


def test_runs_at_several_sizes_do_not_pile_up() -> None:
    with memory.reuse():
        most = 0
        for size in range(20 * MB, 60 * MB, 3 * MB):
            arrays = [memory.empty((size // (i + 1),), "uint8") for i in range(4)]
            most = max(most, memory.usage().used)
            del arrays
            used, kept = memory.usage()
            assert used + kept <= most * 9 / 8 + 4 * 2 * MB


def test_what_is_held_is_measured_anew_after_giving_back() -> None:
    """Large work must not leave more room than small work that follows needs."""
    with memory.reuse():
        large = memory.empty((200 * MB,), "uint8")
        del large
        memory.give_back()
        for size in range(10 * MB, 30 * MB, MB):
            a = memory.empty((size,), "uint8")
            del a
        assert memory.usage().kept <= 30 * MB * 9 / 8 + 2 * MB


def test_the_longest_unused_goes_first() -> None:
    old, between, new = (
        memory.empty((40 * MB,), "uint8") for _ in range(3)
    )  # one between, so that they are not joined
    where = address(new)
    del old
    del new
    assert memory.usage().kept <= memory.KEPT_LIMIT
    assert address(memory.empty((40 * MB,), "uint8")) == where
    assert between.size == 40 * MB


def test_given_back_memory_is_gone_from_the_process() -> None:
    """What the system counts, not what we count."""
    if platform.system() != "Linux":
        pytest.skip("reads /proc")

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    a = memory.empty((60 * MB,), "uint8")
    a[...] = 1
    assert resident() - before > 50 * MB
    del a
    assert resident() - before > 50 * MB
    memory.give_back()
    assert resident() - before < 10 * MB


def test_no_page_fault_once_the_memory_was_used() -> None:
    resource = pytest.importorskip("resource")

    def work() -> None:
        a = memory.empty((20 * MB,), "uint8")
        a[...] = 1
        b = memory.empty((7 * MB,), "uint8")
        b[...] = 2

    with memory.reuse():
        work()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            work()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 100  # 6912 pages a round


def test_arrays_are_freed_by_other_threads() -> None:
    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        held: list[np.ndarray] = []
        for _ in range(200):
            a = memory.empty((int(rng.integers(1, 40)) * 50_000,), "uint8")
            a[::4096] = seed
            held.append(a)
            if len(held) > 5:
                gone = held.pop(int(rng.integers(5)))
                faults.append(not np.all(gone[::4096] == gone[0]))
        leftovers.extend(held)

    faults: list[bool] = []
    leftovers: list[np.ndarray] = []
    before = memory.usage().used
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(faults)
    leftovers.clear()
    assert memory.usage().used == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_blocks_of_its_own() -> None:
    a = memory.empty((5 * MB,), "uint8")
    a[...] = 1
    child = os.fork()
    if child == 0:
        a[...] = 2
        b = memory.empty((9 * MB,), "uint8")
        b[...] = 3
        memory.give_back()
        os._exit(0 if np.all(a == 2) and np.all(b == 3) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.all(a == 1)


def test_too_much_is_refused() -> None:
    for size in (1 << 46, 1 << 62):
        with pytest.raises(MemoryError):
            memory.empty((size,), "uint8")
    assert memory.empty((MB,), "uint8").size == MB


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12 * MB)), max_size=40))
def test_any_order_of_taking_and_giving(steps: list[tuple[bool, int]]) -> None:
    """Blocks never overlap, and the counts return to where they were."""
    before = memory.usage().used
    held: list[np.ndarray] = []
    for take, size in steps:
        if take or not held:
            held.append(memory.empty((size,), "uint8"))
            held[-1][::4096] = 1
        else:
            del held[size % len(held)]
        places = sorted((address(a), a.nbytes) for a in held)
        assert all(p + n <= q for (p, n), (q, _) in pairwise(places))
    held.clear()
    memory.give_back()
    assert memory.usage().used == before
