"""The budget script finds what is too long, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("size_budget", ROOT / "tools" / "size_budget.py")
assert SPEC is not None
assert SPEC.loader is not None
budget = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(budget)


def write(path: Path, lines: int, text: str = "# a line") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n" * lines)


def test_short_files_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.py", 500)
    write(tmp_path / "b.cu", 400, "// a line")
    write(tmp_path / "notes.md", 3000)
    assert budget.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "lines"), [("a.py", 501), ("b.cpp", 501), ("b.h", 501), ("c.cu", 401), ("c.cuh", 401)]
)
def test_a_long_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, lines: int) -> None:
    write(tmp_path / "deep" / name, lines)
    assert budget.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"deep/{name}: {lines} lines, at most {lines - 1}\n"


def test_a_long_function(tmp_path: Path) -> None:
    body = "    pass\n"
    (tmp_path / "a.py").write_text(
        "def short():\n" + body * 69 + "\n\nclass C:\n    async def long(self):\n" + "        pass\n" * 70
    )
    assert list(budget.offences(tmp_path)) == ["a.py:74: long has 71 lines, at most 70"]


def test_a_heavy_tree(tmp_path: Path) -> None:
    data = tmp_path / "nstcore" / "weights" / "data"
    data.mkdir(parents=True)
    (data / "net.npz").write_bytes(bytes(20_000_000))
    assert list(budget.offences(tmp_path)) == []
    (tmp_path / "film.bin").write_bytes(bytes(15_000_001))
    assert list(budget.offences(tmp_path)) == ["the tree without nstcore/weights/data/ has 15.0 MB, at most 15"]


def test_what_git_ignores_is_not_counted(tmp_path: Path) -> None:
    if subprocess.run(["git", "init", "-q", str(tmp_path)], check=False).returncode:
        pytest.skip("git is not installed")
    (tmp_path / ".gitignore").write_text("/made/\n")
    write(tmp_path / "made" / "a.py", 600)
    write(tmp_path / "ours" / "a.py", 600)
    assert list(budget.offences(tmp_path)) == ["ours/a.py: 600 lines, at most 500"]
