"""The benchmarks of the CUDA kernels run, on sizes that the emulator can do; their times are not a GPU's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What each measures, and beside whom.
ROWS = {
    "conv": (("forward", "input gradient"), ("nstcore", "cupy, by taps", "numpy on the processor")),
    "gram": (("forward", "both"), ("nstcore", "cupy", "numpy on the processor")),
    "pairwise": (("distances", "nearest", "inner", "cosine"), ("nstcore", "cupy", "numpy on the processor")),
    "style": (("32 px",), ("nstcore",)),
    "triplet": (("batch_all", "batch_hard", "semi_hard"), ("nstcore", "numpy on the processor")),
}
ALLOWED = 2e-6  # of float32 sums as long as these


def run(name: str, *options: str, backend: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "NSTCORE_BACKEND": backend}
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}_bench.py"), "--backend", "cuda", *options]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ROWS)
def test_on_the_emulator(name: str, tmp_path: Path) -> None:
    """Every result is compared with the reference, and none is said to be a GPU's."""
    done = run(name, "--profile", "tiny", "--numpy", "--json", str(tmp_path / "r.json"), backend="cuda-on-cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("emulated: times mean nothing\n")
    report = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert report["machine"]["gpu"] == "the emulator"
    assert report["machine"]["note"] == "emulated: times mean nothing"
    works, contenders = ROWS[name]
    assert {next(w for w in works if row["work"].startswith(w)) for row in report["rows"]} == set(works)
    assert {row["contender"] for row in report["rows"]} == set(contenders)
    for row in report["rows"]:
        assert row["error"] is None if name == "style" else row["error"] < ALLOWED
        assert row["median_ms"] > 0


def test_precision(tmp_path: Path) -> None:
    """It reaches the kernels: the error is that of operands rounded to 11 bits."""
    options = ("--profile", "tiny", "--precision", "tf32", "--json", str(tmp_path / "r.json"))
    assert run("gram", *options, backend="cuda-on-cpu").returncode == 0
    report = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert report["machine"]["precision"] == "tf32"
    errors = [row["error"] for row in report["rows"] if row["contender"] == "nstcore"]
    assert all(1e-5 < error < 1e-3 for error in errors)


@pytest.mark.no_emulator
def test_without_a_gpu(tmp_path: Path) -> None:
    """One line, and no times."""
    (tmp_path / "cupy.py").write_text("raise ImportError('none')\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gram_bench.py"), "--backend", "cuda"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "NSTCORE_BACKEND": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    reason = "CuPy is not installed (pip install nstcore[cuda])"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"gram_bench: [backend] cuda is not available: {reason}\n"
