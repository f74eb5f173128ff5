"""Builds nstcore._native with CMake; everything else about the package stands in pyproject.toml.

``NSTCORE_BUILD_DIR`` names a folder that keeps the object files, so that a second build compiles only what changed.
Where nvcc is installed, a wheel carries the CUDA kernels compiled, too; ``NSTCORE_FATBINS=0`` leaves that out.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Runs CMake for the one extension module and leaves it where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        work = Path(os.environ.get("NSTCORE_BUILD_DIR") or self.build_temp).resolve()
        work.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake", "-S", str(ROOT), "-B", str(work), "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]  # fmt: skip
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(work)], check=True)


class WithKernels(build_py):
    """Puts the CUDA sources into the package, as ``nstcore/csrc``, and beside them what nvcc makes of them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source in (p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".cu", ".cuh")):
            target = Path(self.build_lib) / "nstcore" / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(source), str(target))
        _fatbin().compile_kernels(ROOT / "csrc", Path(self.build_lib) / "nstcore" / "csrc")


def _fatbin() -> ModuleType:
    """`nstcore.backend.fatbin`, without its package, which is not built yet."""
    spec = importlib.util.spec_from_file_location("fatbin", ROOT / "nstcore" / "backend" / "fatbin.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup(
    ext_modules=[Extension("nstcore._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": WithKernels},
)
