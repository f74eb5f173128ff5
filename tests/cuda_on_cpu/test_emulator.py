"""The emulator finds each kind of mistake where it is and none in correct kernels, and refuses what a driver would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cuda_on_cpu import build
from cuda_on_cpu import cupy_stand_in as cupy
from cuda_on_cpu.launcher import Findings, LaunchError, machine

HERE = Path(__file__).parent
FAULTY, SOUND = HERE / "faulty.cu", HERE / "sound.cu"
N = 100  # of 128 threads

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="g++ is not installed"),
    pytest.mark.skipif(not build.supported(), reason="the emulator runs on Linux on x86-64"),
]


@pytest.fixture(autouse=True, params=["checked"])
def mode(request: pytest.FixtureRequest) -> Any:
    with cupy.using(mode=request.param):
        yield request.param


def module(path: Path) -> cupy.RawModule:
    return cupy.RawModule(code=f'#line 1 "{path}"\n{path.read_text()}')


def expected() -> list[tuple[str, int, str]]:
    """Each faulty kernel, the line at fault, and what is to be found there."""
    found, kernel = [], ""
    for number, line in enumerate(FAULTY.read_text().splitlines(), 1):
        kernel = match[1] if (match := re.search(r"__launch_bounds__\(128\) (\w+)", line)) else kernel
        if match := re.search(r"// found: (.*)", line):
            found.append((kernel, number, match[1]))
    return found


def test_every_faulty_kernel_has_a_finding() -> None:
    assert [name for name, _ in build.kernels(FAULTY)] == [kernel for kernel, _, _ in expected()]


# The first array where it is not 128 numbers, and the blocks where they are not one.
INPUTS = {
    "read_past_the_end": lambda: cupy.asarray(np.ones(N, np.float32)),
    "global_never_written": lambda: cupy.empty(128, np.float32),
    "atomic_and_plain": lambda: cupy.zeros(1, np.int32),
}
BLOCKS = {"write_past_the_end": 2, "blocks_meet": 2}


@pytest.mark.parametrize(("kernel", "line", "kind"), expected())
def test_mistake_is_found_where_it_is(kernel: str, line: int, kind: str) -> None:
    x = INPUTS.get(kernel, lambda: cupy.asarray(np.arange(128, dtype=np.float32)))()
    y, function = cupy.empty(128, np.float32), module(FAULTY).get_function(kernel)
    with pytest.raises(Findings) as caught:
        function((BLOCKS.get(kernel, 1),), (128,), (x, y, np.int32(N)), shared_mem=512)
    lines = str(caught.value).splitlines()
    assert any(found.startswith(f"{FAULTY}:{line}: {kernel}: {kind}: ") for found in lines), lines


class TestSoundKernels:
    """Correct results, nothing found, in any order of threads."""

    @pytest.fixture(autouse=True, params=[0, 1, 7])
    def order(self, request: pytest.FixtureRequest) -> Any:
        machine().emulator_order(request.param)
        yield
        machine().emulator_order(0)

    @pytest.fixture(params=["checked", "fast"])
    def mode(self, request: pytest.FixtureRequest) -> Any:
        with cupy.using(mode=request.param):
            yield request.param

    def run(self, kernel: str, x: np.ndarray, y: np.ndarray, n: int, blocks: int = 1, shared: int = 0) -> np.ndarray:
        out = cupy.asarray(y)
        function = module(SOUND).get_function(kernel)
        function((blocks,), (128,), (cupy.asarray(x), out, np.int32(n)), shared_mem=shared)
        return out.get()

    def test_histogram(self) -> None:
        x = np.arange(1000, dtype=np.float32)
        counts = self.run("histogram", x, np.zeros(4, np.int32), 1000, blocks=3)
        np.testing.assert_array_equal(counts, 250)

    def test_neighbours(self) -> None:
        x = np.arange(128, dtype=np.float32)
        y = self.run("neighbours", x, np.zeros(128, np.float32), 128, shared=512)
        np.testing.assert_array_equal(y, x[np.arange(128) ^ 1] + 2)

    def test_half_warps(self) -> None:
        x = np.random.default_rng(0).standard_normal(128)
        y = self.run("half_warps", x, np.zeros(128), 128)
        np.testing.assert_allclose(y, np.repeat(x.reshape(8, 16).sum(1), 16), rtol=1e-14)

    def test_bytes(self) -> None:
        x = np.arange(200, dtype=np.uint8)
        np.testing.assert_array_equal(self.run("bytes", x, np.zeros(200, np.uint8), 200, blocks=2), x + 1)

    def test_votes(self) -> None:
        x = np.r_[np.ones(32), -np.ones(32), np.where(np.arange(64) % 3, 1, -1)].astype(np.float32)
        positive = (x > 0).reshape(4, 32)
        exact = positive.sum(1) + 100 * positive.any(1) + 1000 * positive.all(1)
        np.testing.assert_array_equal(self.run("votes", x, np.zeros(128, np.int32), 128), np.repeat(exact, 32))

    def test_vectors(self) -> None:
        x = np.arange(100, dtype=np.float32)
        y = self.run("vectors", x, np.zeros(100, np.float32), 100)
        np.testing.assert_array_equal(y, x.reshape(25, 4)[::-1].ravel())

    @pytest.mark.parametrize("n", [1, 2], ids=["tf32", "bf16"])
    def test_products(self, n: int) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.integers(-99, 99, (16, 16)), rng.integers(-99, 99, (16, 8))
        y = self.run("products", np.r_[a.ravel(), b.ravel()].astype(np.float32), np.zeros(128, np.float32), n)
        np.testing.assert_array_equal(y.reshape(16, 8), a @ b)

    @pytest.mark.parametrize(
        ("n", "value", "rounded"),
        [
            (1, 1 + 2**-11, 1 + 2**-10), (1, -1 - 2**-11, -1 - 2**-10), (1, 1 + 2**-11 - 2**-23, 1),
            (2, 1 + 2**-8, 1), (2, 1 + 3 * 2**-8, 1 + 2**-6), (2, -1 - 2**-8 - 2**-23, -1 - 2**-7),
            (1, np.inf, np.inf), (2, np.inf, np.inf),
        ],
    )  # fmt: skip
    def test_rounding_of_products(self, n: int, value: float, rounded: float) -> None:
        """Halves away from zero in tf32, to the even one in bf16; half a last place is 2^-11 and 2^-8."""
        a, b = np.zeros((16, 16), np.float32), np.ones((16, 8), np.float32)
        a[9, 13] = value
        y = self.run("products", np.r_[a.ravel(), b.ravel()], np.zeros(128, np.float32), n).reshape(16, 8)
        np.testing.assert_array_equal(y[9], rounded)
        np.testing.assert_array_equal(np.delete(y, 9, axis=0), 0)


class TestLaunch:
    """What a driver refuses."""

    @pytest.mark.parametrize(
        ("grid", "block", "shared", "said"),
        [
            ((0,), (128,), 0, "invalid configuration argument: grid"),
            ((1, 65536), (128,), 0, "invalid configuration argument: grid"),
            ((1,), (0,), 0, "invalid configuration argument: block"),
            ((1,), (256,), 0, "256 threads a block, at most 128"),
            ((1,), (128,), 49 * 1024, "of shared memory"),
        ],
    )
    def test_sizes(self, grid: tuple[int, ...], block: tuple[int, ...], shared: int, said: str) -> None:
        x, function = cupy.zeros(128, np.float32), module(SOUND).get_function("vectors")
        with pytest.raises(LaunchError, match=said):
            function(grid, block, (x, x, np.int32(4)), shared_mem=shared)

    def test_more_shared_memory_when_asked_for(self) -> None:
        x, function = cupy.zeros(128, np.float32), module(SOUND).get_function("neighbours")
        function.max_dynamic_shared_size_bytes = 100 * 1024
        function((1,), (128,), (x, cupy.empty(128, np.float32), np.int32(128)), shared_mem=100 * 1024)

    @pytest.mark.parametrize("n", [4, 4.0, np.int64(4), np.float32(4)])
    def test_type_of_a_number(self, n: Any) -> None:
        x, function = cupy.zeros(128, np.float32), module(SOUND).get_function("vectors")
        with pytest.raises(LaunchError, match=r"argument 2 is .*, the kernel takes 4 bytes of a whole number"):
            function((1,), (128,), (x, x, n))

    def test_number_of_arguments(self) -> None:
        with pytest.raises(LaunchError, match="takes 3 arguments, got 1"):
            module(SOUND).get_function("vectors")((1,), (128,), (cupy.zeros(4, np.float32),))

    def test_unknown_kernel(self) -> None:
        with pytest.raises(LaunchError, match="named symbol not found: none"):
            module(SOUND).get_function("none")

    def test_no_device(self) -> None:
        with cupy.using(devices=0):
            assert not cupy.cuda.is_available()
            with pytest.raises(cupy.CUDARuntimeError, match="cudaErrorNoDevice"):
                cupy.zeros(3)


class TestArrays:
    """The stand-in keeps device and host apart as CuPy does."""

    def test_no_implicit_copy_to_the_host(self) -> None:
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(cupy.zeros(3))

    def test_no_mixing(self) -> None:
        with pytest.raises(TypeError, match="Unsupported type"):
            cupy.zeros(3) + np.ones(3)

    def test_functions_of_numpy(self) -> None:
        a = cupy.asarray(np.arange(6.0).reshape(2, 3))
        total = np.sum(2 * a, axis=1)
        assert isinstance(total, cupy.ndarray)
        np.testing.assert_array_equal(total.get(), [6, 24])
        assert isinstance(a.sum(), cupy.ndarray)

    def test_views_share_memory(self) -> None:
        a = cupy.zeros((2, 3))
        a.T[1] = 7.0
        np.testing.assert_array_equal(a.get(), [[0, 7, 0], [0, 7, 0]])
        assert a.reshape(6).data.ptr == a.data.ptr

    def test_writing_initialises(self) -> None:
        scratch, y = cupy.empty(128, np.float32), cupy.empty(128, np.float32)
        scratch[...] = 3.0
        module(FAULTY).get_function("global_never_written")((1,), (128,), (scratch, y, np.int32(128)))
        np.testing.assert_array_equal(y.get(), 3)


class TestBuild:
    def test_what_was_built_is_kept(self) -> None:
        first = build.library(SOUND)
        before = first.stat().st_mtime_ns
        assert build.library(SOUND) == first
        assert first.stat().st_mtime_ns == before

    def test_a_change_builds_anew(self, tmp_path: Path) -> None:
        header, source = tmp_path / "add.cuh", tmp_path / "change.cu"
        header.write_text("constexpr int added = 1;\n")
        source.write_text(
            '#include "add.cuh"\n'
            'extern "C" __global__ void __launch_bounds__(32)\nadd(int* x) { x[threadIdx.x] += added; }\n'
        )
        made = build.library(source)
        header.write_text("constexpr int added = 2;\n")
        assert build.library(source) != made
        assert build.library(source, ["OTHER=1"]) not in (made, build.library(source))

    def test_a_compilers_errors_name_the_file(self, tmp_path: Path) -> None:
        source = tmp_path / "wrong.cu"
        source.write_text('extern "C" __global__ void __launch_bounds__(32) wrong(int* x) { *x = nothing; }\n')
        with pytest.raises(build.BuildError, match=r"wrong\.cu:1:.*nothing"):
            build.library(source)
