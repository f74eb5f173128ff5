"""The sdist and the wheel carry what they must and nothing else, and the wheel works in another folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from nstcore.backend import fatbin

ROOT = Path(__file__).parents[2]
LEFT_BEHIND = (".git", ".venv", "build", "dist", "*.so", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "out")
BUILD_MODULES = ("pybind11", "cmake", "ninja", "setuptools")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Output of a command that must succeed."""
    scripts = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": scripts + os.pathsep + os.environ["PATH"], **environment}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of a copy of the tree, and the wheel built from that sdist."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed in this environment")
    if not (ROOT / "setup.py").is_file():
        pytest.skip("the tests lie outside of the source tree")
    tree, dist = tmp_path_factory.mktemp("tree") / "nstcore", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    offline = all(importlib.util.find_spec(name) for name in BUILD_MODULES)
    isolation = ["--no-build-isolation"] if offline else []
    make_sdist = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", make_sdist, dist, cwd=tree)
    (sdist,) = dist.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    nvcc = tmp_path_factory.mktemp("nvcc") / "nvcc"  # which takes minutes for all files
    nvcc.write_text('#!/bin/sh\nfor out; do :; done\necho code > "$out"\n', encoding="utf-8")
    nvcc.chmod(0o755)
    path = os.pathsep.join([str(nvcc.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    run(*pip, "wheel", "--no-deps", *isolation, "--wheel-dir", dist, sdist, cwd=dist, PATH=path)
    return dist


@pytest.fixture(scope="module")
def sdist_names(built: Path) -> set[str]:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def wheel_names(built: Path) -> set[str]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        return set(archive.namelist())


def package_files(suffixes: tuple[str, ...]) -> set[str]:
    """Files of the package in the tree, by suffix, as they are named in an archive."""
    found = (path for path in (ROOT / "nstcore").rglob("*") if path.name.endswith(suffixes))
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_both_carry_the_package(sdist_names: set[str], wheel_names: set[str]) -> None:
    expected = package_files((".py", ".npz", ".jpg", "py.typed"))
    assert {"nstcore/__init__.py", "nstcore/py.typed"} <= expected
    assert any(name.startswith("nstcore/weights/data/") for name in expected)
    assert expected - sdist_names == set()
    assert expected - wheel_names == set()


def test_sdist_carries_what_builds_it(sdist_names: set[str]) -> None:
    sources = {p.relative_to(ROOT).as_posix() for room in ("csrc", "python") for p in (ROOT / room).rglob("*.*")}
    needed = {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "NOTICE", "README.md"}
    assert (sources | needed) - sdist_names == set()


def test_wheel_carries_licences_and_one_module(wheel_names: set[str]) -> None:
    assert {name.rpartition("/")[2] for name in wheel_names} >= {"LICENSE", "NOTICE", "entry_points.txt"}
    assert sum(name.startswith("nstcore/_native") for name in wheel_names) == 1


def test_wheel_carries_the_cuda_sources(wheel_names: set[str]) -> None:
    """CuPy compiles them at their first use where what nvcc made of them does not serve."""
    sources = {f"nstcore/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "csrc").rglob("*.cu*")}
    assert len(sources) > len({name.rpartition("/")[0] for name in sources})
    assert {name for name in wheel_names if name.endswith((".cu", ".cuh"))} == sources


def test_wheel_carries_the_kernels_that_nvcc_compiled(wheel_names: set[str]) -> None:
    """Of the editable installation that the tests run in there are none."""
    csrc = ROOT / "csrc"
    sources = sorted(csrc.glob("*/*_cuda.cu"))
    made = {f"nstcore/csrc/{s.parent.name}/{fatbin.name(s, build)}" for s in sources for build in fatbin.builds(s)}
    assert len(made) > 2 * len(sources)
    assert {name for name in wheel_names if name.endswith(".fatbin")} == made
    assert not list(csrc.rglob("*.fatbin"))


def test_nothing_else_is_in_them(sdist_names: set[str], wheel_names: set[str]) -> None:
    for names in (sdist_names, wheel_names):
        assert not [name for name in names if name.startswith(("tests/", "benchmarks/", ".")) or "__pycache__" in name]
    rooms = {name.split("/")[0] for name in wheel_names}
    assert {room for room in rooms if not room.endswith(".dist-info")} == {"nstcore", "_nst.py"}
    assert not [name for name in wheel_names if name.endswith((".cpp", ".h"))]
    assert not [name for name in sdist_names if name.endswith((".so", ".o"))]


def test_wheel_works_from_another_folder(built: Path, tmp_path: Path) -> None:
    """Installed by itself into an empty folder, in front of whatever this environment has."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    run(*pip, "--target", site, next(built.glob("*.whl")), cwd=elsewhere)
    code = """
import numpy as np, nstcore as nst
g = nst.ops.gram(np.ones((1, 2, 2, 3), np.float32))
print(nst.__file__, nst.__version__, g[0, 0, 0], nst.models.vgg16().layers[0])
"""
    file, version, value, layer = run(sys.executable, "-c", code, cwd=elsewhere, PYTHONPATH=str(site)).split()
    assert Path(file).is_relative_to(site.resolve()) or Path(file).is_relative_to(site)
    assert f"nstcore-{version}" in next(built.glob("*.whl")).name
    assert float(value) == 4
    assert layer == "conv1_1"
    assert version in run(site / "bin" / "nst", "--version", cwd=elsewhere, PYTHONPATH=str(site))
