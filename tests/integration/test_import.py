"""What ``import nstcore`` does to a process: little."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import nstcore as nst
from nstcore import ops

HEAVY = (
    "scipy",
    "PIL",
    "numba",
    "typer",
    "rich",
    "torch",
    "onnx",
    "h5py",
    "safetensors",
    "cupy",
    "matplotlib",
)


def fresh(code: str) -> str:
    """What `code` prints in an interpreter of its own."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_heavy_modules_are_loaded_when_used() -> None:
    code = f"import sys, nstcore; print([name for name in {HEAVY} if name in sys.modules])"
    assert fresh(code) == "[]"


@pytest.mark.parametrize("module", ["cli", "faces", "style", "models", "images", "weights", "nn", "optim"])
def test_parts_do_not_load_what_they_may_not_need(module: str) -> None:
    """A style transfer needs no converter's library, and no part needs a framework."""
    optional = ("torch", "onnx", "h5py", "safetensors", "cupy", "numba", "matplotlib")
    code = f"import sys, nstcore.{module}; print([name for name in {optional} if name in sys.modules])"
    assert fresh(code) == "[]"


@pytest.mark.parametrize("name", nst.__all__)
def test_every_exported_name_exists(name: str) -> None:
    assert getattr(nst, name) is not None
    assert name in dir(nst)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'conv5d'"):
        nst.conv5d  # noqa: B018 - the access is what is tested


def test_version_is_that_of_the_package() -> None:
    assert nst.__version__.count(".") == 2


def test_every_public_callable_is_documented() -> None:
    for name in nst.__all__:
        assert (getattr(nst, name).__doc__ or "").strip(), f"nst.{name} has no docstring"


class TestFloatingPoint:
    """-ffast-math, even in a library, would flush denormals for the whole process and fold tests for NaN away."""

    def test_denormals_survive_the_import(self) -> None:
        code = "import nstcore, numpy as np; a = np.full(64, 1e-30, 'f4'); print((a * np.float32(1e-10)).min() > 0)"
        assert fresh(code) == "True"

    def test_denormals_survive_in_kernels(self) -> None:
        for isa in nst.backend.cpu.isas():
            nst.set_isa(isa)
            assert ops.gram(np.full((1, 1, 1, 40), 1e-20, np.float32)).min() > 0

    def test_nan_is_seen_after_a_kernel(self) -> None:
        x = np.ones((1, 4, 4, 40), np.float32)
        x[0, 1, 1, 7] = np.nan
        w = np.ones((40, 1, 1, 40), np.float32)
        for isa in nst.backend.cpu.isas():
            nst.set_isa(isa)
            assert np.isnan(ops.gram(x)[0, 7]).all()
            found = np.isnan(ops.conv2d(x, w, activation="relu"))
            assert found[0, 1, 1].all()
            assert found.sum() == 40
