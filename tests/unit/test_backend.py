"""Backends, instruction sets and threads: how they are chosen, and what is said when they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore.backend import cpu
from nstcore.errors import ArgumentError, BackendUnavailable


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter with more variables set."""
    command = [sys.executable, "-c", code]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


REPORT = "import nstcore as nst; print(nst.get_isa(), nst.get_num_threads(), nst.current_backend())"


class TestEnvironment:
    @pytest.mark.parametrize("isa", cpu.isas())
    def test_each_instruction_set(self, isa: str) -> None:
        assert python(REPORT, NSTCORE_ISA=isa, NSTCORE_NUM_THREADS="3").stdout.split() == [isa, "3", "cpu"]

    def test_unset_and_empty_mean_the_default(self) -> None:
        isa, threads, _ = python(REPORT, NSTCORE_ISA="", NSTCORE_NUM_THREADS="").stdout.split()
        assert isa == cpu.isas()[-1]
        assert int(threads) >= 1

    def test_backend(self) -> None:
        assert python(REPORT, NSTCORE_BACKEND="reference").stdout.split()[2] == "reference"

    @pytest.mark.parametrize(
        ("variable", "value", "line"),
        [
            ("NSTCORE_ISA", "sse9", "BackendUnavailable: [NSTCORE_ISA] this machine can run base"),
            (
                "NSTCORE_NUM_THREADS",
                "0",
                "ArgumentError: [NSTCORE_NUM_THREADS] expects a whole number from 1 to 1024",
            ),
            ("NSTCORE_NUM_THREADS", "-1", "ArgumentError: [NSTCORE_NUM_THREADS] expects"),
            ("NSTCORE_NUM_THREADS", "two", "ArgumentError: [NSTCORE_NUM_THREADS] expects"),
            ("NSTCORE_NUM_THREADS", "9" * 5000, "ArgumentError: [NSTCORE_NUM_THREADS] expects"),
            (
                "NSTCORE_BACKEND",
                "tpu",
                "ArgumentError: [backend] expects one of cpu, reference, cuda, cuda-on-cpu, got 'tpu'",
            ),
            ("NSTCORE_BACKEND", "cuda", "BackendUnavailable: [backend] cuda is not available: "),
        ],
    )
    def test_bad_values(self, variable: str, value: str, line: str) -> None:
        run = python(REPORT, **{variable: value})
        assert run.returncode == 1
        assert line in run.stderr.splitlines()[-1]


class TestChoosing:
    def test_backends_nest_and_end(self) -> None:
        before = nst.current_backend()
        with nst.use_backend("reference"):
            with nst.use_backend("cpu"):
                assert nst.current_backend() == "cpu"
            assert nst.current_backend() == "reference"
        assert nst.current_backend() == before

    def test_cuda_says_why_not(self) -> None:
        with (
            pytest.raises(BackendUnavailable, match=r"^\[backend\] cuda is not available: "),
            nst.use_backend("cuda"),
        ):
            pass

    def test_unknown_backend(self) -> None:
        with (
            pytest.raises(ArgumentError, match=r"expects one of cpu, reference, cuda, cuda-on-cpu, got 'tpu'"),
            nst.use_backend("tpu"),
        ):
            pass

    def test_instruction_set(self) -> None:
        for isa in cpu.isas():
            nst.set_isa(isa)
            assert nst.get_isa() == isa
        with pytest.raises(BackendUnavailable, match=r"^\[isa\] this machine can run base.*got 'neon'"):
            nst.set_isa("neon")

    @pytest.mark.parametrize("threads", [0, -1, 1025, 1.0, True, "2", None])
    def test_threads(self, threads: Any) -> None:
        with pytest.raises(ArgumentError, match=r"^\[set_num_threads\] expects a whole number from 1 to 1024, got"):
            nst.set_num_threads(threads)

    def test_threads_as_a_number_of_numpy(self) -> None:
        nst.set_num_threads(np.int64(2))
        assert nst.get_num_threads() == 2

    def test_the_tape_remembers_the_kernel_of_the_forward_pass(self) -> None:
        x = nst.tensor(np.ones((1, 2, 2, 3)), requires_grad=True)
        with nst.use_backend("reference"):
            y = nst.ops.gram(x).sum()
        y.backward()
        np.testing.assert_allclose(x.grad, 6)


class TestThreads:
    def test_a_change_during_a_kernel_is_safe(self) -> None:
        """A kernel that has made room for one thread must not be joined by seven more."""
        x = np.random.default_rng(0).standard_normal((1, 64, 64, 19)).astype(np.float32)
        expected = nst.ops.gram(x)
        over = threading.Event()

        def flip() -> None:
            while not over.is_set():
                for n in (1, 8):
                    nst.set_num_threads(n)

        thread = threading.Thread(target=flip)
        thread.start()
        try:
            for _ in range(100):
                np.testing.assert_array_equal(nst.ops.gram(x), expected)
        finally:
            over.set()
            thread.join()

    def test_kernels_run_in_several_python_threads(self) -> None:
        nst.set_num_threads(2)
        x = np.random.default_rng(0).standard_normal((1, 64, 64, 16)).astype(np.float32)
        expected, found = nst.ops.gram(x), []
        threads = [threading.Thread(target=lambda: found.append(nst.ops.gram(x))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert all(np.array_equal(g, expected) for g in found)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_forked_child_does_not_hang(self) -> None:
        """OpenMP's threads do not survive a fork; the child computes alone, with the same bits."""
        code = """
import os, signal
import numpy as np
import nstcore as nst
nst.set_num_threads(2)
x = np.random.default_rng(0).standard_normal((1, 64, 64, 19)).astype(np.float32)
expected = nst.ops.gram(x)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if np.array_equal(nst.ops.gram(x), expected) and nst.get_num_threads() == 1 else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status, np.array_equal(nst.ops.gram(x), expected), nst.get_num_threads())
"""
        run = python(code, PYTHONWARNINGS="ignore")
        assert run.stdout.split() == ["0", "True", "2"], run.stderr


def test_loading_leaves_the_environment_as_it_was() -> None:
    program = "import os; before = dict(os.environ); import nstcore; print(before == dict(os.environ))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
