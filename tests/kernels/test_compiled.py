"""What nvcc and NVRTC make of the sources: they compile for every architecture, and within the committed budget."""

from __future__ import annotations

import copy
import ctypes
import ctypes.util
import importlib.util
import json
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nstcore.backend.cuda import BUILDS, sources

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("cuda_resources", ROOT / "tools" / "cuda_resources.py")
assert SPEC is not None
assert SPEC.loader is not None
resources = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(resources)

pytestmark = pytest.mark.no_emulator

FILES = resources.files()
BUILT = [(path, build) for path in FILES for build in resources.builds(path)]
each_build = pytest.mark.parametrize(("path", "build"), BUILT, ids=[f"{path.stem}-{build}" for path, build in BUILT])
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")


@cache
def budget() -> dict[str, Any]:
    return json.loads(resources.BUDGET.read_text("utf-8"))


@needs_nvcc
@each_build
def test_within_the_budget(path: Path, build: str) -> None:
    """Without a warning, a byte of stack or a spilt register, on sm_80, 90, 100 and 120."""
    found = resources.usage(resources.compiled(path, build))
    assert found
    own = {build: {name: budget()[build][name] for name in found if name in budget()[build]}}
    assert list(resources.offences({build: found}, own)) == []


def test_the_builds_are_those_that_are_launched() -> None:
    assert {name: tuple(flags.split()) for name, flags in resources.BUILDS.items()} == BUILDS


def test_the_budget_names_the_kernels_there_are() -> None:
    named = {name for table in (budget()[dtype] for dtype in resources.BUILDS) for name in table}
    assert named == set(resources.threads_of_kernels())


def test_the_tables_are_those_of_the_budget() -> None:
    text = resources.TABLE.read_text("utf-8")
    assert resources.tables(budget(), resources.threads_of_kernels()) in text
    assert resources.roofline() in text


class TestOffences:
    """The budget can fail."""

    LOG = (
        "ptxas info    : Compiling entry function 'k' for 'sm_{0}'\nptxas info    : Function properties for k\n"
        "    {1} bytes stack frame, {2} bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used {3} registers, used 1 barriers, {4} bytes smem\n"
    )

    def found(self, **changed: int) -> dict[str, Any]:
        used = {"stack": 0, "spills": 0, "registers": 30, "shared": 64, **changed}
        log = "".join(
            self.LOG.format(a, used["stack"], used["spills"], used["registers"], used["shared"])
            for a in resources.ARCHITECTURES
        )
        return {"float32": resources.usage(log)}

    def lines(self, found: dict[str, Any]) -> list[str]:
        return list(resources.offences(found, {"float32": {"k": {"registers": 32, "shared": 64}}}))

    def test_none(self) -> None:
        assert self.lines(self.found()) == []

    @pytest.mark.parametrize(("what", "value"), [("stack", 8), ("spills", 4), ("registers", 33), ("shared", 65)])
    def test_each(self, what: str, value: int) -> None:
        lines = self.lines(self.found(**{what: value}))
        assert len(lines) == len(resources.ARCHITECTURES)
        assert f"k float32 sm_80: {what} {value}, at most" in lines[0]

    def test_missing(self) -> None:
        found = self.found()
        del found["float32"]["k"][90]
        assert self.lines(found) == ["k float32: not compiled for sm_90"]
        assert self.lines({"float32": {}}) == ["k float32: only in the budget"]
        more = copy.deepcopy(self.found())
        more["float32"]["other"] = {}
        assert self.lines(more) == ["other float32: only in the sources"]


def test_occupancy_of_known_kernels() -> None:
    """By NVIDIA's own occupancy calculator for compute capability 9.0: registers, then threads, then shared memory."""
    assert resources.occupancy(31, 4224, 256, "H100, H200") == (100, "threads")
    assert resources.occupancy(39, 4224, 256, "H100, H200") == (75, "registers")
    assert resources.occupancy(24, 100 * 1024, 256, "H100, H200") == (25, "shared memory")


@cache
def nvrtc() -> Any:
    """NVRTC of a toolkit or of NVIDIA's package, or None."""
    folders = [Path(p) / "nvidia" for p in sys.path]
    places = [
        str(p) for folder in folders for p in sorted(folder.glob("*/lib/libnvrtc.so.*")) if "builtins" not in str(p)
    ]
    found = ctypes.util.find_library("nvrtc")
    toolkit = Path(shutil.which("nvcc") or "/none").resolve().parents[1] / "lib64" / "libnvrtc.so"
    for place in [*places, *([found] if found else []), str(toolkit)]:
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


@each_build
def test_nvrtc_takes_the_same_text(path: Path, build: str) -> None:
    """As CuPy gives it to the compiler at the first use."""
    lib = nvrtc()
    if lib is None:
        pytest.skip("NVRTC is not installed (pip install nvidia-cuda-nvrtc)")
    program = ctypes.c_void_p()
    text = path.read_text("utf-8").encode()
    assert lib.nvrtcCreateProgram(ctypes.byref(program), text, path.name.encode(), 0, None, None) == 0
    options = [
        b"--std=c++17",
        f"-I{path.parent}".encode(),
        *(option.encode() for option in BUILDS[build]),
        b"-arch=sm_90",
    ]
    failed = lib.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    assert not failed, log.value.decode()
    assert lib.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    assert size.value > 0
    lib.nvrtcDestroyProgram(ctypes.byref(program))


def test_sources_are_found() -> None:
    assert sources() == ROOT / "csrc"
