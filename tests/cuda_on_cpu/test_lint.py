"""The counting build counts what is known of patterns of access; the lint asks for a reason where one is needed."""

from __future__ import annotations

import re
from functools import cache
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


class TestKernels:
    """Every kernel has a case, and every access that is not ideal a reason."""

    @pytest.mark.parametrize("op", lint.CASES)
    def test_reasons(self, op: str) -> None:
        known = lint.reasons(lint.REASONS.read_text("utf-8"))
        counts = lint.run_cases([op])
        wanted = [kernel for kernel, name in lint.kernels().items() if name == op]
        wrong = [line for line in lint.offences(counts, known, wanted) if not line.startswith("reason not needed")]
        assert not wrong, "\n".join(wrong)
        assert {line.kernel for line in counts} >= set(wanted)

    def test_every_kernel_has_a_case(self) -> None:
        assert set(lint.kernels().values()) <= set(lint.CASES)

    def test_the_table_names_the_kernels_there_are_and_every_reason(self) -> None:
        text = lint.TABLE.read_text("utf-8")
        assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(lint.kernels())
        for reason in lint.reasons(lint.REASONS.read_text("utf-8")):
            assert f". {reason.why}\n" in text


@cache
def two_patterns() -> lint.Counts:
    return lint.counted(lambda: launch_patterns("strides", "shifted"))


class TestOffences:
    """The lint can fail."""

    def known(self, *lines: str) -> list[lint.Reason]:
        return lint.reasons("# What these are.\n\nThey show\nwhat is counted.\n" + "\n".join(f"    {x}" for x in lines))

    LINES = (
        "str* | float v = x[2 * i];",
        "* | v += x[32 * i];",
        "strides | y[4 * i] = v;",
        "* | const float v = x[i + 1];",
    )

    def test_every_line_has_a_reason(self) -> None:
        known = self.known(*self.LINES)
        assert {reason.why for reason in known} == {"They show what is counted."}
        assert list(lint.offences(two_patterns(), known, ["strides", "shifted"])) == []

    def test_a_line_without_one(self) -> None:
        (found,) = lint.offences(two_patterns(), self.known(*self.LINES[1:]), [])
        assert found.startswith("no reason for patterns.cu:")
        assert "strides: float v = x[2 * i];  (load of 4 bytes, global: 2.00 times the least)" in found

    def test_a_reason_for_another_kernel_does_not_count(self) -> None:
        found = list(lint.offences(two_patterns(), self.known("sh* | float v = x[2 * i];", *self.LINES[1:]), []))
        assert [line.split(" for ")[0] for line in found] == [
            "no reason",
            "reason not needed: sh* | float v = x[2 * i];",
        ]

    def test_a_reason_of_an_ideal_line(self) -> None:
        found = list(lint.offences(two_patterns(), self.known(*self.LINES, "shifted | y[i] = v;"), []))
        assert found == ["reason not needed: shifted | y[i] = v;"]

    def test_a_kernel_that_did_not_run(self) -> None:
        (found,) = lint.offences(two_patterns(), self.known(*self.LINES), ["strides", "vectors"])
        assert found.startswith("no representative case for vectors of ")

    def test_the_table(self) -> None:
        text = lint.table(two_patterns(), self.known(*self.LINES))
        assert "| `strides` | patterns.cu: `v += x[32 * i];` | load 4, sectors | 2 | 64 | 8 | 8.00 | 1 |" in text
        assert "| `shifted` | patterns.cu: `y[i] = v;` | store 4, sectors | 2 | 8 | 8 | 1.00 |  |" in text
        assert "1. They show what is counted.\n" in text
