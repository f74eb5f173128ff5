"""The mutation run finds what tests notice and what they do not, remembers it, and holds survivors to their reasons."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cuda_on_cpu import build
from cuda_on_cpu.mutants import ALWAYS, Mutant, chosen, mutants
from cuda_on_cpu.mutate import explanations, judged, table

KERNEL = """// a < b in a comment
#define NOT_CODE (a < b)
constexpr int threads = 64;

#ifndef NST_EMULATED
inline int other(int a) { return a + 1; }
#endif

__device__ inline int mirrored(int e) { return threads - 1 - e; }

extern "C" __global__ void __launch_bounds__(threads) tiny_mirror_cuda(const float* x, float* y, int count) {
    __shared__ float held[threads];
    const int e = static_cast<int>(threadIdx.x);
    float v = 0;
    v = e < count ? x[e] : -1.0f;
    held[e] = v;
    __syncthreads();
    y[e] = held[mirrored(e)];
}
"""
TESTS = """
import numpy as np
from cuda_on_cpu import cupy_stand_in as cupy
from nstcore.backend.cuda import Family, Launch

TINY = Family("tiny", {"tiny_mirror_cuda": Launch(64, lambda count: (1,))})


def test_mirror():
    with cupy.using(mode="checked"):
        x, y = cupy.asarray(np.arange(50, dtype=np.float32)), cupy.empty(64, np.float32)
        TINY.run("tiny_mirror_cuda", x, (50,), x, y, 50)
    np.testing.assert_array_equal(y.get(), [*[-1.0] * 14, *range(49, -1, -1)])
"""
SURVIVOR = "tiny_cuda.cu\n- float v = 0;\n+ float v = 1;"
BARRIER = "tiny_cuda.cu\n- __syncthreads();\n+ ;"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder of sources with one small kernel, and a file of tests of it."""
    (tmp_path / "csrc" / "tiny").mkdir(parents=True)
    (tmp_path / "csrc" / "tiny" / "tiny_cuda.cu").write_text(KERNEL)
    (tmp_path / "test_tiny.py").write_text(TESTS)
    return tmp_path


def of_tiny(folder: Path) -> list[Mutant]:
    return list(mutants(folder / "csrc" / "tiny" / "tiny_cuda.cu"))


class TestMutants:
    def test_code_that_the_emulator_compiles_is_changed_and_nothing_else(self, tiny: Path) -> None:
        assert [(mutant.kind, mutant.lines[1]) for mutant in of_tiny(tiny)] == [
            ("arithmetic", "__device__ inline int mirrored(int e) { return threads + 1 - e; }"),
            ("arithmetic", "__device__ inline int mirrored(int e) { return threads - 1 + e; }"),
            ("start", "float v = 1;"),
            ("comparison", "v = e <= count ? x[e] : -1.0f;"),
            ("barrier", ";"),
        ]

    def test_the_kernel_that_it_is_in(self, tiny: Path) -> None:
        assert [mutant.kernel for mutant in of_tiny(tiny)] == [None, None, *["tiny_mirror_cuda"] * 3]

    def test_equal_lines_are_told_apart(self, tiny: Path) -> None:
        file = tiny / "twice.cu"
        file.write_text("    __syncthreads();\n__syncthreads();\n")
        assert [str(mutant).split("\n")[0] for mutant in mutants(file)] == ["twice.cu", "twice.cu, line 2 of these"]

    def test_as_many_as_are_wanted_and_all_barriers(self, tiny: Path) -> None:
        found = of_tiny(tiny)
        assert chosen(found, 0) == found
        assert sorted(mutant.kind for mutant in chosen(found, 2)) == ["barrier", "comparison", "start"]

    def test_the_choice_does_not_change_with_other_lines(self, tiny: Path) -> None:
        file = tiny / "csrc" / "tiny" / "tiny_cuda.cu"
        before = {str(mutant) for mutant in chosen(of_tiny(tiny), 3)}
        file.write_text("// another line\n" + KERNEL)
        assert {str(mutant) for mutant in chosen(of_tiny(tiny), 3)} == before

    def test_each_kernel_file_has_some_that_are_always_tried(self) -> None:
        files = sorted((build.ROOT / "csrc").rglob("*_cuda.cu"))
        assert len(files) >= 7
        assert sum(mutant.kind in ALWAYS for file in files for mutant in mutants(file)) >= 25


class TestExplanations:
    def test_blocks(self, tmp_path: Path) -> None:
        path = tmp_path / "survivors.txt"
        path.write_text(f"# why\n\n{SURVIVOR}\nv is written\nbefore it is read.\n")
        assert explanations(path) == {SURVIVOR: "v is written before it is read."}
        assert explanations(tmp_path / "none.txt") == {}

    def test_a_block_without_a_reason(self, tmp_path: Path) -> None:
        path = tmp_path / "survivors.txt"
        path.write_text(SURVIVOR)
        with pytest.raises(SystemExit, match=r"^survivors\.txt: expects a file, - a line, \+ a line and a reason"):
            explanations(path)

    def test_what_is_wrong(self, tiny: Path) -> None:
        found = {str(mutant): mutant for mutant in of_tiny(tiny)}
        known = {found[SURVIVOR]: "", found[BARRIER]: "checker"}
        gone = "tiny_cuda.cu\n- a\n+ b"
        assert judged(known, found.values(), {SURVIVOR: "because"}) == []
        assert judged(known, found.values(), {}) == [f"survives and is not explained:\n{SURVIVOR}"]
        assert judged(known, found.values(), {SURVIVOR: "because", BARRIER: "because", gone: "because"}) == [
            f"explained, but killed (checker):\n{BARRIER}",
            f"explained, but not in the sources any more:\n{gone}",
        ]

    def test_table(self, tiny: Path) -> None:
        first, second, third = (replace(of_tiny(tiny)[0], text=text) for text in "abc")
        assert table({first: "", second: "checker", third: "checker"}).split("\n")[2:] == [
            "| `tiny_cuda.cu` | 3 | 2 | 0 | 0 | 0 | 0 | 0 | 1 |",
            "| all | 3 | 2 | 0 | 0 | 0 | 0 | 0 | 1 |",
        ]


@pytest.mark.skipif(build.compiler() is None, reason="g++ is not installed")
@pytest.mark.skipif(not build.supported(), reason="the emulator runs on Linux on x86-64")
class TestRun:
    def run(self, folder: Path, *more: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "cuda_on_cpu.mutate", "--sources", str(folder / "csrc")]
        command += ["--tests", str(folder / "test_tiny.py"), "--explained", str(folder / "survivors.txt")]
        command += ["--results", str(folder / "results.json"), *more]
        environment = {**os.environ, "PYTHONPATH": str(build.ROOT / "tests")}
        done = subprocess.run(command, cwd=build.ROOT, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def test_killed_and_surviving(self, tiny: Path) -> None:
        code, said, shown = self.run(tiny)
        assert code == 1
        assert "| `tiny_cuda.cu` | 5 | 4 | 0 | 0 | 0 | 0 | 0 | 1 |" in said
        assert said.endswith(f"\nsurvives and is not explained:\n{SURVIVOR}\n")
        assert "5 mutants, 0 known" in shown
        assert "checker (test_mirror): tiny_cuda.cu\n    - __syncthreads();\n    + ;\n" in shown
        (tiny / "survivors.txt").write_text(f"{SURVIVOR}\nIt is written before it is read.\n")
        code, said, shown = self.run(tiny)
        assert code == 0, said
        assert said.endswith("\nevery survivor is explained\n")
        assert shown == "5 mutants, 5 known\n"
        weaker = TESTS.replace("[*[-1.0] * 14, *range(49, -1, -1)]", "y.get()")
        (tiny / "test_tiny.py").write_text(weaker)
        shown = self.run(tiny, "--only", "__syncthreads")[2]
        assert shown.startswith("1 mutants, 0 known"), "another test may decide otherwise"

    def test_tests_that_fail_unchanged_kill_nothing(self, tiny: Path) -> None:
        (tiny / "test_tiny.py").write_text(TESTS.replace("49, -1, -1", "50, 0, -1"))
        code, said, shown = self.run(tiny)
        assert code == 1
        assert "FAILS unchanged: " in shown
        assert said.count("survives and is not explained") == 5

    def test_tests_that_failed_are_tried_again(self, tiny: Path) -> None:
        source = tiny / "csrc" / "tiny" / "tiny_cuda.cu"
        source.write_text(KERNEL.replace(": -1.0f", ": -2.0f"))
        assert "FAILS unchanged: " in self.run(tiny)[2]
        source.write_text(KERNEL)
        _, said, shown = self.run(tiny)
        assert "FAILS unchanged: " not in shown
        assert "| `tiny_cuda.cu` | 5 | 4 | 0 | 0 | 0 | 0 | 0 | 1 |" in said
