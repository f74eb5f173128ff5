"""The counting build counts what is known of patterns of access; the lint asks for a reason where one is needed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cuda_on_cpu import build, lint
from cuda_on_cpu import cupy_stand_in as cupy

PATTERNS = Path(__file__).with_name("patterns.cu")
STATED = re.compile(r"// (\w+) (\w+) (\d+): (\d+) / (\d+)$")

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="g++ is not installed"),
    pytest.mark.skipif(not build.supported(), reason="the emulator runs on Linux on x86-64"),
]


def stated() -> dict[tuple[int, str, str, int], tuple[int, int]]:
    """Of each line of the patterns that says so: what a warp's access takes, and the least that it could."""
    found = {}
    for number, line in enumerate(PATTERNS.read_text().splitlines(), 1):
        if match := STATED.search(line):
            kind, memory, bytes_, taken, least = match.groups()
            found[number, kind, memory, int(bytes_)] = int(taken), int(least)
    return found


def launch_patterns(*chosen: str) -> None:
    """All of them, or those chosen."""
    module = cupy.RawModule(code=f'#line 1 "{PATTERNS}"\n')
    for name in chosen or [name for name, _ in build.kernels(PATTERNS)]:
        dtype = np.uint8 if name == "bytes" else np.float32
        module.get_function(name)((1,), (64,), (cupy.zeros(4096, dtype), cupy.zeros(4096, dtype)))


def test_patterns_take_what_is_known() -> None:
    counts = lint.counted(launch_patterns)
    each = {
        (line.number, line.kind, line.memory, line.bytes): (count.taken / count.accesses, count.least / count.accesses)
        for line, count in counts.items()
    }
    assert len(stated()) == 33
    assert {place: each.get(place) for place in stated()} == stated()
    assert {line.kernel for line in counts} == {name for name, _ in build.kernels(PATTERNS)}


def test_lanes_that_part_are_counted_together_again() -> None:
    """64 threads, 4 steps, each of which 8 lanes of a warp skip: 2 warps x 4 accesses, none of single lanes."""
    counts = lint.counted(launch_patterns)
    (skipped,) = (count for line, count in counts.items() if "32 * k + i" in line.code)
    assert skipped == lint.Count(8, 32, 24)


def test_other_builds_count_nothing() -> None:
    lint.launcher.COUNTED.clear()
    for mode in ("fast", "checked"):
        with cupy.using(mode=mode):
            launch_patterns("neighbours")
    assert lint.launcher.COUNTED == []
