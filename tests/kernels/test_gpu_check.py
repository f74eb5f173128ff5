"""`make gpu-check`: what it runs and what it says, with a compute-sanitizer and a CuPy that pretend."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "gpu_check.sh"
TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
CUPY = "class cuda:\n    class runtime:\n        getDeviceCount = staticmethod(lambda: {devices})\n"
SANITIZER = """#!/bin/sh
echo "$NSTCORE_TEST_NO_POOL $@" >> "{folder}/calls"
[ "$2" != "{failing}" ] || exit 9
"""

pytestmark = pytest.mark.no_emulator


def check(folder: Path, *options: str, sanitizer: bool = True, failing: str = "") -> subprocess.CompletedProcess[str]:
    """Run it with what is in `folder` in front, and no compute-sanitizer of this machine."""
    if sanitizer:
        tool = folder / "compute-sanitizer"
        tool.write_text(SANITIZER.format(folder=folder, failing=failing))
        tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin", "PYTHONPATH": str(folder)}
    command = ["sh", str(SCRIPT), sys.executable, *options]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_each_tool_runs_the_tests_of_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text(CUPY.format(devices=1))
    done = check(tmp_path, "-k", "gram")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "gpu-check: memcheck, racecheck, initcheck and synccheck found nothing"
    calls = (tmp_path / "calls").read_text().splitlines()
    pytest_ = f"{sys.executable} -m pytest -q -p no:cacheprovider -n 0 -m gpu tests/kernels -k gram"
    assert calls == [f"1 --tool {tool} --error-exitcode 9 {pytest_}" for tool in TOOLS]


@pytest.mark.parametrize("failing", TOOLS)
def test_it_stops_at_what_a_tool_finds(tmp_path: Path, failing: str) -> None:
    (tmp_path / "cupy.py").write_text(CUPY.format(devices=1))
    done = check(tmp_path, failing=failing)
    assert (done.returncode, done.stderr) == (1, f"gpu-check: {failing} failed\n")
    assert len((tmp_path / "calls").read_text().splitlines()) == TOOLS.index(failing) + 1


def test_without_compute_sanitizer(tmp_path: Path) -> None:
    done = check(tmp_path, sanitizer=False)
    said = "gpu-check: compute-sanitizer is not on the path; it comes with the CUDA toolkit\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


@pytest.mark.parametrize(
    ("cupy", "reason"),
    [
        ("raise ImportError('none')\n", "CuPy is not installed (pip install nstcore[cuda])"),
        (CUPY.format(devices=0), "CuPy finds no GPU (no CUDA device)"),
    ],
    ids=["no CuPy", "no device"],
)
def test_without_a_gpu(tmp_path: Path, cupy: str, reason: str) -> None:
    (tmp_path / "cupy.py").write_text(cupy)
    done = check(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"gpu-check: no GPU to check on: {reason}\n"
    assert not (tmp_path / "calls").exists()


def test_the_recipe_is_this_script() -> None:
    recipe = re.search(r"^gpu-check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert recipe is not None
    assert recipe[1] == "\t@sh tools/gpu_check.sh $(PY) $(ARGS)\n"
